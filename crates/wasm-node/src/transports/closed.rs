use std::sync::Arc;

use peerloom_core::{ConnectionError, runtime::BoxFuture};
use tokio::sync::watch;

/// How a connection ended, if it has. Clones are the same; the first reason stays.
#[derive(Clone)]
pub(crate) struct Closed(Arc<watch::Sender<Option<Arc<ConnectionError>>>>);

impl Closed {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    pub(crate) fn set(&self, reason: ConnectionError) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(Arc::new(reason));
            }
            first
        });
    }

    pub(crate) fn reason(&self) -> Option<Arc<ConnectionError>> {
        self.0.borrow().clone()
    }

    /// The reason, or, while the browser has not told it yet, what it said about the object that failed.
    pub(crate) fn reason_or(&self, description: impl FnOnce() -> String) -> Arc<ConnectionError> {
        self.reason().unwrap_or_else(|| Arc::new(ConnectionError::Io(description())))
    }

    pub(crate) fn wait(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        let mut receiver = self.0.subscribe();
        Box::pin(async move {
            loop {
                if let Some(reason) = receiver.borrow_and_update().clone() {
                    return reason;
                }
                if receiver.changed().await.is_err() {
                    // Every handle of the connection is gone.
                    return Arc::new(ConnectionError::ClosedLocally);
                }
            }
        })
    }
}
