//! Who uses a connection: every stream on it is counted, whichever side opened it, for as long as it lives.

use std::sync::Arc;

use parking_lot::Mutex;
use peerloom_core::{ProtocolName, runtime::Instant};
use tokio::sync::Notify;

use crate::{identify, ping};

/// How much a connection is used.
#[derive(Debug)]
pub(crate) struct Usage {
    state: Mutex<State>,
    /// Tells the node that a connection may have become idle.
    became_idle: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    open: usize,
    used: bool,
    idle_since: Instant,
}

/// How much a connection is used at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// There are streams on it.
    Open,
    /// There has been none since then. `before` is whether there ever was one.
    Idle { since: Instant, before: bool },
}

impl Usage {
    pub(crate) fn new(now: Instant, became_idle: Arc<Notify>) -> Self {
        Self { state: Mutex::new(State { open: 0, used: false, idle_since: now }), became_idle }
    }

    pub(crate) fn read(&self) -> Use {
        let State { open, used, idle_since } = *self.state.lock();
        if open > 0 { Use::Open } else { Use::Idle { since: idle_since, before: used } }
    }

    /// Counts a stream from the wish for it on, so that the connection is not closed under it.
    pub(crate) fn count(self: &Arc<Self>) -> StreamUse {
        let mut state = self.state.lock();
        state.open = state.open.saturating_add(1);
        drop(state);
        StreamUse { usage: self.clone(), matters: false }
    }
}

/// One of the streams on a connection, as long as this lives.
#[derive(Debug)]
pub(crate) struct StreamUse {
    usage: Arc<Usage>,
    matters: bool,
}

/// What nodes ask each other about themselves: nobody has a connection for its sake.
const HOUSEKEEPING: [&str; 3] = [identify::PROTOCOL, identify::PUSH_PROTOCOL, ping::PROTOCOL];

impl StreamUse {
    /// From here on the stream counts if it is for one of these protocols. Otherwise, it leaves no trace.
    pub(crate) fn of(mut self, protocols: &[ProtocolName]) -> Option<Self> {
        let housekeeping = |protocol: &ProtocolName| HOUSEKEEPING.contains(&protocol.as_str());
        self.matters = !protocols.iter().all(housekeeping);
        self.matters.then_some(self)
    }
}

impl Drop for StreamUse {
    fn drop(&mut self) {
        let mut state = self.usage.state.lock();
        state.open = state.open.saturating_sub(1);
        if self.matters {
            state.used = true;
            state.idle_since = Instant::now();
        }
        let idle = state.open == 0;
        drop(state);
        if idle {
            self.usage.became_idle.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_since_its_last_stream_that_matters() {
        let start = Instant::now();
        let usage = Arc::new(Usage::new(start, Arc::default()));
        assert_eq!(usage.read(), Use::Idle { since: start, before: false });
        let echo = [ProtocolName::from_static("/echo/1.0.0")];
        let (one, other) = (usage.count().of(&echo), usage.count().of(&echo));
        drop(one);
        assert_eq!(usage.read(), Use::Open);
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(other);
        let ended = Instant::now();
        assert_eq!(usage.read(), Use::Idle { since: ended, before: true });
        tokio::time::advance(Duration::from_secs(1)).await;
        let pinging = usage.count();
        assert_eq!(usage.read(), Use::Open, "until it is known what it is for");
        assert!(pinging.of(&[ProtocolName::from_static(ping::PROTOCOL)]).is_none());
        assert_eq!(usage.read(), Use::Idle { since: ended, before: true });
    }
}
