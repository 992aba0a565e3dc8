use std::{future::Future, sync::Arc, time::Duration};

use super::{BoxFuture, scope};

pub use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Task(tokio::task::JoinHandle<()>);

#[allow(clippy::disallowed_methods)] // The one place where tokio tasks are made; `Task` ties each to its owner.
pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    match scope::current() {
        None => Task(tokio::spawn(future)),
        Some(scope) => spawn_scoped(scope, Box::pin(future)),
    }
}

#[allow(clippy::disallowed_methods)] // As above.
fn spawn_scoped(scope: Arc<dyn scope::Scope>, future: BoxFuture<'static, ()>) -> Task {
    let scoped = scope::scoped(scope, future);
    Task(tokio::spawn(async { scoped.await.unwrap_or_default() }))
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
