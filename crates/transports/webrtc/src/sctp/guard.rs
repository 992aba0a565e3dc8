//! What may reach the SCTP library: each packet is looked at before the library believes it, and each packet that the
//! library sends is looked at for what it has promised.
//!
//! The library (rtc-sctp 0.21) accepts chunks beyond its receive window to fill gaps and to finish messages, walks two
//! thousand million steps for one FORWARD TSN, keeps stream reset requests without a bound, and closes the association
//! when asked for more streams. It announces a window that has opened again only when data arrives, so a sender that was
//! stopped finds out by a retransmission timer. It answers the reset of a stream at once although data of that stream is
//! still to be sent, which the remote would then take for a new stream's. All of this is settled here, in front of it.

#![warn(clippy::arithmetic_side_effects)]

use std::{borrow::Cow, collections::HashMap};

use bytes::{BufMut, Bytes, BytesMut};

use super::window::{ReceiveWindow, Verdict};

/// Stream reset requests of the remote that wait for data to arrive, to be read, or to be sent. RFC 6525 allows one at a
/// time; some stacks send a few.
const MAX_PENDING_RESETS: usize = 32;

/// INIT chunks that are believed, retransmissions included: each may start the receive window afresh.
const MAX_INITS: usize = 8;

/// Data for streams that we have closed is sent here, each chunk a message, and thrown away. No data channel has this
/// number (RFC 8832 section 6).
pub(super) const SINK: u16 = 65535;

const COMMON_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;

/// Chunk types (RFC 9260, 3758, 6525, 8260).
mod chunk {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const SACK: u8 = 3;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
    pub(super) const I_DATA: u8 = 64;
    pub(super) const RE_CONFIG: u8 = 130;
    pub(super) const FORWARD_TSN: u8 = 192;
    pub(super) const I_FORWARD_TSN: u8 = 194;
}

/// Parameters of a RE-CONFIG chunk (RFC 6525 section 4).
mod parameter {
    pub(super) const OUTGOING_RESET: u16 = 13;
    pub(super) const RESPONSE: u16 = 16;
    pub(super) const ADD_OUTGOING_STREAMS: u16 = 17;
    pub(super) const PERFORMED: u32 = 1;
    pub(super) const DENIED: u32 = 2;
    pub(super) const IN_PROGRESS: u32 = 6;
}

/// The remote has done what no libp2p peer does and what the library cannot bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

/// What has become of a packet from the remote.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// What the library should see.
    pub(super) packet: Option<Bytes>,
    /// What to answer in the library's place.
    pub(super) reply: Option<Bytes>,
    /// Streams on which the remote will send no more and hear no more.
    pub(super) resetting: Vec<u16>,
}

/// What the association knows about its streams.
pub(super) trait Streams {
    /// Whether bytes of the stream are still to be sent or acknowledged.
    fn is_sending(&self, stream: u16) -> bool;
    /// Whether we have closed the stream and do not read it any more.
    fn is_discarded(&self, stream: u16) -> bool;
}

#[derive(Debug, Default)]
pub(super) struct Guard {
    /// What is left when the numbers of streams that we open are divided by two.
    parity: u16,
    window: ReceiveWindow,
    ports: Option<Ports>,
    local_tag: u32,
    remote_tag: u32,
    /// The next chunk in order, which did not fit: the remote asks with it whether the window has opened. Taken when it
    /// has, or the remote would go on at the pace of a timer that has backed off.
    probe: Option<Bytes>,
    /// How many streams the remote lets us use.
    remote_streams: u16,
    /// The receive window in the last SACK that was sent.
    advertised: Option<usize>,
    pending_resets: Vec<u32>,
    /// Reset requests that the library sees once nothing of their streams is left to send or to arrive.
    held_resets: Vec<HeldReset>,
    our_resets: OurResets,
    /// What the library holds of each stream.
    held: HashMap<u16, Held>,
    inits: usize,
    ended_by_remote: bool,
}

#[derive(Debug, Default)]
struct Held {
    chunks: usize,
    bytes: usize,
}

#[derive(Debug)]
struct HeldReset {
    sequence: u32,
    streams: Vec<u16>,
    last_tsn: u32,
    packet: Bytes,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    remote: u16,
    local: u16,
}

impl Guard {
    /// `parity` is what is left when the numbers of streams that we open are divided by two.
    pub(super) fn new(parity: u16) -> Self {
        Self { parity, ..Self::default() }
    }

    /// Looks at a packet from the remote. Malformed ones vanish.
    pub(super) fn inbound(
        &mut self,
        packet: Bytes,
        established: bool,
        streams: &impl Streams,
    ) -> Result<Inbound, Violation> {
        let mut inbound = Inbound::default();
        let Some(header) = Header::parse(&packet) else { return Ok(inbound) };
        self.ports = Some(Ports { remote: header.source, local: header.destination });
        let mut kept: Vec<Cow<'_, [u8]>> = Vec::new();
        let (mut changed, mut repeat, mut established) = (false, false, established);
        for chunk in Chunks::of(&packet) {
            let Some(chunk) = chunk else { return Ok(Inbound::default()) };
            let keep = match chunk.kind {
                chunk::DATA => {
                    let verdict = if established { self.data(&chunk, streams)? } else { Data::Drop };
                    // The remote must hear where we stand, or it gives the association up.
                    repeat |= established && matches!(verdict, Data::Drop);
                    if let Data::Redirect(chunk) = verdict {
                        changed = true;
                        kept.push(chunk.into());
                        continue;
                    }
                    matches!(verdict, Data::Keep)
                }
                chunk::INIT | chunk::INIT_ACK => !established && self.init(&chunk).is_some(),
                chunk::COOKIE_ECHO | chunk::COOKIE_ACK => {
                    established = true;
                    true
                }
                chunk::I_DATA | chunk::FORWARD_TSN | chunk::I_FORWARD_TSN => {
                    return Err(Violation(
                        "partial reliability or interleaving, which libp2p streams do not use",
                    ));
                }
                chunk::RE_CONFIG => self.reconfigure(header, &chunk, streams, &mut inbound),
                chunk::ABORT | chunk::SHUTDOWN => {
                    self.ended_by_remote = true;
                    true
                }
                _ => true,
            };
            if keep {
                kept.push(chunk.bytes.into());
            } else {
                changed = true;
            }
        }
        if changed {
            let mut chunks = BytesMut::with_capacity(packet.len());
            kept.iter().for_each(|chunk| put_chunk(&mut chunks, chunk));
            if repeat {
                self.put_repetition(&mut chunks);
            }
            inbound.packet = (!chunks.is_empty()).then(|| header.packet(&chunks));
        } else {
            inbound.packet = Some(packet);
        }
        Ok(inbound)
    }

    /// A reset request that was held back and that the library may see now.
    pub(super) fn released_reset(&mut self, streams: &impl Streams) -> Option<Bytes> {
        let waits =
            |held: &HeldReset| !self.window.has(held.last_tsn) || is_any_sending(&held.streams, streams);
        let ready = self.held_resets.iter().position(|held| !waits(held))?;
        Some(self.held_resets.swap_remove(ready).packet)
    }

    /// Looks at a packet that the library sends. Returns it as it shall be sent.
    pub(super) fn outbound(&mut self, packet: Bytes) -> Option<Bytes> {
        let header = Header::parse(&packet)?;
        self.remote_tag = header.tag;
        let mut changed = None;
        for chunk in Chunks::of(&packet).flatten() {
            match chunk.kind {
                chunk::SACK => {
                    self.advertised = u32_at(chunk.value, 4).and_then(|window| usize::try_from(window).ok());
                }
                chunk::INIT | chunk::INIT_ACK => self.local_tag = u32_at(chunk.value, 0).unwrap_or_default(),
                chunk::RE_CONFIG => {
                    self.answered_resets(chunk.value);
                    // The library sends these alone, one parameter each.
                    changed = self.our_resets.filter(chunk.value, self.reserved_stream());
                }
                _ => {}
            }
        }
        Some(changed.map_or(packet.clone(), |value| header.packet(&re_config(&value))))
    }

    /// Everything that the library had to send was [looked at](Self::outbound).
    pub(super) fn flushed(&mut self) {
        self.our_resets.just_ended.clear();
    }

    /// A stream that we could open, but never do.
    pub(super) fn reserved_stream(&self) -> u16 {
        let last = self.remote_streams.min(u16::MAX - 1).saturating_sub(1);
        if last % 2 == self.parity { last } else { last.saturating_sub(1) }
    }

    /// We have told the library to close a stream.
    pub(super) fn closed(&mut self, stream: u16) {
        self.our_resets.requested.insert(stream, false);
    }

    /// The application has read a message of so many chunks and bytes from a stream.
    pub(super) fn read(&mut self, stream: u16, chunks: usize, bytes: usize) {
        let held = self.held.entry(stream).or_default();
        held.chunks = held.chunks.saturating_sub(chunks);
        held.bytes = held.bytes.saturating_sub(bytes);
        self.window.release(chunks, bytes);
    }

    /// The library has forgotten a stream, and what was not read of it.
    pub(super) fn forget(&mut self, stream: u16) {
        if let Some(held) = self.held.remove(&stream) {
            self.window.release(held.chunks, held.bytes);
        }
        self.our_resets.stream_ended(stream);
    }

    /// A packet that makes the library announce its window, if the remote believes it to be much smaller than it is.
    pub(super) fn window_update(&mut self, streams: &impl Streams) -> Option<Bytes> {
        let free = self.window.free();
        let advertised = self.advertised?;
        let worth_it = advertised < ReceiveWindow::BYTES / 2
            && free.saturating_sub(advertised) >= ReceiveWindow::BYTES / 4;
        if !worth_it {
            return None;
        }
        // Once per opening: the SACK that follows says the same.
        self.advertised = Some(free);
        let ports = self.ports?;
        let mut chunks = BytesMut::new();
        if let Some(probe) = self
            .probe
            .take()
            .filter(|probe| u32_at(probe, 4) == Some(self.window.cumulative().wrapping_add(1)))
        {
            let view = Chunks { rest: &probe }.chunk()?;
            match self.data(&view, streams) {
                Ok(Data::Keep) => put_chunk(&mut chunks, &probe),
                Ok(Data::Redirect(probe)) => put_chunk(&mut chunks, &probe),
                _ => {}
            }
        }
        self.put_repetition(&mut chunks);
        Some(Header { source: ports.remote, destination: ports.local, tag: self.local_tag }.packet(&chunks))
    }

    /// Bytes that the library holds and the application has not read.
    pub(super) fn unread(&self) -> usize {
        self.window.held_bytes()
    }

    /// The stream of which the library holds most.
    pub(super) fn fullest(&self) -> Option<u16> {
        self.held.iter().max_by_key(|(_, held)| held.bytes).map(|(stream, _)| *stream)
    }

    /// Whether the remote has ended the association in so many words.
    pub(super) fn ended_by_remote(&self) -> bool {
        self.ended_by_remote
    }

    fn data(&mut self, chunk: &ChunkView<'_>, streams: &impl Streams) -> Result<Data, Violation> {
        /// Flags of a whole, unordered message.
        const ALONE: u8 = 0b0111;
        let malformed = Violation("malformed DATA chunk");
        let tsn = u32_at(chunk.value, 0).ok_or(malformed)?;
        let mut stream = u16_at(chunk.value, 4).ok_or(malformed)?;
        let length = chunk.value.len().checked_sub(12).ok_or(malformed)?;
        let verdict = self.window.admit(tsn, chunk.flags, length)?;
        if verdict == Verdict::Refuse && tsn == self.window.cumulative().wrapping_add(1) {
            self.probe = Some(Bytes::copy_from_slice(chunk.bytes));
        }
        if verdict != Verdict::Take {
            return Ok(Data::Drop);
        }
        let mut data = Data::Keep;
        if streams.is_discarded(stream) {
            stream = SINK;
            let mut redirected = chunk.bytes.to_vec();
            if let [_, flags, _, _, _, _, _, _, high, low, ..] = redirected.as_mut_slice() {
                *flags |= ALONE;
                [*high, *low] = SINK.to_be_bytes();
            }
            data = Data::Redirect(redirected);
        }
        let held = self.held.entry(stream).or_default();
        held.chunks = held.chunks.saturating_add(1);
        held.bytes = held.bytes.saturating_add(length);
        Ok(data)
    }

    fn init(&mut self, chunk: &ChunkView<'_>) -> Option<()> {
        self.inits = self.inits.checked_add(1).filter(|inits| *inits <= MAX_INITS)?;
        self.remote_streams = u16_at(chunk.value, 10)?;
        self.window = ReceiveWindow::starting_at(u32_at(chunk.value, 12)?);
        Some(())
    }

    /// Whether the library should see this RE-CONFIG chunk now.
    fn reconfigure(
        &mut self,
        header: Header,
        chunk: &ChunkView<'_>,
        streams: &impl Streams,
        inbound: &mut Inbound,
    ) -> bool {
        let mut ending = Vec::new();
        let (mut last_tsn, mut number) = (self.window.cumulative(), 0);
        for (kind, value) in parameters(chunk.value) {
            let Some(sequence) = u32_at(value, 0) else { return false };
            match kind {
                parameter::RESPONSE => {
                    self.our_resets.withheld.remove(&sequence);
                }
                parameter::OUTGOING_RESET => {
                    (last_tsn, number) = (u32_at(value, 8).unwrap_or(last_tsn), sequence);
                    if !self.pending_resets.contains(&sequence) {
                        if self.pending_resets.len() >= MAX_PENDING_RESETS {
                            return false;
                        }
                        self.pending_resets.push(sequence);
                    }
                    let list = value.get(12..).unwrap_or_default();
                    ending.extend(list.chunks_exact(2).filter_map(|stream| u16_at(stream, 0)));
                }
                // Any number of streams is accepted anyway; how many are open at once is bounded elsewhere.
                parameter::ADD_OUTGOING_STREAMS => {
                    inbound.reply = self.response(sequence, parameter::PERFORMED);
                    return false;
                }
                _ => {
                    inbound.reply = self.response(sequence, parameter::DENIED);
                    return false;
                }
            }
        }
        inbound.resetting.extend_from_slice(&ending);
        if self.window.has(last_tsn) && !is_any_sending(&ending, streams) {
            return true;
        }
        let mut chunks = BytesMut::with_capacity(chunk.bytes.len());
        put_chunk(&mut chunks, chunk.bytes);
        let packet = header.packet(&chunks);
        // A repetition of the same request takes its place.
        self.held_resets.retain(|held| held.sequence != number);
        if self.held_resets.len() < MAX_PENDING_RESETS {
            self.held_resets.push(HeldReset { sequence: number, streams: ending, last_tsn, packet });
        }
        false
    }

    fn response(&self, sequence: u32, result: u32) -> Option<Bytes> {
        let ports = self.ports?;
        let header = Header { source: ports.local, destination: ports.remote, tag: self.remote_tag };
        Some(header.packet(&re_config(&response(sequence, result))))
    }

    fn answered_resets(&mut self, reconfiguration: &[u8]) {
        for (kind, value) in parameters(reconfiguration) {
            if kind == parameter::RESPONSE
                && u32_at(value, 4).is_some_and(|result| result != parameter::IN_PROGRESS)
            {
                let answered = u32_at(value, 0);
                self.pending_resets.retain(|sequence| Some(*sequence) != answered);
            }
        }
    }

    /// A DATA chunk that has been acknowledged already and asks for an acknowledgement at once (RFC 7053).
    fn put_repetition(&self, chunks: &mut BytesMut) {
        /// Whole message, immediate acknowledgement.
        const FLAGS: u8 = 0b1011;
        chunks.put_u8(chunk::DATA);
        chunks.put_u8(FLAGS);
        chunks.put_u16(17);
        chunks.put_u32(self.window.cumulative());
        chunks.put_u32(0);
        // WebRTC binary.
        chunks.put_u32(53);
        chunks.put_u32(0);
    }
}

/// The resets of streams that we send: one in the life of each, and none after it.
#[derive(Debug, Default)]
struct OurResets {
    /// Streams that we have closed, and whether the reset was sent.
    requested: HashMap<u16, bool>,
    /// Streams that have just come to their end, and whether we had reset them before the remote did.
    just_ended: HashMap<u16, bool>,
    /// Resets that the library has yet to send of streams that have come to their end.
    stale: HashMap<u16, usize>,
    /// Streams that were taken out of a request, by its number: the library may repeat it.
    withheld: HashMap<u32, Vec<u16>>,
}

impl OurResets {
    fn stream_ended(&mut self, stream: u16) {
        let Some(sent) = self.requested.remove(&stream) else { return };
        self.just_ended.insert(stream, sent);
        if !sent {
            let stale = self.stale.entry(stream).or_default();
            *stale = stale.saturating_add(1);
        }
    }

    /// Whether this reset would be one too many. `reply` if the remote asked for it.
    fn is_surplus(&mut self, stream: u16, reply: bool) -> bool {
        if reply {
            return self.just_ended.get(&stream).copied().unwrap_or_default();
        }
        if let Some(stale) = self.stale.get_mut(&stream) {
            *stale = stale.saturating_sub(1);
            if *stale == 0 {
                self.stale.remove(&stream);
            }
            return true;
        }
        if let Some(sent) = self.requested.get_mut(&stream) {
            *sent = true;
        }
        false
    }

    /// What to send instead of a RE-CONFIG chunk's parameter. A request that has nothing left resets a stream that does
    /// not exist: some remotes (dcsctp) do not bear a gap in the numbers of requests.
    fn filter(&mut self, value: &[u8], reserved: u16) -> Option<Vec<u8>> {
        let (_, request) = parameters(value).find(|(kind, _)| *kind == parameter::OUTGOING_RESET)?;
        let sequence = u32_at(request, 0)?;
        let reply = u32_at(request, 4)? != 0;
        let streams: Vec<u16> =
            request.get(12..)?.chunks_exact(2).filter_map(|stream| u16_at(stream, 0)).collect();
        let withheld: Vec<u16> = match self.withheld.get(&sequence) {
            Some(withheld) => withheld.clone(),
            None => streams.iter().copied().filter(|stream| self.is_surplus(*stream, reply)).collect(),
        };
        if withheld.is_empty() {
            return None;
        }
        let mut kept: Vec<u8> = streams
            .iter()
            .filter(|stream| !withheld.contains(stream))
            .flat_map(|stream| stream.to_be_bytes())
            .collect();
        if kept.is_empty() {
            kept.extend_from_slice(&reserved.to_be_bytes());
        }
        self.withheld.insert(sequence, withheld);
        let mut parameter = parameter::OUTGOING_RESET.to_be_bytes().to_vec();
        let length = kept.len().saturating_add(16);
        parameter.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        parameter.extend_from_slice(request.get(..12)?);
        parameter.extend_from_slice(&kept);
        Some(parameter)
    }
}

fn is_any_sending(list: &[u16], streams: &impl Streams) -> bool {
    list.iter().any(|stream| streams.is_sending(*stream))
}

/// A RE-CONFIG chunk with one parameter.
fn re_config(parameter: &[u8]) -> BytesMut {
    let mut chunk = BytesMut::new();
    let length = parameter.len().saturating_add(CHUNK_HEADER);
    chunk.put_u8(chunk::RE_CONFIG);
    chunk.put_u8(0);
    chunk.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
    chunk.put_slice(parameter);
    while !chunk.len().is_multiple_of(4) {
        chunk.put_u8(0);
    }
    chunk
}

/// A response parameter (RFC 6525 section 4.4).
fn response(sequence: u32, result: u32) -> Vec<u8> {
    let mut parameter = parameter::RESPONSE.to_be_bytes().to_vec();
    parameter.extend_from_slice(&12u16.to_be_bytes());
    parameter.extend_from_slice(&sequence.to_be_bytes());
    parameter.extend_from_slice(&result.to_be_bytes());
    parameter
}

/// What to do with a DATA chunk.
enum Data {
    Keep,
    Drop,
    /// Let the library see this one instead.
    Redirect(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
struct Header {
    source: u16,
    destination: u16,
    tag: u32,
}

impl Header {
    fn parse(packet: &[u8]) -> Option<Self> {
        Some(Self { source: u16_at(packet, 0)?, destination: u16_at(packet, 2)?, tag: u32_at(packet, 4)? })
    }

    fn packet(self, chunks: &[u8]) -> Bytes {
        let mut packet = BytesMut::with_capacity(COMMON_HEADER.saturating_add(chunks.len()));
        packet.put_u16(self.source);
        packet.put_u16(self.destination);
        packet.put_u32(self.tag);
        packet.put_u32(0);
        packet.put_slice(chunks);
        let checksum = crc32c::crc32c(&packet);
        if let Some(field) = packet.get_mut(8..COMMON_HEADER) {
            field.copy_from_slice(&checksum.to_le_bytes());
        }
        packet.freeze()
    }
}

struct ChunkView<'a> {
    kind: u8,
    flags: u8,
    value: &'a [u8],
    /// Header and value, without padding.
    bytes: &'a [u8],
}

/// Walks the chunks of a packet; `None` stands for one that does not fit and ends the walk.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn of(packet: &'a [u8]) -> Self {
        Self { rest: packet.get(COMMON_HEADER..).unwrap_or_default() }
    }

    fn chunk(&mut self) -> Option<ChunkView<'a>> {
        let (kind, flags) = (*self.rest.first()?, *self.rest.get(1)?);
        let length = usize::from(u16_at(self.rest, 2)?);
        let bytes = self.rest.get(..length)?;
        let value = bytes.get(CHUNK_HEADER..)?;
        // RFC 9260 section 3.2: the padding of the last chunk may be missing.
        let next = length.checked_next_multiple_of(4)?.min(self.rest.len());
        self.rest = self.rest.get(next..)?;
        Some(ChunkView { kind, flags, value, bytes })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Option<ChunkView<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let chunk = self.chunk();
        if chunk.is_none() {
            self.rest = &[];
        }
        Some(chunk)
    }
}

/// The parameters of a RE-CONFIG chunk: type and value.
fn parameters(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let kind = u16_at(rest, 0)?;
        let length = usize::from(u16_at(rest, 2)?);
        let value = rest.get(CHUNK_HEADER..length)?;
        rest = rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some((kind, value))
    })
}

fn put_chunk(packet: &mut BytesMut, chunk: &[u8]) {
    packet.put_slice(chunk);
    while !packet.len().is_multiple_of(4) {
        packet.put_u8(0);
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header { source: 5000, destination: 5000, tag: 7 };

    fn data(tsn: u32, payload: &[u8]) -> Vec<u8> {
        let mut chunk = vec![chunk::DATA, 0b0011];
        chunk.extend_from_slice(&(16 + payload.len() as u16).to_be_bytes());
        chunk.extend_from_slice(&tsn.to_be_bytes());
        chunk.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 53]);
        chunk.extend_from_slice(payload);
        chunk
    }

    fn packet(chunks: &[Vec<u8>]) -> Bytes {
        let mut bytes = BytesMut::new();
        chunks.iter().for_each(|chunk| put_chunk(&mut bytes, chunk));
        HEADER.packet(&bytes)
    }

    /// Stream 5 is sending if `.0`, and stream 1 discarded if `.1`.
    struct Some5(bool, bool);

    impl Streams for Some5 {
        fn is_sending(&self, stream: u16) -> bool {
            self.0 && stream == 5
        }
        fn is_discarded(&self, stream: u16) -> bool {
            self.1 && stream == 1
        }
    }

    const IDLE: &Some5 = &Some5(false, false);

    fn guard() -> Guard {
        let mut init = vec![chunk::INIT, 0, 0, 20];
        init.extend_from_slice(&[0, 0, 0, 9, 0, 1, 0, 0, 4, 0, 2, 0, 0, 0, 0, 10]);
        let mut guard = Guard::default();
        guard.inbound(packet(&[init]), false, IDLE).unwrap();
        assert_eq!(guard.remote_streams, 512);
        guard
    }

    #[test]
    fn packet_in_order_passes_untouched() {
        let sent = packet(&[data(10, b"one"), data(11, b"two")]);
        let inbound = guard().inbound(sent.clone(), true, IDLE).unwrap();
        assert_eq!(inbound.packet, Some(sent));
    }

    #[test]
    fn chunk_far_ahead_is_taken_out_and_the_remote_hears_where_we_stand() {
        let sack = vec![chunk::SACK, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0];
        let sent = packet(&[sack.clone(), data(1_000_000, b"far ahead")]);
        let inbound = guard().inbound(sent, true, IDLE).unwrap();
        let seen = inbound.packet.unwrap();
        let chunks: Vec<_> = Chunks::of(&seen).map(Option::unwrap).collect();
        assert_eq!(chunks[0].bytes, sack);
        assert_eq!((chunks[1].kind, u32_at(chunks[1].value, 0)), (chunk::DATA, Some(9)));
        assert_eq!(chunks.len(), 2);
    }

    #[test]
    fn forward_tsn_is_a_violation() {
        let forward = vec![chunk::FORWARD_TSN, 0, 0, 8, 0x7F, 0xFF, 0xFF, 0xFF];
        assert!(guard().inbound(packet(&[forward]), true, IDLE).is_err());
    }

    #[test]
    fn request_for_more_streams_is_granted() {
        let request = vec![chunk::RE_CONFIG, 0, 0, 16, 0, 17, 0, 12, 0, 0, 0, 5, 1, 0, 0, 0];
        let inbound = guard().inbound(packet(&[request]), true, IDLE).unwrap();
        assert_eq!(inbound.packet, None);
        let reply = inbound.reply.unwrap();
        let chunk = Chunks::of(&reply).next().unwrap().unwrap();
        assert_eq!(
            parameters(chunk.value).next(),
            Some((parameter::RESPONSE, &[0, 0, 0, 5, 0, 0, 0, 1][..]))
        );
    }

    #[test]
    fn reset_requests_that_wait_are_bounded_until_answered() {
        let request = |sequence: u8| {
            packet(&[vec![
                chunk::RE_CONFIG,
                0,
                0,
                22,
                0,
                13,
                0,
                18,
                0,
                0,
                0,
                sequence,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                9,
                0,
                1,
            ]])
        };
        let mut guard = guard();
        let passed =
            (0..100).filter(|n| guard.inbound(request(*n), true, IDLE).unwrap().packet.is_some()).count();
        assert_eq!(passed, MAX_PENDING_RESETS);
        assert!(guard.inbound(request(0), true, IDLE).unwrap().packet.is_some(), "a repetition passes");
        let response = vec![chunk::RE_CONFIG, 0, 0, 16, 0, 16, 0, 12, 0, 0, 0, 3, 0, 0, 0, 1];
        guard.outbound(packet(&[response]));
        assert!(guard.inbound(request(200), true, IDLE).unwrap().packet.is_some());
    }

    #[test]
    fn reset_of_a_stream_that_is_being_sent_waits() {
        let request = packet(&[vec![
            chunk::RE_CONFIG,
            0,
            0,
            22,
            0,
            13,
            0,
            18,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            9,
            0,
            5,
        ]]);
        let mut guard = guard();
        let sending = &Some5(true, false);
        for _ in 0..2 {
            let inbound = guard.inbound(request.clone(), true, sending).unwrap();
            assert_eq!((inbound.packet, inbound.resetting), (None, vec![5]));
        }
        assert_eq!(guard.released_reset(sending), None);
        assert!(guard.released_reset(IDLE).is_some());
        assert_eq!(guard.released_reset(IDLE), None);
    }

    fn our_reset(sequence: u8, reply: u8, streams: &[u8]) -> Bytes {
        our_reset_of(sequence, reply, &streams.iter().map(|stream| u16::from(*stream)).collect::<Vec<_>>())
    }

    fn our_reset_of(sequence: u8, reply: u8, streams: &[u16]) -> Bytes {
        let length = 16 + 2 * streams.len() as u8;
        let mut chunk =
            vec![chunk::RE_CONFIG, 0, 0, length + 4, 0, 13, 0, length, 0, 0, 0, sequence, 0, 0, 0, reply];
        chunk.extend_from_slice(&[0, 0, 0, 1]);
        chunk.extend(streams.iter().flat_map(|stream| stream.to_be_bytes()));
        packet(&[chunk])
    }

    #[test]
    fn stream_that_both_sides_close_is_reset_once() {
        // Ours goes first; the library's reply to the remote's would be another.
        let mut guard = guard();
        guard.closed(3);
        assert!(guard.outbound(our_reset(1, 0, &[3])).is_some());
        guard.forget(3);
        // The remote has said that we may use 512 streams.
        assert_eq!(guard.reserved_stream(), 510);
        assert_eq!(guard.outbound(our_reset(2, 9, &[3])), Some(our_reset_of(2, 9, &[510])));
        guard.flushed();

        // The reply goes first, and ours waits behind other data. By the time that it comes the stream may be another.
        guard.closed(5);
        guard.closed(7);
        guard.forget(5);
        assert!(guard.outbound(our_reset(3, 9, &[5])).is_some());
        guard.flushed();
        assert_eq!(guard.outbound(our_reset(4, 0, &[5, 7])), Some(our_reset(4, 0, &[7])));
        assert_eq!(guard.outbound(our_reset(4, 0, &[5, 7])), Some(our_reset(4, 0, &[7])), "repeated");
        guard.closed(5);
        assert!(guard.outbound(our_reset(5, 0, &[5])).is_some(), "the next one's reset");
    }

    #[test]
    fn reset_that_overtakes_data_waits_for_it() {
        let mut guard = guard();
        let request = packet(&[vec![
            chunk::RE_CONFIG,
            0,
            0,
            22,
            0,
            13,
            0,
            18,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            10,
            0,
            1,
        ]]);
        assert_eq!(guard.inbound(request, true, IDLE).unwrap().packet, None);
        assert_eq!(guard.released_reset(IDLE), None);
        guard.inbound(packet(&[data(10, b"late")]), true, IDLE).unwrap();
        assert!(guard.released_reset(IDLE).is_some());
    }

    #[test]
    fn data_of_a_stream_that_we_have_closed_goes_down_the_sink() {
        let mut guard = guard();
        let inbound = guard.inbound(packet(&[data(10, b"unwanted")]), true, &Some5(false, true)).unwrap();
        let seen = inbound.packet.unwrap();
        let chunk = Chunks::of(&seen).next().unwrap().unwrap();
        assert_eq!(
            (chunk.flags, u32_at(chunk.value, 0), u16_at(chunk.value, 4)),
            (0b0111, Some(10), Some(SINK))
        );
        assert_eq!(guard.unread(), 8);
        guard.read(SINK, 1, 8);
        assert_eq!(guard.unread(), 0);
    }

    #[test]
    fn stream_that_is_forgotten_gives_its_part_of_the_window_back() {
        let mut guard = guard();
        guard.inbound(packet(&[data(10, b"unread")]), true, IDLE).unwrap();
        guard.forget(1);
        assert_eq!(guard.unread(), 0);
    }

    #[test]
    fn window_that_opens_again_is_announced_once() {
        let mut guard = guard();
        assert_eq!(guard.window_update(IDLE), None);
        let sack = vec![chunk::SACK, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0];
        guard.outbound(packet(&[sack]));
        let update = guard.window_update(IDLE).unwrap();
        let chunk = Chunks::of(&update).next().unwrap().unwrap();
        assert_eq!((chunk.kind, chunk.flags & 8), (chunk::DATA, 8));
        assert_eq!(guard.window_update(IDLE), None);
    }

    #[test]
    fn probe_is_taken_when_the_window_opens() {
        let mut guard = guard();
        let full = ReceiveWindow::BYTES as u32 / 1000;
        for n in 0..=full {
            guard.inbound(packet(&[data(10 + n, &[7; 1000])]), true, IDLE).unwrap();
        }
        let sack = vec![chunk::SACK, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0];
        guard.outbound(packet(&[sack]));
        assert_eq!(guard.window_update(IDLE), None);
        guard.read(1, full as usize, full as usize * 1000);
        let update = guard.window_update(IDLE).unwrap();
        let chunk = Chunks::of(&update).next().unwrap().unwrap();
        assert_eq!((u32_at(chunk.value, 0), chunk.value.len()), (Some(10 + full), 1012));
        assert_eq!(guard.unread(), 1000);
    }

    proptest! {
        #[test]
        fn nothing_a_remote_sends_panics(chunks in proptest::collection::vec(any::<u8>(), 0..300), established: bool) {
            let mut guard = guard();
            if let Ok(Inbound { packet: Some(packet), .. }) = guard.inbound(HEADER.packet(&chunks), established, IDLE) {
                guard.outbound(packet);
            }
            guard.window_update(IDLE);
        }
    }
}
