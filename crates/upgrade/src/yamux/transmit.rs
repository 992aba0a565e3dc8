//! What a session has to send, packed into the driver's buffer.

#![warn(clippy::arithmetic_side_effects)]

use peerloom_core::runtime::Instant;

use super::{
    frame::{Flags, HEADER_LENGTH, Header},
    limits::SEND_BUFFER,
    session::{GoAway, Session},
    stream::{StreamId, WriteHalf},
};

/// How much one stream may send before the next has its turn, in bytes.
const QUANTUM: usize = 16 * 1024;
/// Data is not cut into pieces smaller than this only to fill a buffer's end, in bytes.
const SMALLEST_PIECE: usize = 1024;

impl Session {
    /// Appends frames to `output`, at most `capacity` bytes, those of the session first and then those of the streams in
    /// turns. Nothing is appended only if there is nothing to send, or `capacity` is less than a header and a piece.
    pub fn transmit(&mut self, output: &mut Vec<u8>, capacity: usize, now: Instant) {
        let limit = output.len().saturating_add(capacity);
        let start = output.len();
        let batch = self.batches.saturating_add(1);
        self.transmit_session_frames(output, limit, now);
        let mut exhausted = false;
        while !exhausted && let Some(id) = self.ready.pop_front() {
            exhausted = !self.transmit_stream(id, output, limit, batch, now);
        }
        // The ping that a window update asked for, and the GOAWAY that waited for the last stream.
        self.transmit_session_frames(output, limit, now);
        if output.len() > start {
            self.batches = batch;
        }
    }

    /// Whether [`transmit`](Self::transmit) would find something.
    pub fn has_output(&mut self) -> bool {
        let draining = self.go_away == GoAway::Draining && self.queued == 0;
        let session = !self.pongs.is_empty() || self.ping.due || !self.resets.is_empty() || draining;
        let due = matches!(self.go_away, GoAway::Due(_));
        self.go_away != GoAway::Sent && (session || due || !self.ready.is_empty())
    }

    /// Every batch transmitted so far has been handed to the layer below.
    pub fn mark_written(&mut self) {
        self.batches_written = self.batches;
        for id in std::mem::take(&mut self.awaiting_flush) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.awaits_flush = false;
                let waker = stream.write_waker.take();
                self.wake(waker);
            }
        }
    }

    fn transmit_session_frames(&mut self, output: &mut Vec<u8>, limit: usize, now: Instant) {
        if self.go_away == GoAway::Sent {
            return;
        }
        while has_room(output, limit, 0) {
            let header = if let GoAway::Due(code) = self.go_away {
                self.go_away = GoAway::Sent;
                output.extend_from_slice(&Header::GoAway(code).encode());
                return;
            } else if let Some(value) = self.pongs.pop_front() {
                Header::Pong(value)
            } else if self.ping.due {
                Header::Ping(self.ping_sent(now))
            } else if let Some((id, code)) = self.resets.pop_front() {
                Header::WindowUpdate { id, flags: Flags { reset: true, ..Flags::default() }, delta: code }
            } else if self.go_away == GoAway::Draining && self.ready.is_empty() && self.queued == 0 {
                self.go_away = GoAway::Due(self.close_code);
                continue;
            } else {
                return;
            };
            output.extend_from_slice(&header.encode());
        }
    }

    /// One stream's turn. False if `output` is full before it has had it.
    fn transmit_stream(
        &mut self,
        id: StreamId,
        output: &mut Vec<u8>,
        limit: usize,
        batch: u64,
        now: Instant,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        if self.go_away == GoAway::Sent || stream.reset.is_some() {
            stream.scheduled = false;
            return true;
        }
        let mut flags = Flags {
            open: std::mem::take(&mut stream.open_pending),
            acknowledge: std::mem::take(&mut stream.acknowledge_pending),
            ..Flags::default()
        };

        let mut measure = false;
        let mut waker = None;
        let mut complete = true;
        if stream.held && !stream.remote_finished && stream.receive_window.is_update_due() {
            complete = has_room(output, limit, 0);
            if complete {
                let delta = stream.receive_window.update(now, self.ping.round_trip, &mut self.growth);
                output.extend_from_slice(&Header::WindowUpdate { id, flags, delta }.encode());
                flags = Flags::default();
                measure = true;
            }
        }

        let quantum = if self.ready.is_empty() { usize::MAX } else { QUANTUM };
        let sendable = stream.sendable().min(quantum);
        if complete && sendable > 0 {
            complete = has_room(output, limit, sendable.min(SMALLEST_PIECE));
            if complete {
                let room = limit.saturating_sub(output.len()).saturating_sub(HEADER_LENGTH);
                let length = sendable.min(room);
                let header = Header::Data { id, flags, length: u32::try_from(length).unwrap_or(u32::MAX) };
                output.extend_from_slice(&header.encode());
                flags = Flags::default();
                stream.take_queued(length, output);
                self.queued = self.queued.saturating_sub(length);
                stream.sent_in = batch;
                if stream.queued <= SEND_BUFFER / 2 {
                    waker = stream.write_waker.take();
                }
            }
        }
        // In a frame of its own: js-libp2p and go-libp2p look at the flag before the frame's data, and may lose that.
        if complete && stream.finish_due() {
            complete = has_room(output, limit, 0);
            if complete {
                flags.finish = true;
                output.extend_from_slice(&Header::Data { id, flags, length: 0 }.encode());
                flags = Flags::default();
                stream.write_half = WriteHalf::Finished;
                stream.sent_in = batch;
                waker = waker.or_else(|| stream.write_waker.take());
            }
        }
        if flags != Flags::default() {
            if complete && has_room(output, limit, 0) {
                output.extend_from_slice(&Header::WindowUpdate { id, flags, delta: 0 }.encode());
                stream.sent_in = batch;
                waker = waker.or_else(|| stream.write_waker.take());
            } else {
                stream.open_pending = flags.open;
                stream.acknowledge_pending = flags.acknowledge;
                complete = false;
            }
        }

        let again = !complete || stream.sendable() > 0 || stream.finish_due();
        stream.scheduled = again;
        let forget = stream.is_over() && !stream.held;
        if again {
            if complete { self.ready.push_back(id) } else { self.ready.push_front(id) }
        }
        self.wake(waker);
        if measure {
            self.measure_round_trip(now);
        }
        if forget {
            self.forget(id);
        }
        complete
    }
}

fn has_room(output: &[u8], limit: usize, body: usize) -> bool {
    output.len().saturating_add(HEADER_LENGTH).saturating_add(body) <= limit
}
