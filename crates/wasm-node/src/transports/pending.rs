use std::{cell::RefCell, rc::Rc};

use peerloom_core::runtime::{Task, spawn};
use tokio::sync::watch;

/// What the browser still has to do for streams that nobody holds any more.
#[derive(Clone)]
pub(crate) struct Pending(Rc<PendingTasks>);

struct PendingTasks {
    tasks: RefCell<Vec<Task>>,
    count: watch::Sender<usize>,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self(Rc::new(PendingTasks { tasks: RefCell::default(), count: watch::Sender::new(0) }))
    }

    /// Runs `work` for as long as the connection lives.
    pub(crate) fn add(&self, work: impl Future<Output = ()> + 'static) {
        let pending = Rc::downgrade(&self.0);
        self.0.count.send_modify(|count| *count = count.saturating_add(1));
        let mut tasks = self.0.tasks.borrow_mut();
        // So there are never more entries than streams that are opening or ending.
        tasks.retain(|task| !task.is_finished());
        tasks.push(spawn(async move {
            work.await;
            if let Some(pending) = pending.upgrade() {
                pending.count.send_modify(|count| *count = count.saturating_sub(1));
            }
        }));
    }

    /// Ready when nothing is left to do.
    pub(crate) async fn idle(&self) {
        // An error would mean that the sender is gone, but `self` holds it.
        let _ = self.0.count.subscribe().wait_for(|count| *count == 0).await;
    }
}
