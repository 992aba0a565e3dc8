use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{BoxFuture, MaybeSend, Task, spawn};

/// The tasks of one owner. A task that ends leaves the set by itself; dropping the set cancels the rest.
#[derive(Debug, Default)]
pub struct TaskSet(Arc<Mutex<Tasks>>);

#[derive(Debug, Default)]
struct Tasks {
    next: u64,
    /// In the order in which they were started, in which they are cancelled as well: a simulation must not depend on chance.
    running: BTreeMap<u64, Task>,
    closed: bool,
}

impl TaskSet {
    /// Runs `future` until it ends or the set is dropped or closed. In a closed set it never starts.
    pub fn spawn(&self, future: impl Future<Output = ()> + MaybeSend + 'static) {
        self.spawn_boxed(Box::pin(future));
    }

    fn spawn_boxed(&self, future: BoxFuture<'static, ()>) {
        let mut tasks = lock(&self.0);
        if tasks.closed {
            return;
        }
        let id = tasks.next;
        tasks.next = id.wrapping_add(1);
        let membership = Membership { set: Arc::downgrade(&self.0), id };
        // The lock is held until the task is in the map, so a task that ends at once still finds itself there.
        tasks.running.insert(
            id,
            spawn(async move {
                let _membership = membership;
                future.await;
            }),
        );
    }

    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        lock(&self.0).running.len()
    }

    /// Whether every task has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cancels every task and starts no more.
    pub fn close(&self) {
        let running = {
            let mut tasks = lock(&self.0);
            tasks.closed = true;
            std::mem::take(&mut tasks.running)
        };
        // Outside of the lock, which a cancelled task takes when it leaves.
        drop(running);
    }
}

impl Drop for TaskSet {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes its task out of the set however it ends: done, cancelled or panicked.
struct Membership {
    set: Weak<Mutex<Tasks>>,
    id: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(set) = self.set.upgrade() {
            let task = lock(&set).running.remove(&self.id);
            drop(task);
        }
    }
}

fn lock(tasks: &Mutex<Tasks>) -> MutexGuard<'_, Tasks> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}
