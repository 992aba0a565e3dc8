//! SCTP for one connection: the library's association behind a [guard](guard) for what the remote sends.

use std::{
    collections::{HashMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use rtc_sctp::{
    Association, AssociationError, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig,
    EndpointEvent, Event, Payload, ServerConfig, StreamEvent, TimerConfig, TransportConfig,
};
use rtc_shared::{TransportProtocol, error::Error};

mod guard;
mod packet;
mod resets;
mod window;

pub(crate) use guard::Violation;
use guard::{Guard, SINK, Streams};
pub(crate) use rtc_sctp::PayloadProtocolIdentifier as PayloadProtocol;

use crate::limits;

/// The library tells associations apart by tag, and passes this through.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 65535);

/// Associations that a listener keeps until one of them is established: the library begins one for each INIT, those that
/// are repeated because an INIT ACK was lost included.
const MAX_CANDIDATES: usize = 4;

/// What SCTP has to report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SctpEvent {
    /// The association is established.
    Connected,
    /// The remote uses a stream that was not there.
    Opened(u16),
    /// There may be something to [`Sctp::read`].
    Readable(u16),
    /// The remote sends nothing more on this stream and hears nothing more. What has arrived can still be read, and what
    /// was written is still being sent.
    Resetting(u16),
    /// The stream is gone on both sides.
    Closed(u16),
    /// Bytes that were written have been acknowledged.
    Acknowledged,
    /// The association is over.
    Lost {
        /// The remote said so.
        by_remote: bool,
        /// In the library's words.
        reason: String,
    },
}

/// The SCTP half of a connection.
pub(crate) struct Sctp {
    endpoint: Endpoint,
    associations: Vec<(AssociationHandle, Association)>,
    established: bool,
    lost: bool,
    guard: Guard,
    streams: StreamTable,
    total_outstanding: usize,
    transmits: VecDeque<Bytes>,
    events: VecDeque<SctpEvent>,
}

impl Sctp {
    /// Waits for an INIT.
    pub(crate) fn server() -> Self {
        Self::new(Some(Arc::new(ServerConfig::new(transport_config()))), 1)
    }

    /// Queues an INIT.
    pub(crate) fn client(now: Instant) -> Result<Self, Error> {
        let mut sctp = Self::new(None, 0);
        let config = ClientConfig::new(transport_config());
        let connected = sctp.endpoint.connect(now, config, PEER);
        sctp.associations.push(connected.map_err(|error| Error::Other(error.to_string()))?);
        Ok(sctp)
    }

    fn new(config: Option<Arc<ServerConfig>>, parity: u16) -> Self {
        Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), config),
            associations: Vec::new(),
            established: false,
            lost: false,
            guard: Guard::new(parity),
            streams: StreamTable::default(),
            total_outstanding: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a packet that DTLS has decrypted. An error is the end of the association.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: Bytes) -> Result<(), Violation> {
        if self.lost {
            return Ok(());
        }
        let inbound = self.guard.inbound(packet, self.established, &self.streams)?;
        self.transmits.extend(inbound.reply);
        self.events.extend(inbound.resetting.into_iter().map(SctpEvent::Resetting));
        if let Some(packet) = inbound.packet {
            self.feed(now, packet);
        }
        Ok(())
    }

    fn feed(&mut self, now: Instant, packet: Bytes) {
        match self.endpoint.handle(now, PEER, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                if self.associations.len() < MAX_CANDIDATES {
                    self.associations.push((handle, association));
                } else {
                    self.endpoint.handle_event(handle, EndpointEvent::drained());
                }
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, association)) =
                    self.associations.iter_mut().find(|(known, _)| *known == handle)
                {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
        self.drain_events(now);
    }

    /// Opens a stream, which must not be in use.
    pub(crate) fn open(&mut self, stream: u16) -> Result<(), Error> {
        self.association()?.open_stream(stream, PayloadProtocol::Binary)?;
        self.streams.0.insert(stream, StreamEntry::default());
        Ok(())
    }

    /// Whether neither side uses this stream.
    pub(crate) fn is_free(&mut self, stream: u16) -> bool {
        self.association().is_ok_and(|association| association.stream(stream).is_err())
    }

    /// Hands a message, which must not be empty, to a stream.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        stream: u16,
        protocol: PayloadProtocol,
        message: &Bytes,
    ) -> Result<(), Error> {
        self.association()?.stream(stream)?.write_chunk_with_ppi(now, message, protocol)?;
        let entry = self.streams.0.entry(stream).or_default();
        entry.outstanding = entry.outstanding.saturating_add(message.len());
        self.total_outstanding = self.total_outstanding.saturating_add(message.len());
        Ok(())
    }

    /// The next whole message of a stream.
    pub(crate) fn read(&mut self, stream: u16) -> Option<(PayloadProtocol, BytesMut)> {
        let message = self.association().ok()?.stream(stream).ok()?.read_sctp().ok()??;
        self.guard.read(stream, message.chunks.len(), message.len());
        let payload = message.to_payload(limits::MAX_RECEIVED_MESSAGE).ok()?;
        Some((message.ppi, payload))
    }

    /// Closes a stream once everything written to it is on its way. What the remote still sends on it is thrown away.
    pub(crate) fn reset(&mut self, now: Instant, stream: u16) -> Result<(), Error> {
        // The library lets go of a stream only if nothing of it can be read.
        while self.read(stream).is_some() {}
        self.association()?.stream(stream)?.close(now)?;
        self.guard.closed(stream);
        self.streams.0.entry(stream).or_default().discarded = true;
        Ok(())
    }

    /// Bytes written to all streams that the remote has not acknowledged.
    pub(crate) fn outstanding(&self) -> usize {
        self.total_outstanding
    }

    /// Bytes that have arrived and were not read.
    pub(crate) fn unread(&self) -> usize {
        self.guard.unread()
    }

    /// The stream of which most has arrived and was not read.
    pub(crate) fn fullest(&self) -> Option<u16> {
        self.guard.fullest()
    }

    /// Streams that we may open have lower numbers than this.
    pub(crate) fn end_of_streams(&self) -> u16 {
        self.guard.reserved_stream()
    }

    /// Ends the association, telling the remote.
    pub(crate) fn abort(&mut self, now: Instant) {
        self.lost = true;
        for (_, association) in &mut self.associations {
            if let Err(error) = association.abort() {
                tracing::debug!(%error, "could not abort the SCTP association");
            }
        }
        self.flush(now);
    }

    pub(crate) fn poll_event(&mut self) -> Option<SctpEvent> {
        self.events.pop_front()
    }

    /// The next packet to encrypt.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if self.transmits.is_empty() && !self.lost {
            if let Some(update) = self.guard.window_update(&self.streams) {
                self.feed(now, update);
            }
            self.flush(now);
        }
        self.transmits.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timers = self.associations.iter().filter_map(|(_, association)| association.poll_timeout());
        timers.chain(self.guard.poll_timeout()).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for (_, association) in &mut self.associations {
            association.handle_timeout(now);
        }
        self.transmits.extend(self.guard.repeat(now));
        self.drain_events(now);
    }

    fn association(&mut self) -> Result<&mut Association, Error> {
        match self.associations.first_mut() {
            Some((_, association)) if self.established => Ok(association),
            _ => Err(Error::ErrAssociationNotExisted),
        }
    }

    fn flush(&mut self, now: Instant) {
        for (_, association) in &mut self.associations {
            while let Some(transmit) = association.poll_transmit(now) {
                let Payload::RawEncode(packets) = transmit.message else { continue };
                self.transmits.extend(packets.into_iter().filter_map(|packet| self.guard.outbound(packet)));
            }
        }
        self.guard.flushed(now);
    }

    fn drain_events(&mut self, now: Instant) {
        let (mut established, mut sink_readable) = (None, false);
        for index in 0..self.associations.len() {
            while let Some(event) =
                self.associations.get_mut(index).and_then(|(_, association)| association.poll())
            {
                match event {
                    Event::Connected => {
                        established = Some(index);
                        self.events.push_back(SctpEvent::Connected);
                    }
                    Event::HandshakeFailed { reason } => self.lose(&reason),
                    Event::AssociationLost { reason, id } => {
                        let entry = self.streams.0.remove(&id).unwrap_or_default();
                        self.total_outstanding = self.total_outstanding.saturating_sub(entry.outstanding);
                        self.guard.forget(id);
                        self.events.push_back(SctpEvent::Closed(id));
                        if reason != AssociationError::Reset {
                            tracing::debug!(%reason, stream = id, "SCTP stream lost");
                        }
                    }
                    Event::Stream(StreamEvent::Opened { id: SINK }) => {}
                    Event::Stream(StreamEvent::Opened { id }) => {
                        self.streams.0.insert(id, StreamEntry::default());
                        self.events.push_back(SctpEvent::Opened(id));
                    }
                    Event::Stream(StreamEvent::Readable { id: SINK }) => sink_readable = true,
                    Event::Stream(StreamEvent::Readable { id }) => {
                        self.events.push_back(SctpEvent::Readable(id))
                    }
                    Event::Stream(StreamEvent::BufferedAmountReleased { id, n_bytes }) => {
                        if let Some(entry) = self.streams.0.get_mut(&id) {
                            let acknowledged = n_bytes.min(entry.outstanding);
                            entry.outstanding = entry.outstanding.saturating_sub(acknowledged);
                            self.total_outstanding = self.total_outstanding.saturating_sub(acknowledged);
                            self.events.push_back(SctpEvent::Acknowledged);
                        }
                    }
                    _ => {}
                }
            }
            if let Some((_, association)) = self.associations.get_mut(index) {
                // The list of what was opened is kept by the events above.
                while association.accept_stream().is_some() {}
                while association.poll_endpoint_event().is_some() {}
            }
        }
        if let Some(index) = established {
            self.establish(index);
        }
        if self.established
            && self.associations.first().is_some_and(|(_, association)| association.is_closed())
        {
            self.lose(&AssociationError::AssociationClosed);
        }
        while sink_readable && self.read(SINK).is_some() {}
        if let Some(reset) = self.guard.released_reset(&self.streams) {
            self.feed(now, reset);
        }
    }

    /// Keeps one association and closes the door behind it.
    fn establish(&mut self, index: usize) {
        if self.established || index >= self.associations.len() {
            return;
        }
        self.established = true;
        self.endpoint.reject_new_associations();
        self.associations.swap(0, index);
        self.associations.truncate(1);
    }

    fn lose(&mut self, reason: &AssociationError) {
        if !self.lost {
            self.lost = true;
            let by_remote = self.guard.ended_by_remote();
            self.events.push_back(SctpEvent::Lost { by_remote, reason: reason.to_string() });
        }
    }
}

#[derive(Default)]
struct StreamTable(HashMap<u16, StreamEntry>);

#[derive(Default)]
struct StreamEntry {
    /// Bytes written and not acknowledged.
    outstanding: usize,
    /// We have closed it.
    discarded: bool,
}

impl Streams for StreamTable {
    fn is_sending(&self, stream: u16) -> bool {
        self.0.get(&stream).is_some_and(|entry| entry.outstanding > 0)
    }

    fn is_discarded(&self, stream: u16) -> bool {
        stream == SINK || self.0.get(&stream).is_some_and(|entry| entry.discarded)
    }
}

fn transport_config() -> TransportConfig {
    // By default, and against what is said of the first, the library allows five. A timer that has used them up is never
    // started again: the association lives on and sends nothing more. Whether the remote is still there is for ICE to say.
    let timers = TimerConfig {
        max_t3_rtx_retrans: usize::MAX,
        max_reconfig_retrans: usize::MAX,
        ..TimerConfig::default()
    };
    TransportConfig::default()
        .with_timer_config(timers)
        .with_max_receive_buffer_size(u32::try_from(limits::SCTP_RECEIVE_WINDOW).unwrap_or(u32::MAX))
        .with_max_message_size(u32::try_from(limits::MAX_RECEIVED_MESSAGE).unwrap_or(u32::MAX))
}
