//! What runs on a host, and stops with it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use peerloom_core::runtime::{Scope, scoped};

use super::{
    Internet,
    fabric::Power,
    flow::State,
    host::{Host, HostId},
};

/// What was running on a host ended because the host crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} crashed")]
pub struct HostCrashed(pub HostId);

impl Host {
    /// Runs `future` on this host, and with it all that is spawned from it by
    /// [`runtime::spawn`](peerloom_core::runtime::spawn), as nodes do: while the host sleeps it stands still, and when the
    /// host crashes it is dropped.
    ///
    /// A node belongs to the host as far as it is made and called in this way: `host.run(async { Node::builder(…).build() })`,
    /// then `host.run(node.dial(address))`.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = Result<F::Output, HostCrashed>> + use<F> {
        let (internet, host) = (self.internet.clone(), self.id);
        let incarnation = internet.lock().incarnation(host);
        let running = scoped(Arc::new(Running { internet, host, incarnation }), future);
        async move { running.await.ok_or(HostCrashed(host)) }
    }
}

/// A host from when it started to when it crashes.
struct Running {
    internet: Internet,
    host: HostId,
    incarnation: u32,
}

impl Scope for Running {
    fn enter(&self) -> u64 {
        let mut state = self.internet.lock();
        let task = state.next_task;
        state.next_task = task.wrapping_add(1);
        state.tasks.insert((self.host, task), None);
        task
    }

    fn poll(&self, task: u64, cx: &mut Context<'_>) -> Poll<bool> {
        // All that had to happen by now has happened: the host may have fallen asleep, or woken.
        self.internet.with(|state, _| {
            let Some(host) = state.fabric.host(self.host) else { return Poll::Ready(false) };
            if host.incarnation != self.incarnation {
                return Poll::Ready(false);
            }
            let is_on = host.power == Power::On;
            if let Some(waker) = state.tasks.get_mut(&(self.host, task))
                && !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
            if is_on { Poll::Ready(true) } else { Poll::Pending }
        })
    }

    fn leave(&self, task: u64) {
        let waker = self.internet.lock().tasks.remove(&(self.host, task));
        drop(waker);
    }
}

impl State {
    /// Lets every task of the host find out how things are.
    pub(super) fn wake_tasks(&mut self, host: HostId) {
        let tasks = self.tasks.range((host, 0)..=(host, u64::MAX));
        self.woken.extend(tasks.filter_map(|(_, waker)| waker.clone()));
    }
}
