use std::{future::Future, time::Duration};

use super::BoxFuture;

pub use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Task(tokio::task::JoinHandle<()>);

#[allow(clippy::disallowed_methods)] // The one place where tokio tasks are made; `Task` ties each to its owner.
pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(tokio::spawn(future))
}

impl Task {
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn sleep(duration: Duration) -> BoxFuture<'static, ()> {
    Box::pin(tokio::time::sleep(duration))
}
