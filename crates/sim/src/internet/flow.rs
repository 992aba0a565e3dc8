//! Connections on top of packets, without I/O: handshakes, ordered delivery, and how connections end.
//!
//! What is lost is sent again; the sender is told of a loss by the network instead of by missing acknowledgements, and
//! keep-alives are not sent one by one: whether they would come through is asked whenever the network changes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{CloseReason, ConnectionError, PublicKey};

use super::{
    address::{Endpoint, Service},
    fabric::{Fabric, Outgoing, Output, Power},
    host::HostId,
    link::PACKET_PAYLOAD,
    listener::{ListenerId, ListenerState},
    stream::StreamState,
    trace::What,
};

/// Times that the first packet of a connection is sent, each twice as long after the one before.
const DIAL_ATTEMPTS: u32 = 6;
/// How long the first waits for its answer (RFC 6298, section 2; RFC 9002, section 6.2.2).
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest that a lost packet waits to be sent again.
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// Times that an end which is over sends again what it had taken.
const LAST_WORDS: u32 = 8;
/// Payload of a packet that carries nothing for the application.
pub(super) const CONTROL: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowId(pub(super) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Dialer,
    Listener,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndRef {
    pub(crate) flow: FlowId,
    pub(crate) side: Side,
}

impl EndRef {
    pub(super) fn other(self) -> Self {
        Self { flow: self.flow, side: self.side.other() }
    }
}

/// What packets and timers carry.
#[derive(Debug)]
pub(crate) enum Signal {
    /// As a packet, one round of the handshake; as a timer, its repetition.
    Dial { flow: FlowId, round: u8, attempt: u32 },
    /// The answer.
    Answer { flow: FlowId, round: u8 },
    /// To an end whose remote knows nothing of the connection, or does not want it.
    Refuse(EndRef),
    /// As a timer, to be sent again.
    Segment(Segment),
    /// Nothing was heard by this end since the silence with this number began.
    Silence(EndRef, u64),
    /// A keep-alive that will find nobody.
    Probe(EndRef),
    /// The remote has got our goodbye.
    Closed(EndRef),
    /// The host's alarm clock.
    WakeUp(HostId, u32),
}

/// A part of what one end sends, in order.
#[derive(Debug)]
pub(crate) struct Segment {
    from: EndRef,
    incarnation: u32,
    sequence: u64,
    attempt: u32,
    sent: Duration,
    /// Bytes of it that are still to arrive.
    length: usize,
    body: Body,
}

impl Signal {
    /// Those of a stream.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Segment(segment) => segment.bytes(),
            _ => 0,
        }
    }
}

impl Segment {
    pub(super) fn bytes(&self) -> usize {
        self.body.bytes()
    }
}

impl Body {
    fn bytes(&self) -> usize {
        match self {
            Self::Data { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Body {
    /// The dialer's last flight.
    Confirm,
    KeepAlive,
    Data {
        stream: u64,
        bytes: Bytes,
        opens: bool,
        ends: bool,
    },
    Credit {
        stream: u64,
        bytes: usize,
    },
    Abandon {
        stream: u64,
        code: u32,
        write: bool,
        read: bool,
    },
    Close(Option<CloseReason>),
}

#[derive(Debug)]
pub(crate) struct Flow {
    pub(super) service: Service,
    /// Whether Noise and Yamux run on its first stream.
    pub(super) secured: bool,
    /// The rounds of the handshake, and the one that is under way.
    pub(super) rounds: u8,
    pub(super) round: u8,
    /// Two dials have met: this one goes on as the other's listener.
    pub(super) merged: Option<FlowId>,
    pub(super) dialer: End,
    pub(super) listener: Option<End>,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(super) host: HostId,
    pub(super) incarnation: u32,
    pub(super) local: SocketAddr,
    /// As this end sees it.
    pub(super) remote: SocketAddr,
    pub(super) key: PublicKey,
    pub(super) phase: Phase,
    /// Whether somebody drives the handshake, and the round that waits for it.
    pub(super) driven: bool,
    pub(super) waiting_round: Option<u8>,
    /// Connections and streams that the application holds.
    pub(super) handles: usize,
    pub(super) next_sequence: u64,
    pub(super) expected: u64,
    pub(super) early: BTreeMap<u64, Body>,
    pub(super) streams: BTreeMap<u64, StreamState>,
    pub(super) next_stream: u64,
    pub(super) unaccepted: VecDeque<u64>,
    /// Whoever waits for the connection itself.
    pub(super) wakers: Wakers,
    pub(super) silences: u64,
    pub(super) silent: bool,
    pub(super) probing: bool,
    pub(super) keeps_mapping: bool,
    pub(super) goodbye_heard: bool,
}

#[derive(Debug)]
pub(crate) enum Phase {
    Handshake,
    Open,
    Over(Arc<ConnectionError>),
}

impl End {
    /// Those of streams that have arrived and are not read.
    pub(super) fn bytes(&self) -> usize {
        let early: usize = self.early.values().map(Body::bytes).sum();
        early.saturating_add(self.streams.values().map(StreamState::unread).sum())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    pub(crate) fn register(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.0)
    }
}

/// The whole network.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) fabric: Fabric<Signal>,
    /// How long an end that hears nothing waits before it gives the connection up.
    pub(crate) idle_timeout: Duration,
    /// How long at most until an end finds out that nobody is there any more.
    pub(crate) keep_alive: Duration,
    pub(super) flows: BTreeMap<FlowId, Flow>,
    pub(super) by_host: BTreeMap<HostId, BTreeSet<FlowId>>,
    pub(super) listeners: BTreeMap<ListenerId, ListenerState>,
    pub(super) next_listener: u64,
    pub(super) next_flow: u64,
    /// To be woken once the lock on this is released.
    pub(crate) woken: Vec<Waker>,
    /// The tasks that run on hosts, by host and number.
    pub(super) tasks: BTreeMap<(HostId, u64), Option<Waker>>,
    pub(super) next_task: u64,
    /// What hosts that sleep send when they wake.
    pub(super) asleep: BTreeMap<HostId, Vec<Segment>>,
    /// How many public addresses are given away.
    pub(crate) addresses_given: u32,
}

impl State {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            fabric: Fabric::new(seed),
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            flows: BTreeMap::new(),
            by_host: BTreeMap::new(),
            listeners: BTreeMap::new(),
            next_listener: 0,
            next_flow: 0,
            woken: Vec::new(),
            tasks: BTreeMap::new(),
            next_task: 0,
            asleep: BTreeMap::new(),
            addresses_given: 0,
        }
    }

    pub(crate) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Where the remote of this end is, as this end sees it.
    pub(crate) fn remote_endpoint(&self, at: EndRef) -> Option<Endpoint> {
        let service = self.flows.get(&at.flow)?.service;
        Some(Endpoint { socket: self.end(at)?.remote, service })
    }

    /// This end, as it knows itself.
    pub(crate) fn local_endpoint(&self, at: EndRef) -> Option<Endpoint> {
        let service = self.flows.get(&at.flow)?.service;
        Some(Endpoint { socket: self.end(at)?.local, service })
    }

    pub(crate) fn end(&self, at: EndRef) -> Option<&End> {
        let flow = self.flows.get(&at.flow)?;
        match at.side {
            Side::Dialer => Some(&flow.dialer),
            Side::Listener => flow.listener.as_ref(),
        }
    }

    pub(crate) fn end_mut(&mut self, at: EndRef) -> Option<&mut End> {
        let flow = self.flows.get_mut(&at.flow)?;
        match at.side {
            Side::Dialer => Some(&mut flow.dialer),
            Side::Listener => flow.listener.as_mut(),
        }
    }

    /// Everything up to `now` happens.
    pub(crate) fn advance(&mut self, now: Duration) {
        while let Some((at, output)) = self.fabric.poll(now) {
            match output {
                Output::Delivered { to, local, source, payload } => {
                    self.deliver(at, to, (local, source), payload);
                }
                Output::Lost { payload: Signal::Segment(segment), packets } => {
                    self.lost(at, segment, packets);
                }
                // Handshakes repeat themselves, and nobody waits for a refusal.
                Output::Lost { .. } => {}
                Output::Timer(signal) => self.fire(at, signal),
            }
        }
    }

    pub(super) fn incarnation(&self, host: HostId) -> u32 {
        self.fabric.host(host).map_or(0, |host| host.incarnation)
    }

    pub(super) fn send(&mut self, now: Duration, from: EndRef, length: usize, payload: Signal) {
        let Some(protocol) = self.flows.get(&from.flow).map(|flow| flow.service.protocol()) else { return };
        let Some(end) = self.end(from) else { return };
        let outgoing = Outgoing {
            from: end.host,
            protocol,
            source: end.local,
            destination: end.remote,
            length,
            payload,
        };
        self.fabric.send(now, outgoing);
    }

    pub(super) fn deliver(
        &mut self,
        now: Duration,
        to: HostId,
        (local, source): (SocketAddr, SocketAddr),
        signal: Signal,
    ) {
        match signal {
            Signal::Dial { flow, round, .. } => self.dialed(now, flow, round, to, (local, source)),
            Signal::Answer { flow, round } => self.answered(now, flow, round),
            Signal::Refuse(at) => self.refused(now, at),
            Signal::Segment(segment) => self.arrived(now, to, segment),
            _ => {}
        }
    }

    pub(super) fn fire(&mut self, now: Duration, signal: Signal) {
        match signal {
            Signal::Dial { flow: id, round, attempt } => {
                let Some(flow) = self.flows.get(&id) else { return };
                let waits = matches!(flow.dialer.phase, Phase::Handshake) && flow.round == round;
                let is_on = self.fabric.is_on(flow.dialer.host);
                if !waits || !is_on || flow.merged.is_some() {
                } else if attempt.saturating_add(1) < DIAL_ATTEMPTS {
                    self.send_round(now, id, round, attempt.saturating_add(1));
                } else {
                    self.over(now, EndRef { flow: id, side: Side::Dialer }, ConnectionError::TimedOut);
                }
            }
            Signal::Segment(segment) => self.transmit(now, segment),
            Signal::Silence(at, number) => {
                // A packet of its own may have opened its NAT again.
                self.assess(now, at.flow);
                // The clock of a host that sleeps stands still.
                let silent = |end: &&End| end.silent && end.silences == number && self.fabric.is_on(end.host);
                if self.end(at).filter(silent).is_some() {
                    self.over(now, at, ConnectionError::TimedOut);
                }
            }
            Signal::Probe(at) => {
                if let Some(end) = self.end_mut(at) {
                    end.probing = false;
                    if matches!(end.phase, Phase::Open) {
                        self.push(now, at, Body::KeepAlive);
                    }
                }
            }
            Signal::Closed(at) => self.goodbye_heard(at),
            Signal::WakeUp(host, sleep) => self.alarm(now, host, sleep),
            Signal::Answer { .. } | Signal::Refuse(_) => {}
        }
    }

    pub(super) fn goodbye_heard(&mut self, at: EndRef) {
        let Some(end) = self.end_mut(at) else { return };
        end.goodbye_heard = true;
        let woken = end.wakers.take();
        self.woken.extend(woken);
    }

    pub(super) fn open(&mut self, now: Duration, at: EndRef) {
        let Some(end) = self.end_mut(at) else { return };
        end.phase = Phase::Open;
        let (woken, host) = (end.wakers.take(), end.host);
        self.woken.extend(woken);
        self.keep_mapping(now, at, true);
        self.fabric.note(now, What::Connected, host);
        self.assess(now, at.flow);
    }

    pub(crate) fn poll_over(&mut self, at: EndRef, cx: &Context<'_>) -> Poll<Arc<ConnectionError>> {
        match self.end_mut(at) {
            None => Poll::Ready(Arc::new(ConnectionError::ClosedLocally)),
            Some(End { phase: Phase::Over(reason), .. }) => Poll::Ready(reason.clone()),
            Some(end) => {
                end.wakers.register(cx);
                Poll::Pending
            }
        }
    }

    /// Ready once the remote has heard that we closed the connection.
    pub(crate) fn poll_goodbye(&mut self, at: EndRef, cx: &Context<'_>) -> Poll<()> {
        match self.end_mut(at) {
            Some(end) if !end.goodbye_heard => {
                end.wakers.register(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Sends `body` after everything that this end has sent so far.
    pub(super) fn push(&mut self, now: Duration, from: EndRef, body: Body) {
        let Some(end) = self.end_mut(from) else { return };
        if matches!(end.phase, Phase::Over(_)) {
            return;
        }
        let sequence = end.next_sequence;
        end.next_sequence = sequence.wrapping_add(1);
        let incarnation = end.incarnation;
        let length = match &body {
            Body::Data { bytes, .. } => bytes.len().max(CONTROL),
            _ => CONTROL,
        };
        let segment = Segment { from, incarnation, sequence, attempt: 0, sent: now, length, body };
        self.transmit(now, segment);
    }

    pub(super) fn transmit(&mut self, now: Duration, mut segment: Segment) {
        let Some(end) = self.end(segment.from) else { return };
        let is_over = matches!(end.phase, Phase::Over(_));
        let Some(host) = self.fabric.host(end.host) else { return };
        if host.incarnation != segment.incarnation || is_over && segment.attempt > LAST_WORDS {
            return;
        }
        if host.power == Power::Asleep {
            return self.asleep.entry(end.host).or_default().push(segment);
        }
        segment.sent = now;
        self.send(now, segment.from, segment.length, Signal::Segment(segment));
    }

    /// Sent again 9/8 of a round trip after it was sent (RFC 9002, section 6.1.2), and twice as long after each further loss.
    pub(super) fn lost(&mut self, now: Duration, mut segment: Segment, packets: usize) {
        let Some((ours, theirs)) = self.end(segment.from).zip(self.end(segment.from.other())) else { return };
        let link = self.fabric.link(ours.host, theirs.host);
        let round_trip = link.latency.saturating_add(link.jitter).saturating_mul(2);
        let patience = (round_trip.saturating_mul(9) / 8).max(Duration::from_millis(1));
        let patience = patience.saturating_mul(1 << segment.attempt.min(16)).min(LONGEST_RETRY);
        segment.attempt = segment.attempt.saturating_add(1);
        segment.length = segment.length.min(packets.saturating_mul(PACKET_PAYLOAD));
        let at = segment.sent.saturating_add(patience).max(now);
        self.fabric.timer(at, Signal::Segment(segment));
    }

    pub(super) fn arrived(&mut self, now: Duration, to: HostId, segment: Segment) {
        let at = segment.from.other();
        let incarnation = self.incarnation(to);
        let Some(end) = self.end_mut(at) else { return };
        if matches!(end.phase, Phase::Over(_)) || end.incarnation != incarnation {
            // Both have gone if the sender has too.
            return self.send(now, at, CONTROL, Signal::Refuse(segment.from));
        }
        end.early.insert(segment.sequence, segment.body);
        while let Some(end) = self.end_mut(at)
            && let Some(body) = end.early.remove(&end.expected)
        {
            end.expected = end.expected.wrapping_add(1);
            self.receive(now, at, body);
        }
    }

    pub(super) fn receive(&mut self, now: Duration, at: EndRef, body: Body) {
        match body {
            Body::Confirm => self.open(now, at),
            Body::KeepAlive => {}
            Body::Data { stream, bytes, opens, ends } => {
                self.receive_data(now, at, (stream, opens), bytes, ends);
            }
            Body::Credit { stream, bytes } => self.receive_credit(at, stream, bytes),
            Body::Abandon { stream, code, write, read } => {
                self.receive_abandon(at, stream, code, write, read)
            }
            Body::Close(reason) => {
                let hosts =
                    self.end(at).zip(self.end(at.other())).map(|(ours, theirs)| (ours.host, theirs.host));
                let back =
                    hosts.map_or(Duration::ZERO, |(ours, theirs)| self.fabric.link(ours, theirs).latency);
                self.fabric.timer(now.saturating_add(back), Signal::Closed(at.other()));
                self.over(
                    now,
                    at,
                    match reason {
                        Some(reason) => ConnectionError::ClosedFor { reason, by_remote: true },
                        None => ConnectionError::ClosedByRemote,
                    },
                );
            }
        }
    }

    /// What was taken is still sent, then the end.
    pub(crate) fn close(&mut self, now: Duration, at: EndRef, reason: Option<CloseReason>) {
        match self.end(at).map(|end| &end.phase) {
            Some(Phase::Open) => self.push(now, at, Body::Close(reason)),
            Some(Phase::Handshake) => self.send(now, at, CONTROL, Signal::Refuse(at.other())),
            _ => {}
        }
        self.over(now, at, ConnectionError::ClosedLocally);
    }

    pub(crate) fn hold(&mut self, at: EndRef) {
        if let Some(end) = self.end_mut(at) {
            end.handles = end.handles.saturating_add(1);
        }
    }

    /// A handle that is not a stream's is gone.
    pub(crate) fn release(&mut self, at: EndRef) {
        if let Some(end) = self.end_mut(at) {
            end.handles = end.handles.saturating_sub(1);
        }
        self.reap(at.flow);
    }

    pub(super) fn over(&mut self, now: Duration, at: EndRef, reason: ConnectionError) {
        let Some(end) = self.end_mut(at) else { return };
        if matches!(end.phase, Phase::Over(_)) {
            return;
        }
        let was_open = matches!(end.phase, Phase::Open);
        let keeps_streams = matches!(
            reason,
            ConnectionError::ClosedByRemote | ConnectionError::ClosedFor { by_remote: true, .. }
        );
        end.phase = Phase::Over(Arc::new(reason));
        end.early.clear();
        let mut woken = end.wakers.take();
        for stream in end.streams.values_mut() {
            woken.extend([stream.reader.take(), stream.writer.take()].into_iter().flatten());
        }
        // What came before the remote's goodbye may still be accepted and read.
        if !keeps_streams {
            for id in std::mem::take(&mut end.unaccepted) {
                end.streams.remove(&id);
            }
        }
        let host = end.host;
        self.woken.extend(woken);
        self.keep_mapping(now, at, false);
        if was_open {
            self.fabric.note(now, What::Disconnected, host);
        }
        self.assess(now, at.flow);
        self.reap(at.flow);
    }

    /// Forgets a connection that is over at both ends and held at neither.
    pub(super) fn reap(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let done = |end: &End| end.handles == 0 && matches!(end.phase, Phase::Over(_));
        if flow.merged.is_some() || !done(&flow.dialer) || !flow.listener.as_ref().is_none_or(done) {
            return;
        }
        let mut woken = flow.dialer.wakers.take();
        woken.extend(flow.listener.as_mut().map(|end| end.wakers.take()).unwrap_or_default());
        self.woken.extend(woken);
        self.remove(id);
    }

    pub(super) fn remove(&mut self, id: FlowId) {
        let Some(flow) = self.flows.remove(&id) else { return };
        for end in std::iter::once(&flow.dialer).chain(&flow.listener) {
            if let Some(flows) = self.by_host.get_mut(&end.host) {
                flows.remove(&id);
            }
        }
    }
}

impl End {
    pub(super) fn new(
        (host, incarnation): (HostId, u32),
        local: SocketAddr,
        remote: SocketAddr,
        key: PublicKey,
        side: Side,
    ) -> Self {
        Self {
            host,
            incarnation,
            local,
            remote,
            key,
            phase: Phase::Handshake,
            driven: false,
            waiting_round: None,
            handles: 1,
            next_sequence: 0,
            expected: 0,
            early: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_stream: u64::from(side == Side::Listener),
            unaccepted: VecDeque::new(),
            wakers: Wakers::default(),
            silences: 0,
            silent: false,
            probing: false,
            keeps_mapping: false,
            goodbye_heard: false,
        }
    }
}
