//! The two halves of a libp2p stream over a data channel, sans-IO (`webrtc/README.md`, "Multiplexing" and "Closing an
//! RTCDataChannel").

#![warn(clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::framing::{Decoder, Flag, FramingError, encode_flag};

/// FINs of the remote that are answered: it may repeat itself once or twice, and not flood.
const MAX_FIN_ACKS: u8 = 4;

/// Both halves of a stream.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    decoder: Decoder,
    read: Read,
    write: Write,
    unread: VecDeque<Bytes>,
    unread_bytes: usize,
    /// Frames that go out before anything else.
    flags: VecDeque<Bytes>,
    fin_acks: u8,
    /// We have told the remote that the stream is over before its time.
    reset_by_us: bool,
}

/// The half that the remote writes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Read {
    #[default]
    Open,
    /// The remote has sent everything.
    Finished,
    /// The remote or we have given it up.
    Reset(u32),
    /// We want no more and have said so.
    Stopped,
}

/// The half that we write.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Write {
    #[default]
    Open,
    /// We have sent everything and wait for the remote to say that it has it.
    FinSent,
    /// It has, or is gone and need not say so.
    Finished,
    /// The remote wants no more.
    Stopped,
    /// The remote or we have given it up.
    Reset(u32),
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    Chunk(Bytes),
    Empty,
    End,
    Reset(u32),
}

/// Whether a writer may write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteState {
    Open,
    Closed,
    Reset(u32),
}

impl Halves {
    /// Takes a message of the channel. After an error the stream is of no use.
    pub(crate) fn receive(&mut self, message: BytesMut) -> Result<(), FramingError> {
        self.decoder.push(message);
        while let Some(frame) = self.decoder.next()? {
            if let Some(message) = frame.message.filter(|message| !message.is_empty())
                && self.read == Read::Open
            {
                self.unread_bytes = self.unread_bytes.saturating_add(message.len());
                self.unread.push_back(message);
            }
            // Flags that are not known are none of our business.
            if let Some(flag) = frame.flag.and_then(|flag| Flag::try_from(flag).ok()) {
                self.receive_flag(flag, frame.error_code.unwrap_or_default());
            }
        }
        Ok(())
    }

    fn receive_flag(&mut self, flag: Flag, code: u32) {
        match flag {
            Flag::Fin => {
                if self.read == Read::Open {
                    self.read = Read::Finished;
                }
                if self.fin_acks < MAX_FIN_ACKS {
                    self.fin_acks = self.fin_acks.saturating_add(1);
                    self.flags.push_back(encode_flag(Flag::FinAck, None));
                }
            }
            Flag::FinAck => {
                if self.write == Write::FinSent {
                    self.write = Write::Finished;
                }
            }
            Flag::StopSending => {
                if matches!(self.write, Write::Open | Write::FinSent) {
                    self.write = Write::Stopped;
                }
            }
            // For its sender's half by the spec, and for both by what go-libp2p and js-libp2p mean by it.
            Flag::Reset => self.abandon(code),
        }
    }

    /// The channel is being closed by the remote, which hears nothing more.
    pub(crate) fn channel_closing(&mut self) {
        match self.write {
            Write::Open => self.write = Write::Reset(0),
            Write::FinSent => self.write = Write::Finished,
            _ => {}
        }
    }

    /// The channel is gone, and everything that came out of it was [received](Self::receive).
    pub(crate) fn channel_closed(&mut self) {
        self.channel_closing();
        if self.read == Read::Open {
            self.read = Read::Reset(0);
        }
    }

    /// What there is to read.
    pub(crate) fn read(&mut self) -> ReadOutcome {
        match (self.unread.pop_front(), self.read) {
            (_, Read::Reset(code)) => ReadOutcome::Reset(code),
            (Some(chunk), _) => {
                self.unread_bytes = self.unread_bytes.saturating_sub(chunk.len());
                ReadOutcome::Chunk(chunk)
            }
            (None, Read::Open) => ReadOutcome::Empty,
            (None, Read::Finished | Read::Stopped) => ReadOutcome::End,
        }
    }

    pub(crate) fn unread_bytes(&self) -> usize {
        self.unread_bytes
    }

    /// Whether what still arrives is thrown away.
    pub(crate) fn discards(&self) -> bool {
        self.read != Read::Open
    }

    pub(crate) fn write_state(&self) -> WriteState {
        match self.write {
            Write::Open => WriteState::Open,
            Write::FinSent | Write::Finished | Write::Stopped => WriteState::Closed,
            Write::Reset(code) => WriteState::Reset(code),
        }
    }

    /// We have written everything.
    pub(crate) fn finish(&mut self) {
        if self.write == Write::Open {
            self.write = Write::FinSent;
            self.flags.push_back(encode_flag(Flag::Fin, None));
        }
    }

    /// We give up both halves.
    pub(crate) fn reset(&mut self, code: u32) {
        self.stop(code);
        if matches!(self.write, Write::Open | Write::FinSent) {
            self.flags.push_back(encode_flag(Flag::Reset, Some(code)));
            self.reset_by_us = true;
        }
        self.abandon(code);
    }

    /// The user has let go of the stream.
    pub(crate) fn drop_handle(&mut self) {
        self.stop(0);
        if self.write == Write::Open {
            self.write = Write::Reset(0);
            self.flags.push_back(encode_flag(Flag::Reset, Some(0)));
            self.reset_by_us = true;
        }
        self.discard_unread();
    }

    fn stop(&mut self, code: u32) {
        if self.read == Read::Open {
            self.read = Read::Stopped;
            self.flags.push_back(encode_flag(Flag::StopSending, Some(code)));
        }
    }

    fn abandon(&mut self, code: u32) {
        if matches!(self.read, Read::Open | Read::Stopped) {
            self.read = Read::Reset(code);
            self.discard_unread();
        }
        if matches!(self.write, Write::Open | Write::FinSent) {
            self.write = Write::Reset(code);
        }
    }

    fn discard_unread(&mut self) {
        self.unread.clear();
        self.unread_bytes = 0;
    }

    /// The next frame to send before anything else.
    pub(crate) fn pop_flag(&mut self) -> Option<Bytes> {
        self.flags.pop_front()
    }

    /// Whether the remote was told that the stream is over, and is to close the channel.
    pub(crate) fn is_reset_by_us(&self) -> bool {
        self.reset_by_us
    }

    /// Whether neither side has anything more to say, so that the channel can be closed.
    pub(crate) fn is_done(&self) -> bool {
        self.read != Read::Open && !matches!(self.write, Write::Open | Write::FinSent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::framing::encode_payload;

    /// Moves what `from` has to say to `to`.
    fn exchange(from: &mut Halves, to: &mut Halves) {
        while let Some(flag) = from.pop_flag() {
            to.receive(BytesMut::from(&flag[..])).unwrap();
        }
    }

    fn send(to: &mut Halves, payload: &[u8]) {
        to.receive(BytesMut::from(&encode_payload(payload)[..])).unwrap();
    }

    #[test]
    fn halves_close_one_after_the_other_as_in_the_spec() {
        let (mut a, mut b) = (Halves::default(), Halves::default());
        send(&mut b, b"data");
        a.finish();
        exchange(&mut a, &mut b);
        exchange(&mut b, &mut a);
        assert_eq!(a.write_state(), WriteState::Closed);
        assert!(!a.is_done() && !b.is_done());
        assert_eq!(b.read(), ReadOutcome::Chunk(Bytes::from_static(b"data")));
        assert_eq!(b.read(), ReadOutcome::End);
        send(&mut a, b"answer");
        b.finish();
        exchange(&mut b, &mut a);
        assert!(a.is_done() && !b.is_done());
        exchange(&mut a, &mut b);
        assert!(b.is_done());
        assert_eq!(a.read(), ReadOutcome::Chunk(Bytes::from_static(b"answer")));
        assert_eq!(a.read(), ReadOutcome::End);
    }

    #[test]
    fn reset_carries_its_code_and_discards_what_was_not_read() {
        let (mut a, mut b) = (Halves::default(), Halves::default());
        send(&mut b, b"data");
        a.reset(7);
        exchange(&mut a, &mut b);
        assert_eq!(b.read(), ReadOutcome::Reset(7));
        assert_eq!(b.unread_bytes(), 0);
        assert!(a.is_done() && b.is_done());
        assert_eq!(a.write_state(), WriteState::Reset(7));
    }

    #[test]
    fn stop_sending_ends_the_writer() {
        let (mut a, mut b) = (Halves::default(), Halves::default());
        a.finish();
        a.drop_handle();
        exchange(&mut a, &mut b);
        assert_eq!(b.write_state(), WriteState::Closed);
        assert_eq!(b.read(), ReadOutcome::End);
        assert!(!a.is_done(), "its FIN was not acknowledged yet");
        exchange(&mut b, &mut a);
        assert!(a.is_done());
    }

    #[test]
    fn channel_that_is_closed_without_fin_is_a_reset() {
        let mut halves = Halves::default();
        send(&mut halves, b"data");
        halves.channel_closed();
        assert_eq!(halves.read(), ReadOutcome::Reset(0));
        assert_eq!(halves.write_state(), WriteState::Reset(0));
        let mut halves = Halves::default();
        halves.finish();
        halves.receive(BytesMut::from(&encode_flag(Flag::Fin, None)[..])).unwrap();
        halves.channel_closed();
        assert_eq!(halves.read(), ReadOutcome::End);
        assert!(halves.is_done());
    }

    #[test]
    fn flood_of_fins_is_not_answered_for_ever() {
        let mut halves = Halves::default();
        for _ in 0..1000 {
            halves.receive(BytesMut::from(&encode_flag(Flag::Fin, None)[..])).unwrap();
        }
        assert_eq!(halves.flags.len(), usize::from(MAX_FIN_ACKS));
    }

    proptest! {
        #[test]
        fn any_order_of_flags_and_calls_keeps_the_books(steps in proptest::collection::vec(0..9u8, 0..40)) {
            let mut halves = Halves::default();
            for step in steps {
                match step {
                    0..=3 => {
                        let flag = Flag::try_from(i32::from(step)).unwrap();
                        halves.receive(BytesMut::from(&encode_flag(flag, Some(1))[..])).unwrap();
                    }
                    4 => send(&mut halves, b"four"),
                    5 => halves.finish(),
                    6 => halves.reset(2),
                    7 => halves.drop_handle(),
                    _ => {
                        halves.read();
                    }
                }
                prop_assert_eq!(halves.unread_bytes, halves.unread.iter().map(Bytes::len).sum::<usize>());
                prop_assert!(halves.flags.len() <= 8);
            }
        }
    }
}
