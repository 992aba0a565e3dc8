use std::{fmt, time::Duration};

use super::{host::HostId, random::mix};

/// Events that a trace keeps; later ones are counted and still change its digest.
pub const MAX_TRACE_EVENTS: usize = 100_000;

/// What happened in a simulation, in order. Two runs that are identical have equal traces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    events: Vec<TraceEvent>,
    count: u64,
    digest: u64,
}

/// One event of a [`Trace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceEvent {
    /// When, since the simulation began.
    pub at: Duration,
    /// What.
    pub what: What,
    /// The host that it happened to, or that a packet came from.
    pub host: HostId,
    /// The host that a packet was for, where there was one.
    pub to: Option<HostId>,
    /// The bytes of payload of a packet.
    pub length: u32,
}

/// What a [`TraceEvent`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A packet was sent. `length` is that of all that were sent together.
    Sent,
    /// A packet arrived.
    Arrived,
    /// A packet was lost on a link.
    Lost,
    /// A packet found no way: a partition, a host that is down or asleep, an address that nobody has.
    Unroutable,
    /// A packet was stopped by a NAT, or by a host that takes no UDP.
    Filtered,
    /// A connection was established at this host.
    Connected,
    /// A connection was over at this host.
    Disconnected,
    /// The host crashed.
    Crashed,
    /// The host started again.
    Restarted,
    /// The host fell asleep.
    FellAsleep,
    /// The host woke up.
    WokeUp,
    /// The network was cut in two. The host is the first.
    Partitioned,
    /// Every partition was healed. The host is the first.
    Healed,
}

impl Trace {
    /// The first [`MAX_TRACE_EVENTS`] events.
    pub fn events(&self) -> &[TraceEvent] {
        &self.events
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A number that depends on every one of them and on their order.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The first event in which the two differ, for the message of a test that expected them to be equal.
    pub fn first_difference(&self, other: &Self) -> Option<(Option<TraceEvent>, Option<TraceEvent>)> {
        let most = self.events.len().max(other.events.len());
        let pairs = (0..most).map(|at| (self.events.get(at).copied(), other.events.get(at).copied()));
        pairs.into_iter().find(|(ours, theirs)| ours != theirs)
    }

    pub(crate) fn record(&mut self, event: TraceEvent) {
        let to = event.to.map_or(u64::MAX, |host| u64::from(host.0));
        let words = [
            u64::try_from(event.at.as_nanos()).unwrap_or(u64::MAX),
            event.what as u64,
            u64::from(event.host.0),
            to,
            u64::from(event.length),
        ];
        self.digest = words.into_iter().fold(self.digest, |digest, word| mix(digest ^ mix(word)));
        self.count = self.count.saturating_add(1);
        if self.events.len() < MAX_TRACE_EVENTS {
            self.events.push(event);
        }
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} s {} {:?}", self.at.as_secs_f64(), self.host, self.what)?;
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        match self.length {
            0 => Ok(()),
            length => write!(f, ", {length} B"),
        }
    }
}
