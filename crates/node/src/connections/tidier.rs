//! Closes the connections that nobody needs, and the least worthy where there are too many.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use peerloom_core::{
    CloseReason, ConnectionError,
    runtime::{Instant, Task, sleep_until, spawn, timeout},
};
use tokio::sync::Notify;

use super::{
    ConnectionId, Connections,
    tidy::{Marks, SHORTEST, Tidied, Why, tidy, to_trim},
    usage::Use,
    worth::{Candidate, Wanted},
};
use crate::{Direction, Limits, node::Shared, resources::ResourceScope};

/// How many good connections a node has closed, since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosedCounts {
    /// For want of room: the least worthy.
    pub trimmed: u64,
    /// For want of use.
    pub unused: u64,
    /// Because another connection to the same peer did as well.
    pub superfluous: u64,
}

/// The task that looks after the connections, once there are some.
#[derive(Default)]
pub(crate) struct Tidier {
    task: Mutex<Option<Task>>,
    /// A connection has come, or may have become idle.
    pub(super) news: Arc<Notify>,
    /// There are too many connections.
    crowded: AtomicBool,
    trimmed: AtomicU64,
    unused: AtomicU64,
    superfluous: AtomicU64,
}

impl Tidier {
    pub(crate) fn close(&self) {
        let task = self.task.lock().take();
        drop(task);
    }

    pub(crate) fn counts(&self) -> ClosedCounts {
        ClosedCounts {
            trimmed: self.trimmed.load(Relaxed),
            unused: self.unused.load(Relaxed),
            superfluous: self.superfluous.load(Relaxed),
        }
    }

    fn count(&self, why: Why) {
        let counter = match why {
            Why::Trimmed => &self.trimmed,
            Why::Unused => &self.unused,
            Why::Superfluous => &self.superfluous,
        };
        counter.fetch_add(1, Relaxed);
    }
}

impl Shared {
    /// A connection has come. Called under the lock of `connections`.
    pub(super) fn tidy_later(self: &Arc<Self>, connections: &Connections) {
        if connections.by_id.len() > self.marks().high {
            self.tidier.crowded.store(true, Relaxed);
        }
        let mut task = self.tidier.task.lock();
        if task.is_none() && !connections.closed {
            *task = Some(spawn(keep_tidy(self.clone())));
        }
        drop(task);
        self.tidier.news.notify_one();
    }

    /// Closes the least worthy connections so that `keep` are left, as far as they may be closed.
    pub(crate) async fn trim(&self, keep: usize) -> usize {
        let trimmed = to_trim(self.candidates(), keep, self.limits.grace, Instant::now());
        let closing: Vec<_> = trimmed.into_iter().filter_map(|id| self.let_go(id, Why::Trimmed)).collect();
        let count = closing.len();
        let _ = timeout(self.limits.close_timeout, join_all(closing)).await;
        count
    }

    fn tidy(&self) -> Tidied {
        let tidied = tidy(self.candidates(), &self.limits, self.marks(), Instant::now());
        for (id, why) in &tidied.close {
            if let Some(goodbye) = self.let_go(*id, *why) {
                self.tasks.spawn(async move {
                    goodbye.await;
                });
            }
        }
        tidied
    }

    fn marks(&self) -> Marks {
        let system = self.resources.limit(&ResourceScope::System);
        Marks::of(&self.limits, system.connections.min(system.inbound_connections))
    }

    fn candidates(&self) -> Vec<Candidate> {
        let connections = self.connections.lock();
        let entries = connections.by_id.values().map(|entry| {
            let info = &entry.info;
            let of_peer = connections.by_peer.get(&info.peer);
            let wanted = match of_peer {
                Some(peer) if peer.wanted => Wanted::ByApplication,
                Some(peer) if peer.has_dialed => Wanted::ByRemote,
                _ => Wanted::ForStreams,
            };
            Candidate {
                id: info.id,
                established: info.established,
                used: entry.usage.read(),
                superfluous: connections.is_superfluous(entry),
                protected: self.peer_store.is_protected(info.peer),
                weight: self.peer_store.weight(info.peer),
                wanted,
                path: info.preference(),
                dialed: info.direction == Direction::Outbound,
            }
        });
        entries.collect()
    }

    /// Ends a connection, unless it has come into use since it was looked at. The goodbye is for the caller to wait for.
    fn let_go(&self, id: ConnectionId, why: Why) -> Option<impl Future<Output = ()> + use<>> {
        let reason = match why {
            Why::Trimmed | Why::Unused => CloseReason::GarbageCollected,
            Why::Superfluous => CloseReason::Supplanted,
        };
        let error = Arc::new(ConnectionError::ClosedFor { reason, by_remote: false });
        let (connection, resources) =
            self.remove_connection_if(id, error, |entry| entry.usage.read() != Use::Open)?;
        self.tidier.count(why);
        tracing::debug!(%id, ?why, "closing a connection");
        // Dropped before its goodbye is said, the connection would just end.
        Some(async move {
            connection.close_for(reason).await;
            drop((connection, resources));
        })
    }
}

/// Looks at the connections when one of them may be due, until the node is closed.
async fn keep_tidy(shared: Arc<Shared>) {
    // What comes into use and becomes idle again all the time is looked at no more often than that.
    let Limits { superfluous_idle, unused_idle, .. } = shared.limits;
    let patience = superfluous_idle.min(unused_idle);
    let mut looked = Instant::now();
    let mut again: Option<Instant> = None;
    loop {
        let crowded = shared.tidier.crowded.load(Relaxed);
        let now = Instant::now();
        let due = if crowded { Some(looked + SHORTEST) } else { again };
        match due {
            Some(due) if due <= now => {
                shared.tidier.crowded.store(false, Relaxed);
                again = shared.tidy().again;
                looked = now;
            }
            due => tokio::select! {
                biased;
                () = shared.tidier.news.notified() => {
                    let soon = now + patience;
                    again = Some(again.map_or(soon, |again| again.min(soon)));
                }
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            },
        }
    }
}
