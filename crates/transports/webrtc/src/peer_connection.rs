//! One WebRTC connection without media, sans-IO: ICE, DTLS, SCTP and data channels. This module and its two layers
//! [`dtls`](crate::dtls) and [`sctp`](crate::sctp) are all that knows the WebRTC library.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use peerloom_core::Multihash;

use crate::{
    dcep,
    dtls::{Dtls, DtlsConfig, DtlsEvent},
    ice::{Ice, Path, agent::Agent, direct::DirectAgent},
    limits,
    sctp::{PayloadProtocol, Sctp, SctpEvent},
    stun,
    ufrag::Credentials,
};

mod events;
mod negotiated;

pub(crate) use events::{End, Event, ICE, Step};
pub(crate) use negotiated::Configs;
use negotiated::Negotiated;

/// A data channel, by the number of its SCTP stream.
pub(crate) type ChannelId = u16;

/// The channel that both sides open without a word, for the Noise handshake.
pub(crate) const HANDSHAKE_CHANNEL: ChannelId = 0;

/// Channels that we open have lower numbers than this, whatever the remote allows: Firefox allows all of SCTP's and takes
/// no notice of those from here on.
const END_OF_CHANNELS: ChannelId = 2048;

/// Time that a connection gives its remote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For each step of the handshake.
    pub(crate) step: Duration,
    /// Without a sign of life.
    pub(crate) idle: Duration,
}

/// One end of a connection.
pub(crate) struct PeerConnection {
    role: Role,
    ice: Ice,
    dtls: Option<Dtls>,
    sctp: Option<Sctp>,
    phase: Phase,
    timeouts: Timeouts,
    /// When the current step of the handshake must be done, or the remote must have been heard.
    deadline: Instant,
    channels: HashMap<ChannelId, Channel>,
    /// Open channels that the remote has opened.
    inbound: usize,
    next_channel: ChannelId,
    /// Channels that we open have lower numbers than this.
    end_of_channels: ChannelId,
    transmits: VecDeque<(Path, Bytes)>,
    events: VecDeque<Event>,
}

enum Role {
    Listener,
    /// What the listener's certificate must hash to, one of these.
    Dialer {
        config: DtlsConfig,
        certhashes: Vec<Multihash>,
    },
    Negotiated(Box<Negotiated>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake(Step),
    Connected,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Open {
        inbound: bool,
    },
    /// The remote uses it and has not said that it opens it.
    Unannounced {
        deadline: Instant,
    },
    /// The remote's `init` channel, which is there to be closed.
    Init,
    /// We have closed it and wait for the remote to do the same.
    Closing,
}

impl PeerConnection {
    /// The end that listens.
    pub(crate) fn listener(
        credentials: Credentials,
        config: DtlsConfig,
        timeouts: Timeouts,
        now: Instant,
    ) -> Self {
        let ice = Ice::Direct(DirectAgent::lite(credentials));
        let mut connection = Self::new(Role::Listener, ice, timeouts, now);
        connection.dtls = Some(Dtls::server(config));
        connection.sctp = Some(Sctp::server());
        connection
    }

    /// The end that dials `remote`.
    pub(crate) fn dialer(
        credentials: Credentials,
        remote: SocketAddr,
        certhashes: Vec<Multihash>,
        config: DtlsConfig,
        timeouts: Timeouts,
        now: Instant,
    ) -> Self {
        let ice = Ice::Direct(DirectAgent::controlling(credentials, remote, now));
        Self::new(Role::Dialer { config, certhashes }, ice, timeouts, now)
    }

    fn new(role: Role, ice: Ice, timeouts: Timeouts, now: Instant) -> Self {
        Self {
            // RFC 8832 section 6: the DTLS client opens even channels, the server odd ones.
            next_channel: if matches!(role, Role::Listener) { 1 } else { 2 },
            end_of_channels: END_OF_CHANNELS,
            role,
            ice,
            dtls: None,
            sctp: None,
            phase: Phase::Handshake(Step::Ice),
            timeouts,
            deadline: later(now, timeouts.step),
            channels: HashMap::new(),
            inbound: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a datagram that arrived on `path`. Anything is allowed.
    pub(crate) fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        if self.phase == Phase::Over {
            return;
        }
        if stun::is_stun(datagram) {
            let Some(message) = stun::Message::parse(datagram) else { return };
            if self.ice.handle_message(now, path, &message) {
                self.heard(now);
            }
            self.advance_ice(now);
        } else if self.ice.knows(path.remote) {
            if self.keep_for_later(datagram) {
                return;
            }
            self.handle_dtls(now, datagram);
        }
    }

    fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) {
        if let Some(Err(error)) = self.dtls.as_mut().map(|dtls| dtls.handle_datagram(now, datagram)) {
            return self.dtls_failed(error.to_string());
        }
        self.drain_dtls(now);
    }

    /// What to do at [`poll_timeout`](Self::poll_timeout).
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.phase == Phase::Over {
            return;
        }
        if now >= self.deadline {
            let end = match self.phase {
                Phase::Handshake(step) => End::HandshakeTimedOut(step),
                _ => End::Silent,
            };
            return self.end(now, end);
        }
        self.ice.handle_timeout(now);
        if self.ice.has_lost_consent() {
            return self.end(now, End::Silent);
        }
        self.advance_ice(now);
        if self.ice.is_connected()
            && let Some(Err(error)) = self.dtls.as_mut().map(|dtls| dtls.handle_timeout(now))
        {
            tracing::debug!(%error, "DTLS has used up its retransmissions");
            return self.end(now, End::HandshakeTimedOut(Step::Dtls));
        }
        if let Some(sctp) = &mut self.sctp {
            sctp.handle_timeout(now);
        }
        self.drain_sctp(now);
        self.close_unannounced(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Over {
            return None;
        }
        let unannounced = self.channels.values().filter_map(|channel| match channel {
            Channel::Unannounced { deadline } => Some(*deadline),
            _ => None,
        });
        let layers = [
            Some(self.deadline),
            self.ice.poll_timeout(),
            // Nothing of it can be sent before.
            self.dtls.as_ref().filter(|_| self.ice.is_connected()).and_then(Dtls::poll_timeout),
            self.sctp.as_ref().and_then(Sctp::poll_timeout),
        ];
        layers.into_iter().flatten().chain(unannounced).min()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next datagram to send.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<(Path, Bytes)> {
        if self.transmits.is_empty() {
            self.collect_transmits(now);
        }
        self.transmits.pop_front()
    }

    /// The hash of the certificate that the remote has proved to own, once DTLS is done.
    pub(crate) fn remote_fingerprint(&self) -> Option<Multihash> {
        self.dtls.as_ref()?.remote_fingerprint()
    }

    /// Where the remote is.
    #[cfg(test)]
    pub(crate) fn remote_address(&self) -> Option<SocketAddr> {
        self.ice.path().map(|path| path.remote)
    }

    /// Opens a channel; `None` while the remote allows no more.
    pub(crate) fn open(&mut self, now: Instant) -> Option<ChannelId> {
        let channel = self.free_channel()?;
        let sctp = self.sctp.as_mut()?;
        sctp.open(channel).ok()?;
        // RFC 8832 section 6: data may follow without waiting for the acknowledgement.
        sctp.write(now, channel, PayloadProtocol::Dcep, &dcep::open()).ok()?;
        self.channels.insert(channel, Channel::Open { inbound: false });
        Some(channel)
    }

    /// Sends a message, which must not be empty. False if the channel is not open.
    pub(crate) fn send(&mut self, now: Instant, channel: ChannelId, message: &Bytes) -> bool {
        matches!(self.channels.get(&channel), Some(Channel::Open { .. }))
            && self
                .sctp
                .as_mut()
                .is_some_and(|sctp| sctp.write(now, channel, PayloadProtocol::Binary, message).is_ok())
    }

    /// The next message of a channel.
    pub(crate) fn read(&mut self, now: Instant, channel: ChannelId) -> Option<BytesMut> {
        if !matches!(self.channels.get(&channel), Some(Channel::Open { .. })) {
            return None;
        }
        loop {
            let (protocol, message) = self.sctp.as_mut()?.read(channel)?;
            match protocol {
                PayloadProtocol::Binary | PayloadProtocol::String => return Some(message),
                // RFC 8831 section 6.6: one byte that stands for nothing.
                PayloadProtocol::BinaryEmpty | PayloadProtocol::StringEmpty => {}
                PayloadProtocol::Dcep => self.handle_dcep(now, channel, &message),
                _ => {}
            }
        }
    }

    /// Closes a channel once what was sent is on its way. What the remote still sends is thrown away.
    pub(crate) fn close_channel(&mut self, now: Instant, channel: ChannelId) {
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if *state == Channel::Closing {
            return;
        }
        if *state == (Channel::Open { inbound: true }) {
            self.inbound = self.inbound.saturating_sub(1);
        }
        *state = Channel::Closing;
        if let Some(Err(error)) = self.sctp.as_mut().map(|sctp| sctp.reset(now, channel)) {
            tracing::debug!(channel, %error, "could not reset a stream");
            self.channels.remove(&channel);
        }
    }

    /// Bytes sent on all channels that the remote has not acknowledged.
    pub(crate) fn outstanding(&self) -> usize {
        self.sctp.as_ref().map(Sctp::outstanding).unwrap_or_default()
    }

    /// Bytes that have arrived and were not read.
    pub(crate) fn unread(&self) -> usize {
        self.sctp.as_ref().map(Sctp::unread).unwrap_or_default()
    }

    /// The channel of which most has arrived and was not read.
    pub(crate) fn fullest_channel(&self) -> Option<ChannelId> {
        self.sctp.as_ref().and_then(Sctp::fullest)
    }

    /// Ends the connection and tells the remote.
    pub(crate) fn close(&mut self, now: Instant) {
        self.end(now, End::ClosedLocally);
    }

    fn heard(&mut self, now: Instant) {
        if self.phase == Phase::Connected {
            self.deadline = later(now, self.timeouts.idle);
        }
    }

    fn step(&mut self, now: Instant, phase: Phase) {
        self.phase = phase;
        self.deadline =
            later(now, if phase == Phase::Connected { self.timeouts.idle } else { self.timeouts.step });
    }

    fn advance_ice(&mut self, now: Instant) {
        self.report_gathered();
        if self.phase != Phase::Handshake(Step::Ice) || !self.ice.is_connected() {
            return;
        }
        self.step(now, Phase::Handshake(Step::Dtls));
        let client = match &self.role {
            Role::Dialer { config, .. } => Some(config),
            Role::Negotiated(negotiated) => negotiated.client(),
            Role::Listener => None,
        };
        if let Some(config) = client {
            match Dtls::client(config.clone(), now) {
                Ok(dtls) => self.dtls = Some(dtls),
                Err(error) => self.dtls_failed(error.to_string()),
            }
        }
    }

    fn drain_dtls(&mut self, now: Instant) {
        while let Some(event) = self.dtls.as_mut().and_then(Dtls::poll_event) {
            match event {
                DtlsEvent::Connected => self.dtls_connected(now),
                DtlsEvent::Packet(_) if self.phase == Phase::Over => return,
                DtlsEvent::Packet(packet) => {
                    self.heard(now);
                    if let Some(Err(violation)) =
                        self.sctp.as_mut().map(|sctp| sctp.handle_packet(now, packet))
                    {
                        return self.end(now, End::Violation(violation.0));
                    }
                    self.drain_sctp(now);
                }
                DtlsEvent::ClosedByRemote => self.end(now, End::ClosedByRemote),
            }
        }
    }

    fn dtls_connected(&mut self, now: Instant) {
        let (expected, is_client) = match &self.role {
            Role::Listener => (None, false),
            Role::Dialer { certhashes, .. } => (Some(certhashes), true),
            Role::Negotiated(negotiated) => (Some(negotiated.fingerprints()), negotiated.client().is_some()),
        };
        if let Some(expected) = expected {
            let fingerprint = self.remote_fingerprint();
            if !fingerprint.is_some_and(|fingerprint| expected.contains(&fingerprint)) {
                let reason = self.role.wrong_certificate().to_owned();
                return self.end(now, End::WrongCertificate(reason));
            }
        }
        if is_client {
            match Sctp::client(now) {
                Ok(sctp) => self.sctp = Some(sctp),
                Err(error) => {
                    return self
                        .end(now, End::HandshakeFailed { step: Step::Sctp, reason: error.to_string() });
                }
            }
        }
        if self.phase == Phase::Handshake(Step::Dtls) {
            self.step(now, Phase::Handshake(Step::Sctp));
        }
    }

    fn dtls_failed(&mut self, reason: String) {
        // DTLS has queued an alert, if there is one to send, and cannot send a close_notify any more.
        let end = match self.phase {
            Phase::Handshake(step) => End::HandshakeFailed { step, reason },
            _ => End::ClosedByRemote,
        };
        self.finish(end);
    }

    fn drain_sctp(&mut self, now: Instant) {
        while let Some(event) = self.sctp.as_mut().and_then(Sctp::poll_event) {
            match event {
                SctpEvent::Connected => {
                    if self.has_handshake_channel() {
                        let opened = self.sctp.as_mut().map(|sctp| sctp.open(HANDSHAKE_CHANNEL));
                        tracing::trace!(?opened, "SCTP connected");
                        self.channels.insert(HANDSHAKE_CHANNEL, Channel::Open { inbound: false });
                    }
                    self.step(now, Phase::Connected);
                    self.events.push_back(Event::Connected);
                }
                SctpEvent::Opened(channel) => self.remote_opened(now, channel),
                SctpEvent::Readable(channel) => match self.channels.get(&channel) {
                    Some(Channel::Unannounced { .. }) => self.read_announcement(now, channel),
                    Some(Channel::Open { .. }) => self.events.push_back(Event::Readable(channel)),
                    _ => {}
                },
                SctpEvent::Resetting(channel) => match self.channels.get(&channel) {
                    Some(Channel::Open { .. }) => self.events.push_back(Event::Closing(channel)),
                    Some(Channel::Init) => self.close_channel(now, channel),
                    _ => {}
                },
                SctpEvent::Closed(channel) => {
                    let state = self.channels.remove(&channel);
                    if state == Some(Channel::Open { inbound: true }) {
                        self.inbound = self.inbound.saturating_sub(1);
                    }
                    if state.is_some() {
                        self.events.push_back(Event::Closed(channel));
                    }
                }
                SctpEvent::Acknowledged => self.events.push_back(Event::Acknowledged),
                SctpEvent::Lost { by_remote, reason } => {
                    let end = match self.phase {
                        Phase::Handshake(step) => End::HandshakeFailed { step, reason },
                        _ if by_remote => End::ClosedByRemote,
                        _ => End::Lost(reason),
                    };
                    return self.end(now, end);
                }
            }
        }
    }

    fn remote_opened(&mut self, now: Instant, channel: ChannelId) {
        if self.channels.contains_key(&channel) {
            // The handshake channel, used by the remote before we had opened it.
            return;
        }
        if self.channels.len() >= limits::MAX_CHANNELS {
            return self.end(now, End::Violation("too many channels"));
        }
        self.channels.insert(channel, Channel::Unannounced { deadline: later(now, self.timeouts.step) });
    }

    /// The first message of a channel that the remote opens.
    fn read_announcement(&mut self, now: Instant, channel: ChannelId) {
        let Some((protocol, message)) = self.sctp.as_mut().and_then(|sctp| sctp.read(channel)) else {
            return;
        };
        let opening = (protocol == PayloadProtocol::Dcep).then(|| dcep::Message::parse(&message)).flatten();
        let Some(dcep::Message::Open { is_init }) =
            opening.filter(|_| self.inbound < limits::MAX_INBOUND_STREAMS)
        else {
            // Some stacks send what is left of a stream after its reset, which looks like a new one.
            return self.close_channel(now, channel);
        };
        if is_init && matches!(self.role, Role::Negotiated(_)) {
            self.channels.insert(channel, Channel::Init);
            return self.acknowledge_open(now, channel);
        }
        self.inbound = self.inbound.saturating_add(1);
        self.channels.insert(channel, Channel::Open { inbound: true });
        self.acknowledge_open(now, channel);
        self.events.push_back(Event::Opened(channel));
        self.events.push_back(Event::Readable(channel));
    }

    fn handle_dcep(&mut self, now: Instant, channel: ChannelId, message: &[u8]) {
        // An acknowledgement needs nothing; a channel opened a second time is one whose first opening we have answered.
        if matches!(dcep::Message::parse(message), Some(dcep::Message::Open { .. })) {
            self.acknowledge_open(now, channel);
        }
    }

    fn acknowledge_open(&mut self, now: Instant, channel: ChannelId) {
        let written =
            self.sctp.as_mut().map(|sctp| sctp.write(now, channel, PayloadProtocol::Dcep, &dcep::ack()));
        tracing::trace!(channel, ?written, "acknowledged a channel");
    }

    /// Channels on which something has arrived that can never be read, because what precedes it never comes.
    fn close_unannounced(&mut self, now: Instant) {
        let due =
            |channel: &Channel| matches!(channel, Channel::Unannounced { deadline } if *deadline <= now);
        let overdue: Vec<_> =
            self.channels.iter().filter(|(_, state)| due(state)).map(|(id, _)| *id).collect();
        overdue.into_iter().for_each(|channel| self.close_channel(now, channel));
    }

    fn free_channel(&mut self) -> Option<ChannelId> {
        let sctp = self.sctp.as_mut()?;
        let end = sctp.end_of_streams().min(self.end_of_channels);
        let first = self.next_channel % 2;
        // Going round rather than back to the lowest: a number that was just given up may still be in use at the other
        // end, if a packet was lost.
        for _ in 0..=end / 2 {
            let channel = self.next_channel;
            if channel >= end {
                self.next_channel = first;
                continue;
            }
            self.next_channel = channel.saturating_add(2);
            if !self.channels.contains_key(&channel) && sctp.is_free(channel) {
                return Some(channel);
            }
        }
        None
    }

    fn end(&mut self, now: Instant, end: End) {
        if self.phase == Phase::Over {
            return;
        }
        // What is queued goes first.
        self.collect_transmits(now);
        if let Some(sctp) = &mut self.sctp {
            sctp.abort(now);
        }
        self.collect_transmits(now);
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
        }
        self.collect_transmits(now);
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.events.push_back(Event::Over(end));
        }
    }

    fn collect_transmits(&mut self, now: Instant) {
        while let Some((path, message)) = self.ice.poll_transmit() {
            self.transmits.push_back((path, message.into()));
        }
        let (Some(path), Some(dtls)) = (self.ice.path(), &mut self.dtls) else { return };
        if let Some(sctp) = self.sctp.as_mut().filter(|_| dtls.is_connected()) {
            while let Some(packet) = sctp.poll_transmit(now) {
                if let Err(error) = dtls.send(now, &packet) {
                    tracing::debug!(%error, "could not encrypt a packet");
                }
            }
        }
        while let Some(datagram) = dtls.poll_transmit() {
            self.transmits.push_back((path, datagram));
        }
    }
}

fn later(now: Instant, interval: Duration) -> Instant {
    now.checked_add(interval).unwrap_or(now)
}

#[cfg(test)]
mod tests;
