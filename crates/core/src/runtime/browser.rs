use std::{future::Future, time::Duration};

use futures_util::future::{AbortHandle, abortable};

use super::BoxFuture;

pub use web_time::Instant;

#[derive(Debug)]
pub(super) struct Task {
    abort: AbortHandle,
    finished: std::rc::Rc<std::cell::Cell<bool>>,
}

/// Boxed before anything is done with it, so that the machinery of a task is compiled once and not for each future.
pub(super) fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    spawn_boxed(Box::pin(future))
}

#[allow(clippy::disallowed_methods)] // The one place where page tasks are made; `Task` ties each to its owner.
fn spawn_boxed(future: BoxFuture<'static, ()>) -> Task {
    let (future, abort) = abortable(future);
    let finished = std::rc::Rc::new(std::cell::Cell::new(false));
    let mark = finished.clone();
    wasm_bindgen_futures::spawn_local(async move {
        let _aborted_or_done = future.await;
        mark.set(true);
    });
    Task { abort, finished }
}

impl Task {
    pub(super) fn is_finished(&self) -> bool {
        self.finished.get()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

pub(super) fn sleep(duration: Duration) -> BoxFuture<'static, ()> {
    // setTimeout counts in i32 milliseconds; a longer sleep is not one that a page lives to see.
    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).min(i32::MAX as u32);
    Box::pin(gloo_timers::future::TimeoutFuture::new(millis))
}
