//! One Yamux session: its streams, its clock and its end.

#![warn(clippy::arithmetic_side_effects)]

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use peerloom_core::{ConnectionError, runtime::Instant};

use super::{
    frame::{FrameError, GoAwayCode},
    limits::{
        ACK_BACKLOG, CLOSE_TIMEOUT, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, LINGER, MAX_INBOUND_STREAMS,
        MAX_PENDING_RESETS,
    },
    receive::Input,
    stream::{StreamId, StreamState, WriteHalf},
    window::Growth,
};
use crate::Role;

/// An ACK travels with the first frame of an accepted stream, so that answering costs one packet. But the remote opens no more
/// streams than its backlog allows, so it must not wait for holders that say nothing: after so many it is sent by itself.
const DELAYED_ACKNOWLEDGEMENTS: usize = ACK_BACKLOG / 4;
/// A timer that fires this late was asleep together with its page or machine, and says nothing about the remote.
const ASLEEP: Duration = Duration::from_secs(5);
/// How often in a row a late timer gives the remote another chance.
const SECOND_CHANCES: u8 = 2;

/// The remote broke the protocol. The session is of no more use; the remote is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A header makes no sense.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A stream was opened with an id that belongs to the other side.
    #[error("yamux stream {0} was opened by the wrong side")]
    WrongSide(StreamId),
    /// A stream was opened with the id of one that lives.
    #[error("yamux stream {0} was opened twice")]
    OpenedTwice(StreamId),
    /// More data came than the stream's window allows.
    #[error("data exceeds the window of yamux stream {0}")]
    WindowExceeded(StreamId),
    /// A window was to grow beyond 32 bits.
    #[error("window of yamux stream {0} overflows")]
    WindowOverflow(StreamId),
    /// The remote provokes resets without reading them.
    #[error("too many yamux resets are pending")]
    TooManyResets,
}

/// A Yamux session as a state machine. See [`limits`](super::limits) for what bounds it.
pub struct Session {
    role: Role,
    next_id: u32,
    pub(super) streams: HashMap<StreamId, StreamState>,
    inbound: usize,
    accept_queue: VecDeque<StreamId>,
    accept_waker: Option<Waker>,
    /// Accepted streams, some of which are not acknowledged yet.
    accepted: Vec<StreamId>,

    pub(super) input: Input,
    /// Bytes received but not read, over all streams.
    pub(super) unread: usize,
    pub(super) growth: Growth,

    /// Streams that may have something to send, in turns.
    pub(super) ready: VecDeque<StreamId>,
    /// Bytes taken from writers but not sent, over all streams.
    pub(super) queued: usize,
    pub(super) pongs: VecDeque<u32>,
    pub(super) resets: VecDeque<(StreamId, u32)>,
    pub(super) go_away: GoAway,
    /// What [`close`](Self::close) ends it with.
    pub(super) close_code: GoAwayCode,
    /// Batches of frames handed to the driver, and those that the driver has written.
    pub(super) batches: u64,
    pub(super) batches_written: u64,
    pub(super) awaiting_flush: Vec<StreamId>,

    pub(super) ping: Ping,
    pub(super) last_heard: Instant,
    second_chances: u8,
    /// Streams that nobody holds, and until when they wait for the remote's end.
    lingering: VecDeque<(Instant, StreamId)>,
    close_deadline: Option<Instant>,

    wakers: Vec<Waker>,
    events: Events,
    end: Option<Arc<ConnectionError>>,
}

/// What a driver is to do after it has used the session.
#[derive(Debug, Default)]
pub struct Events {
    /// There may be something to transmit now.
    pub transmit: bool,
    /// [`Session::close`] was called: there is a new deadline.
    pub closing: bool,
    /// So many streams of ours were acknowledged, or ended before.
    pub acknowledged: usize,
    /// So many streams of ours are over.
    pub closed: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GoAway {
    No,
    /// Once everything queued is sent.
    Draining,
    Due(GoAwayCode),
    Sent,
}

/// One ping at a time, for the round trip and for keeping alive.
#[derive(Debug, Default)]
pub(super) struct Ping {
    pub(super) due: bool,
    value: u32,
    requested_at: Option<Instant>,
    sent_at: Option<Instant>,
    pub(super) round_trip: Option<Duration>,
    measured_at: Option<Instant>,
}

impl Session {
    /// A session that starts `now`. `role` is that in the layer below: its initiator opens the odd streams.
    pub fn new(role: Role, now: Instant) -> Self {
        Self {
            role,
            next_id: if role == Role::Initiator { 1 } else { 2 },
            streams: HashMap::new(),
            inbound: 0,
            accept_queue: VecDeque::new(),
            accept_waker: None,
            accepted: Vec::new(),
            input: Input::default(),
            unread: 0,
            growth: Growth::default(),
            ready: VecDeque::new(),
            queued: 0,
            pongs: VecDeque::new(),
            resets: VecDeque::new(),
            go_away: GoAway::No,
            close_code: GoAwayCode::Normal,
            batches: 0,
            batches_written: 0,
            awaiting_flush: Vec::new(),
            ping: Ping::default(),
            last_heard: now,
            second_chances: SECOND_CHANCES,
            lingering: VecDeque::new(),
            close_deadline: None,
            wakers: Vec::new(),
            events: Events::default(),
            end: None,
        }
    }

    /// Opens a stream. The caller keeps to the bounds of [`limits`](super::limits), by [`Events`].
    pub fn open(&mut self) -> Result<StreamId, Arc<ConnectionError>> {
        self.check_open()?;
        let id = StreamId::new(self.next_id)
            .ok_or_else(|| Arc::new(ConnectionError::Protocol("yamux stream ids are used up".into())))?;
        // 0 after the last id: the session goes on, but opens no more streams.
        self.next_id = self.next_id.checked_add(2).unwrap_or(0);
        self.streams.insert(id, StreamState::outbound());
        Ok(id)
    }

    /// The next stream that the remote has opened; otherwise wakes `waker` when there is one.
    pub fn accept(&mut self, waker: &Waker) -> Result<Option<StreamId>, Arc<ConnectionError>> {
        if let Some(id) = self.accept_queue.pop_front() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.acknowledge_pending = true;
            }
            self.accepted.push(id);
            if self.accepted.len() >= DELAYED_ACKNOWLEDGEMENTS {
                self.acknowledge_accepted();
            }
            return Ok(Some(id));
        }
        self.check_open()?;
        replace(&mut self.accept_waker, waker);
        Ok(None)
    }

    /// Ends the session in an orderly way: what streams have taken is sent, then GOAWAY. Nothing new is taken.
    pub fn close(&mut self, now: Instant) {
        self.close_for(now, GoAwayCode::Normal);
    }

    /// The same, with a code for the remote.
    pub fn close_for(&mut self, now: Instant, code: GoAwayCode) {
        if self.end.is_none() && self.go_away == GoAway::No {
            self.go_away = GoAway::Draining;
            self.close_code = code;
            self.close_deadline = now.checked_add(CLOSE_TIMEOUT);
            self.events.transmit = true;
            self.events.closing = true;
            self.wakers.extend(self.accept_waker.take());
            self.wakers.extend(self.streams.values_mut().filter_map(|stream| stream.write_waker.take()));
        }
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closing(&self) -> bool {
        self.go_away != GoAway::No
    }

    /// Whether GOAWAY is among the frames handed to the driver, so that nothing will follow.
    pub fn is_drained(&self) -> bool {
        self.go_away == GoAway::Sent
    }

    /// Ends the session at once. What has arrived can still be read, nothing else works any more.
    pub fn terminate(&mut self, reason: Arc<ConnectionError>) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(reason);
        self.ready.clear();
        self.pongs.clear();
        self.resets.clear();
        self.awaiting_flush.clear();
        self.queued = 0;
        // Streams in the backlog still have their bytes; those that nobody will ever hold go.
        self.lingering.clear();
        self.streams.retain(|_, stream| stream.held);
        for stream in self.streams.values_mut() {
            stream.queue.clear();
            stream.queued = 0;
            self.wakers.extend(stream.read_waker.take());
            self.wakers.extend(stream.write_waker.take());
        }
        self.wakers.extend(self.accept_waker.take());
    }

    /// Tells the remote, with the next frames, that it broke the protocol.
    pub fn accuse(&mut self) {
        self.go_away = GoAway::Due(GoAwayCode::ProtocolError);
    }

    /// Why the session is over, if it is.
    pub fn end(&self) -> Option<&Arc<ConnectionError>> {
        self.end.as_ref()
    }

    /// How many streams the session knows of.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let keep_alive = match self.unanswered_since() {
            Some(asked) => asked.checked_add(KEEP_ALIVE_TIMEOUT),
            None => self.last_heard.checked_add(KEEP_ALIVE_INTERVAL),
        };
        let linger = self.lingering.front().map(|(deadline, _)| *deadline);
        [keep_alive, linger, self.close_deadline].into_iter().flatten().min()
    }

    /// Does what is due at `now`. To be called after everything that has arrived was given to the session.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        self.acknowledge_accepted();
        while let Some((deadline, id)) = self.lingering.front().copied()
            && deadline <= now
        {
            self.lingering.pop_front();
            if self.streams.get(&id).is_some_and(|stream| !stream.held) {
                self.reset(id, 0);
            }
        }
        if self.close_deadline.is_some_and(|deadline| deadline <= now) {
            self.close_deadline = None;
            self.go_away = GoAway::Due(self.close_code);
            self.events.transmit = true;
        }
        if let Some(asked) = self.unanswered_since() {
            let late = now.saturating_duration_since(asked).checked_sub(KEEP_ALIVE_TIMEOUT);
            match late {
                None => {}
                Some(late) if late > ASLEEP && self.second_chances > 0 => {
                    self.second_chances = self.second_chances.saturating_sub(1);
                    self.request_ping(now);
                }
                Some(_) => return Err(ConnectionError::TimedOut),
            }
        } else if now.saturating_duration_since(self.last_heard) >= KEEP_ALIVE_INTERVAL {
            self.request_ping(now);
        }
        Ok(())
    }

    /// What a driver is to do. To be asked after every use of the session.
    pub fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    /// Whom to wake, appended to `wakers`. To be asked after every use of the session, and done without holding a lock.
    pub fn take_wakers(&mut self, wakers: &mut Vec<Waker>) {
        wakers.append(&mut self.wakers);
    }

    pub(super) fn check_open(&self) -> Result<(), Arc<ConnectionError>> {
        match &self.end {
            Some(reason) => Err(reason.clone()),
            None if self.is_closing() => Err(Arc::new(ConnectionError::ClosedLocally)),
            None => Ok(()),
        }
    }

    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    /// The stream may have something to send.
    pub(super) fn schedule(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.scheduled
        {
            stream.scheduled = true;
            self.ready.push_back(id);
            self.events.transmit = true;
        }
    }

    /// The remote opens stream `id`. There is none afterwards if it was refused.
    pub(super) fn open_inbound(&mut self, id: StreamId) -> Result<(), Violation> {
        if self.is_outbound(id) {
            return Err(Violation::WrongSide(id));
        }
        if self.streams.contains_key(&id) {
            return Err(Violation::OpenedTwice(id));
        }
        if self.resets.len() >= MAX_PENDING_RESETS {
            return Err(Violation::TooManyResets);
        }
        if self.inbound >= MAX_INBOUND_STREAMS || self.accept_queue.len() >= ACK_BACKLOG || self.is_closing()
        {
            self.queue_reset(id, 0);
            return Ok(());
        }
        self.inbound = self.inbound.saturating_add(1);
        self.streams.insert(id, StreamState::inbound());
        self.accept_queue.push_back(id);
        let waker = self.accept_waker.take();
        self.wake(waker);
        Ok(())
    }

    /// Abandons the stream and forgets it. The remote is told, if it knows of the stream.
    pub(super) fn reset(&mut self, id: StreamId, code: u32) {
        let Some(stream) = self.streams.get(&id) else { return };
        let tell = !stream.open_pending && stream.reset.is_none() && self.end.is_none();
        self.forget(id);
        if tell {
            // Bounded by the streams that live, and no stream is opened by the remote while the queue is full.
            self.queue_reset(id, code);
        }
    }

    pub(super) fn queue_reset(&mut self, id: StreamId, code: u32) {
        self.resets.push_back((id, code));
        self.request_transmit();
    }

    pub(super) fn request_transmit(&mut self) {
        self.events.transmit = true;
    }

    /// Drops all that the session has of the stream.
    pub(super) fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.unread = self.unread.saturating_sub(stream.received.len());
        self.queued = self.queued.saturating_sub(stream.queued);
        self.growth.give_back(stream.receive_window.growth());
        if self.is_outbound(id) {
            self.events.closed = self.events.closed.saturating_add(1);
            if !stream.acknowledged {
                self.events.acknowledged = self.events.acknowledged.saturating_add(1);
            }
        } else {
            self.inbound = self.inbound.saturating_sub(1);
        }
    }

    fn acknowledge_accepted(&mut self) {
        for id in std::mem::take(&mut self.accepted) {
            if self.streams.get(&id).is_some_and(|stream| stream.acknowledge_pending) {
                self.schedule(id);
            }
        }
    }

    /// The stream was acknowledged by the remote.
    pub(super) fn acknowledged(&mut self, id: StreamId) {
        if self.is_outbound(id)
            && let Some(stream) = self.streams.get_mut(&id)
            && !stream.acknowledged
        {
            stream.acknowledged = true;
            self.events.acknowledged = self.events.acknowledged.saturating_add(1);
        }
    }

    /// Nobody holds the stream any more. A stream whose write half was closed waits for the remote's end, because a reset
    /// would take from the remote what it has not read yet.
    pub(super) fn release(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.reset.is_some() || stream.is_over() || self.end.is_some() {
            self.forget(id);
        } else if stream.write_half == WriteHalf::Open || stream.open_pending && stream.queued == 0 {
            self.reset(id, 0);
        } else {
            stream.held = false;
            stream.read_waker = None;
            stream.write_waker = None;
            let unread = stream.received.len();
            stream.received = Default::default();
            self.unread = self.unread.saturating_sub(unread);
            if let Some(deadline) = now.checked_add(LINGER) {
                self.lingering.push_back((deadline, id));
            }
            // Streams that ended in time are still in the queue; it must not grow with every stream of a busy session.
            if self.lingering.len() > self.streams.len().saturating_mul(2).saturating_add(64) {
                let streams = &self.streams;
                self.lingering.retain(|(_, id)| streams.get(id).is_some_and(|stream| !stream.held));
            }
        }
    }

    fn is_outbound(&self, id: StreamId) -> bool {
        (id.get() & 1 == 1) == (self.role == Role::Initiator)
    }
}

/// Pings.
impl Session {
    fn request_ping(&mut self, now: Instant) {
        self.ping.due = true;
        self.ping.requested_at = Some(now);
        self.events.transmit = true;
    }

    /// Asks for a new measurement if there is none, or an old one.
    pub(super) fn measure_round_trip(&mut self, now: Instant) {
        let fresh = |at: Instant| now.saturating_duration_since(at) < KEEP_ALIVE_INTERVAL;
        if !self.ping.measured_at.is_some_and(fresh) && !self.ping.requested_at.is_some_and(fresh) {
            self.request_ping(now);
        }
    }

    pub(super) fn ping_sent(&mut self, now: Instant) -> u32 {
        self.ping.due = false;
        self.ping.value = self.ping.value.wrapping_add(1);
        self.ping.sent_at = Some(now);
        self.ping.value
    }

    pub(super) fn pong_received(&mut self, value: u32, now: Instant) {
        let Some(sent_at) = self.ping.sent_at.filter(|_| value == self.ping.value) else { return };
        let sample = now.saturating_duration_since(sent_at);
        // Queues make pings late, so the shortest counts; an eighth of the rest, in case the path has become longer.
        self.ping.round_trip = Some(match self.ping.round_trip {
            Some(known) if sample > known => {
                known.saturating_add(sample.saturating_sub(known).mul_f32(0.125))
            }
            _ => sample,
        });
        self.ping.sent_at = None;
        self.ping.requested_at = None;
        self.ping.measured_at = Some(now);
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.second_chances = SECOND_CHANCES;
    }

    /// Since when the remote owes any sign of life.
    fn unanswered_since(&self) -> Option<Instant> {
        self.ping.requested_at.filter(|requested_at| *requested_at >= self.last_heard)
    }
}

pub(super) fn replace(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) => known.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}
