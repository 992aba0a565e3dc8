//! What a session does with the bytes that arrive.

#![warn(clippy::arithmetic_side_effects)]

use std::sync::Arc;

use bytes::{Buf, Bytes};
use peerloom_core::{CloseReason, ConnectionError, runtime::Instant};

use super::{
    frame::{Flags, GoAwayCode, HEADER_LENGTH, Header},
    limits::{MAX_PENDING_PONGS, MAX_UNREAD},
    session::{Session, Violation},
    stream::StreamId,
};

/// Where in a frame the bytes that arrived so far end.
pub(super) enum Input {
    Header { bytes: [u8; HEADER_LENGTH], filled: usize },
    Body { id: StreamId, remaining: usize, finish: bool },
}

impl Default for Input {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER_LENGTH], filled: 0 }
    }
}

impl Session {
    /// Takes bytes that arrived, of any number of frames, whole or not.
    ///
    /// If `bytes` is a slice of a larger buffer, its streams may keep that alive, so the driver passes whole buffers.
    /// After a [`Violation`] the session takes no more.
    pub fn receive(&mut self, mut bytes: Bytes, now: Instant) -> Result<(), Violation> {
        let buffer = bytes.len();
        if buffer > 0 {
            self.heard(now);
        }
        while !bytes.is_empty() && self.end().is_none() {
            match &mut self.input {
                Input::Header { bytes: header, filled } => {
                    let missing = header.get_mut(*filled..).unwrap_or_default();
                    let take = missing.len().min(bytes.len());
                    let arrived = bytes.split_to(take);
                    missing.iter_mut().zip(&arrived).for_each(|(to, from)| *to = *from);
                    *filled = filled.saturating_add(take);
                    if *filled == HEADER_LENGTH {
                        let header = Header::decode(header)?;
                        self.input = Input::default();
                        self.receive_header(header, now)?;
                    }
                }
                Input::Body { id, remaining, finish } => {
                    let (id, finish) = (*id, *finish);
                    let chunk = bytes.split_to(bytes.len().min(*remaining));
                    *remaining = remaining.saturating_sub(chunk.remaining());
                    let complete = *remaining == 0;
                    self.receive_body(id, chunk, buffer);
                    if complete {
                        self.input = Input::default();
                        if finish {
                            self.receive_finish(id);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn receive_header(&mut self, header: Header, now: Instant) -> Result<(), Violation> {
        match header {
            Header::Data { id, flags, length } => self.receive_data(id, flags, length),
            Header::WindowUpdate { id, flags, delta } => self.receive_window_update(id, flags, delta),
            Header::Ping(value) => {
                if self.pongs.len() >= MAX_PENDING_PONGS {
                    self.pongs.pop_front();
                }
                self.pongs.push_back(value);
                self.request_transmit();
                Ok(())
            }
            Header::Pong(value) => {
                self.pong_received(value, now);
                Ok(())
            }
            Header::GoAway(code) => {
                self.terminate(Arc::new(match code {
                    GoAwayCode::Normal => ConnectionError::ClosedByRemote,
                    GoAwayCode::ProtocolError => {
                        ConnectionError::Protocol("the remote says that we broke yamux".into())
                    }
                    GoAwayCode::InternalError => ConnectionError::Io("the remote failed".into()),
                    GoAwayCode::Other(code) => match CloseReason::from_code(code) {
                        Some(reason) => ConnectionError::ClosedFor { reason, by_remote: true },
                        None => ConnectionError::Io(format!("the remote went away with code {code}")),
                    },
                }));
                Ok(())
            }
        }
    }

    fn receive_data(&mut self, id: StreamId, flags: Flags, length: u32) -> Result<(), Violation> {
        self.receive_flags(id, flags, 0)?;
        let mut deliver = false;
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.reset.is_none()
        {
            if stream.remote_finished && length > 0 {
                // Only this stream is broken, and only its reader suffers.
                self.fail(id, 0);
                self.queue_reset(id, 0);
            } else {
                stream.receive_window.take(length).map_err(|_| Violation::WindowExceeded(id))?;
                deliver = true;
            }
        } else if flags.open && !flags.reset && length > super::limits::INITIAL_WINDOW {
            return Err(Violation::WindowExceeded(id));
        }
        // What belongs to no stream is skipped: it was under way when the stream was reset.
        let finish = flags.finish && deliver;
        match usize::try_from(length).unwrap_or(usize::MAX) {
            0 if finish => self.receive_finish(id),
            0 => {}
            remaining => self.input = Input::Body { id, remaining, finish },
        }
        Ok(())
    }

    fn receive_window_update(&mut self, id: StreamId, flags: Flags, delta: u32) -> Result<(), Violation> {
        self.receive_flags(id, flags, delta)?;
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.reset.is_none()
        {
            stream.send_window.enlarge(delta).map_err(|_| Violation::WindowOverflow(id))?;
            if stream.queued > 0 {
                self.schedule(id);
            }
        }
        if flags.finish {
            self.receive_finish(id);
        }
        Ok(())
    }

    /// SYN, ACK and RST, which count before the frame's content does. Nothing else may be done for a stream that was reset.
    fn receive_flags(&mut self, id: StreamId, flags: Flags, code: u32) -> Result<(), Violation> {
        if flags.reset {
            self.acknowledged(id);
            self.fail(id, code);
            return Ok(());
        }
        if flags.open {
            self.open_inbound(id)?;
        }
        if flags.acknowledge {
            self.acknowledged(id);
        }
        Ok(())
    }

    fn receive_body(&mut self, id: StreamId, chunk: Bytes, buffer: usize) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.reset.is_none()) else { return };
        if !stream.held {
            // Nobody will read it; but a remote that waits for its window to open must learn that.
            if stream.receive_window.is_exhausted() {
                self.reset(id, 0);
            }
            return;
        }
        if self.unread.saturating_add(chunk.len()) > MAX_UNREAD {
            self.fail(id, 0);
            self.queue_reset(id, 0);
            return;
        }
        self.unread = self.unread.saturating_add(chunk.len());
        stream.received.push(chunk, buffer);
        let waker = stream.read_waker.take();
        self.wake(waker);
    }

    fn receive_finish(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.reset.is_none()) else { return };
        stream.remote_finished = true;
        let waker = stream.read_waker.take();
        let forget = stream.is_over() && !stream.held;
        self.wake(waker);
        if forget {
            self.forget(id);
        }
    }

    /// The stream is broken: its holder learns that, and nothing more is sent on it.
    fn fail(&mut self, id: StreamId, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.held {
            self.forget(id);
            return;
        }
        stream.reset = Some(code);
        self.unread = self.unread.saturating_sub(stream.received.len());
        stream.received = Default::default();
        self.queued = self.queued.saturating_sub(stream.queued);
        stream.queue.clear();
        stream.queued = 0;
        let wakers = [stream.read_waker.take(), stream.write_waker.take()];
        wakers.into_iter().for_each(|waker| self.wake(waker));
    }
}
