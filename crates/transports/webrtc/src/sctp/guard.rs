//! What may reach the SCTP library: each packet is looked at before the library believes it, and each packet that the
//! library sends is looked at for what it has promised.
//!
//! The library (rtc-sctp 0.21) accepts chunks beyond its receive window to fill gaps and to finish messages, walks two
//! thousand million steps for one FORWARD TSN, keeps stream reset requests without a bound, and closes the association
//! when asked for more streams. It panics at the causes of an ABORT or ERROR whose lengths do not fit. It announces a window
//! that has opened again only when data arrives, so a sender that was stopped finds out by a retransmission timer. It
//! answers the reset of a stream at once although data of that stream is still to be sent, which the remote would then take
//! for a new stream's, and leaves it unanswered if data of the remote's is missing. It never lets go of a stream that it has
//! closed itself if data arrives after that. All of this is settled here,
//! in front of it.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::{borrow::Cow, collections::HashMap, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    packet::{
        ChunkView, Chunks, Header, chunk, parameter, parameters, put_chunk, re_config, response, u16_at,
        u32_at,
    },
    resets::OurResets,
    window::{ReceiveWindow, Verdict},
};

/// Stream reset requests of the remote that wait for data to arrive, to be read, or to be sent. RFC 6525 allows one at a
/// time; some stacks send a few.
const MAX_PENDING_RESETS: usize = 32;

/// INIT chunks that are believed, retransmissions included: each may start the receive window afresh.
const MAX_INITS: usize = 8;

/// Data for streams that we have closed is sent here, each chunk a message, and thrown away. No data channel has this
/// number (RFC 8832 section 6).
pub(super) const SINK: u16 = 65535;

/// What the library sees of every ABORT: with the cause "User-Initiated Abort" (RFC 9260 section 3.3.10.12), which is the
/// only one that it understands, and nothing else that it would cut by a length that it does not check.
const ABORT_FOR_ANY_CAUSE: [u8; 8] = [chunk::ABORT, 0, 0, 8, 0, 12, 0, 4];

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
                chunk::RE_CONFIG => {
                    self.our_resets.check()?;
                    self.reconfigure(header, &chunk, streams, &mut inbound)
                }
                chunk::ABORT => {
                    self.ended_by_remote = true;
                    changed = true;
                    kept.push(Cow::Borrowed(&ABORT_FOR_ANY_CAUSE));
                    continue;
                }
                chunk::SHUTDOWN => {
                    self.ended_by_remote = true;
                    true
                }
                // Nothing follows from one, and the library does not check the lengths in it.
                chunk::ERROR => false,
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
        let mut outbound = packet.clone();
        for chunk in Chunks::of(&packet).flatten() {
            match chunk.kind {
                chunk::SACK => {
                    self.advertised = u32_at(chunk.value, 4).and_then(|window| usize::try_from(window).ok());
                }
                chunk::INIT | chunk::INIT_ACK => self.local_tag = u32_at(chunk.value, 0).unwrap_or_default(),
                chunk::RE_CONFIG => {
                    self.answered_resets(chunk.value);
                    // The library sends these alone, one parameter each.
                    if let Some(value) = self.our_resets.filter(chunk.value, self.reserved_stream()) {
                        outbound = header.packet(&re_config(&value));
                    }
                    self.our_resets.sending(chunk.value, &outbound);
                }
                _ => {}
            }
        }
        Some(outbound)
    }

    /// Everything that the library had to send was [looked at](Self::outbound).
    pub(super) fn flushed(&mut self, now: Instant) {
        self.our_resets.flushed(now);
    }

    /// When there may be something to [`repeat`](Self::repeat).
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.our_resets.poll_timeout()
    }

    /// Packets that the library does not send again, although the remote has not answered them.
    pub(super) fn repeat(&mut self, now: Instant) -> impl Iterator<Item = Bytes> {
        self.our_resets.repeat(now)
    }

    /// A stream that we could open, but never do.
    pub(super) fn reserved_stream(&self) -> u16 {
        let last = self.remote_streams.min(u16::MAX - 1).saturating_sub(1);
        if last % 2 == self.parity { last } else { last.saturating_sub(1) }
    }

    /// We have told the library to close a stream.
    pub(super) fn closed(&mut self, stream: u16) {
        self.our_resets.request(stream);
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
            let view = Chunks::single(&probe)?;
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
                    let result = u32_at(value, 4).unwrap_or_default();
                    // The library would not repeat the request. Nobody sends anything along with such an answer.
                    if !self.our_resets.answered(sequence, result) {
                        return false;
                    }
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

fn is_any_sending(list: &[u16], streams: &impl Streams) -> bool {
    list.iter().any(|stream| streams.is_sending(*stream))
}

/// What to do with a DATA chunk.
enum Data {
    Keep,
    Drop,
    /// Let the library see this one instead.
    Redirect(Vec<u8>),
}

#[cfg(test)]
mod tests;
