//! Whom tasks belong to, for simulations: a host that stops takes along all that runs on it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Decides over the tasks in it whether and when they go on. [`spawn`](super::spawn) puts a task into the scope of the one that
/// spawns it.
pub trait Scope: Send + Sync {
    /// A task has come; its number in this scope.
    fn enter(&self) -> u64;

    /// Whether the task may go on: `true`, or `false` if it is to end here and now. If it has to wait, its waker is woken
    /// once that has changed; and so it is when a task that could go on no longer can.
    fn poll(&self, task: u64, cx: &mut Context<'_>) -> Poll<bool>;

    /// The task has gone.
    fn leave(&self, task: u64);
}

tokio::task_local! {
    static CURRENT: Arc<dyn Scope>;
}

/// The scope of the task that is running.
pub(super) fn current() -> Option<Arc<dyn Scope>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Runs `future`, and what it spawns, within `scope`. `None` if the scope ended it.
pub fn scoped<F: Future>(scope: Arc<dyn Scope>, future: F) -> impl Future<Output = Option<F::Output>> {
    let task = scope.enter();
    Scoped { future: Some(Box::pin(future)), membership: Membership { scope, task } }
}

struct Scoped<F> {
    /// Before the membership, so that it is dropped as a member.
    future: Option<Pin<Box<F>>>,
    membership: Membership,
}

struct Membership {
    scope: Arc<dyn Scope>,
    task: u64,
}

impl<F: Future> Future for Scoped<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Membership { scope, task } = &this.membership;
        let goes_on = ready!(scope.poll(*task, cx));
        let Some(future) = this.future.as_mut().filter(|_| goes_on) else {
            this.future = None;
            return Poll::Ready(None);
        };
        CURRENT.sync_scope(scope.clone(), || future.as_mut().poll(cx)).map(Some)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.scope.leave(self.task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::runtime::spawn;

    #[derive(Default)]
    struct Counting {
        entered: AtomicU64,
        left: AtomicU64,
        ended: AtomicBool,
    }

    impl Scope for Counting {
        fn enter(&self) -> u64 {
            self.entered.fetch_add(1, Relaxed)
        }

        fn poll(&self, _: u64, _: &mut Context<'_>) -> Poll<bool> {
            Poll::Ready(!self.ended.load(Relaxed))
        }

        fn leave(&self, _: u64) {
            self.left.fetch_add(1, Relaxed);
        }
    }

    #[tokio::test]
    async fn what_a_task_spawns_is_in_its_scope_and_goes_with_it() {
        let scope = Arc::new(Counting::default());
        let work = async {
            let task = spawn(async {
                let _child = spawn(std::future::pending());
                tokio::task::yield_now().await;
            });
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            drop(task);
            7
        };
        assert_eq!(scoped(scope.clone(), work).await, Some(7));
        tokio::task::yield_now().await;
        let _outside = spawn(std::future::pending());
        assert_eq!((scope.entered.load(Relaxed), scope.left.load(Relaxed)), (3, 3));
        scope.ended.store(true, Relaxed);
        assert_eq!(scoped(scope, std::future::pending::<()>()).await, None);
    }
}
