//! What a network holds at one moment.

use super::flow::{End, State};

/// What there is in an [`Internet`](super::Internet) at one moment. Once nodes are closed and some time has passed nothing
/// should be left, and this is the [default](Default::default); listeners and tasks go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct InUse {
    /// Connections of which at least one end is left, those being made included.
    pub connections: usize,
    /// Ends of streams that somebody holds, or that have not come to their end.
    pub streams: usize,
    /// Bytes of streams that are on their way, or have arrived and are not read.
    pub bytes: usize,
    /// Listening sockets.
    pub listeners: usize,
    /// Tasks that [run on hosts](super::Host::run).
    pub tasks: usize,
    /// Packets on their way, and timers of connections and hosts.
    pub scheduled: usize,
}

impl State {
    pub(crate) fn in_use(&self) -> InUse {
        let ends =
            || self.flows.values().flat_map(|flow| std::iter::once(&flow.dialer).chain(&flow.listener));
        let asleep = self.asleep.values().flatten().map(|segment| segment.bytes());
        let on_their_way = self.fabric.scheduled().map(|signal| signal.bytes());
        let arrived = ends().map(End::bytes);
        InUse {
            connections: self.flows.len(),
            streams: ends().map(|end| end.streams.len()).sum(),
            bytes: asleep.chain(on_their_way).chain(arrived).sum(),
            listeners: self.listeners.len(),
            tasks: self.tasks.len(),
            scheduled: self.fabric.scheduled().count(),
        }
    }
}
