//! The two halves of a libp2p stream over a data channel, sans-IO: core's framing, what has arrived and was not read, and
//! what is to be said about it.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use peerloom_core::webrtc_stream::{FramingError, Half, WebRtcStream};

/// FINs of the remote that are answered: it may repeat itself once or twice, and not flood.
const MAX_FIN_ACKS: u8 = 4;

/// Both halves of a stream.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    framing: WebRtcStream,
    unread: VecDeque<Bytes>,
    unread_bytes: usize,
    /// Frames that go out before anything else.
    flags: VecDeque<Bytes>,
    fin_acks: u8,
    /// Who has given the stream up, if somebody has.
    reset: Option<Reset>,
    /// We want no more of what the remote writes.
    stopped: bool,
    channel: Channel,
}

#[derive(Debug, Clone, Copy)]
struct Reset {
    code: u32,
    by_us: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Channel {
    #[default]
    Open,
    /// The remote hears nothing more.
    Closing,
    Closed,
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
        let discards = self.discards();
        let (unread, bytes) = (&mut self.unread, &mut self.unread_bytes);
        self.framing.receive(message.freeze(), |payload| {
            if !discards {
                *bytes = bytes.saturating_add(payload.len());
                unread.push_back(payload);
            }
        })?;
        if let Some(acknowledgement) = self.framing.acknowledgement()
            && self.fin_acks < MAX_FIN_ACKS
        {
            self.fin_acks = self.fin_acks.saturating_add(1);
            self.flags.push_back(acknowledgement.into());
        }
        if self.framing.read_half() == Half::Abandoned && !self.stopped {
            // For the remote's half by the spec, and for both by what go-libp2p and js-libp2p mean by it.
            self.reset.get_or_insert(Reset { code: self.framing.reset_code(), by_us: false });
            self.discard_unread();
        }
        Ok(())
    }

    /// The channel is being closed by the remote, which hears nothing more.
    pub(crate) fn channel_closing(&mut self) {
        self.channel = self.channel.max(Channel::Closing);
    }

    /// The channel is gone, and everything that came out of it was [received](Self::receive).
    pub(crate) fn channel_closed(&mut self) {
        self.channel = Channel::Closed;
    }

    /// What there is to read.
    pub(crate) fn read(&mut self) -> ReadOutcome {
        if let Some(reset) = self.reset {
            return ReadOutcome::Reset(reset.code);
        }
        if let Some(chunk) = self.unread.pop_front() {
            self.unread_bytes = self.unread_bytes.saturating_sub(chunk.len());
            return ReadOutcome::Chunk(chunk);
        }
        match self.framing.read_half() {
            Half::Open if self.channel == Channel::Closed => ReadOutcome::Reset(0),
            Half::Open => ReadOutcome::Empty,
            Half::Finished | Half::Abandoned => ReadOutcome::End,
        }
    }

    pub(crate) fn unread_bytes(&self) -> usize {
        self.unread_bytes
    }

    /// Whether what still arrives is thrown away.
    pub(crate) fn discards(&self) -> bool {
        self.stopped || self.reset.is_some() || self.framing.read_half() != Half::Open
    }

    pub(crate) fn write_state(&self) -> WriteState {
        match (self.reset, self.framing.write_half()) {
            (Some(reset), _) => WriteState::Reset(reset.code),
            (None, Half::Finished) => WriteState::Closed,
            (None, Half::Abandoned) => WriteState::Reset(0),
            (None, Half::Open) if self.channel != Channel::Open => WriteState::Reset(0),
            (None, Half::Open) => WriteState::Open,
        }
    }

    /// The message that carries what of `data` fits, which is taken from it.
    pub(crate) fn encode(&self, data: &mut Bytes) -> Bytes {
        self.framing.data(data).into()
    }

    /// We have written everything.
    pub(crate) fn finish(&mut self) {
        self.flags.extend(self.framing.finish().map(Bytes::from));
    }

    /// We give up both halves.
    pub(crate) fn reset(&mut self, code: u32) {
        // RESET before STOP_SENDING: rust-libp2p takes whichever comes first for the end of the stream.
        self.reset_write(code);
        self.stop(code);
        self.reset.get_or_insert(Reset { code, by_us: true });
    }

    /// The user has let go of the stream.
    pub(crate) fn drop_handle(&mut self) {
        if self.framing.write_half() == Half::Open {
            self.reset_write(0);
            self.reset.get_or_insert(Reset { code: 0, by_us: true });
        }
        self.stop(0);
    }

    fn stop(&mut self, code: u32) {
        self.stopped = true;
        self.flags.extend(self.framing.stop(code).map(Bytes::from));
        self.discard_unread();
    }

    fn reset_write(&mut self, code: u32) {
        self.flags.extend(self.framing.reset(code).map(Bytes::from));
    }

    fn discard_unread(&mut self) {
        self.unread.clear();
        self.unread_bytes = 0;
    }

    /// The next frame to send before anything else.
    pub(crate) fn pop_flag(&mut self) -> Option<Bytes> {
        self.flags.pop_front()
    }

    /// Whether the remote was told that the stream is over before its time, and is to close the channel.
    pub(crate) fn is_reset_by_us(&self) -> bool {
        self.reset.is_some_and(|reset| reset.by_us)
    }

    /// Whether neither side has anything more to say, so that the channel can be closed.
    pub(crate) fn is_done(&self) -> bool {
        let unheard = self.channel != Channel::Open && self.framing.read_half() != Half::Open;
        self.reset.is_some() || self.framing.is_done() || unheard
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLAGS: [&[u8]; 4] = [&[2, 8, 0], &[4, 8, 1, 24, 1], &[4, 8, 2, 24, 1], &[2, 8, 3]];

    /// Moves what `from` has to say to `to`.
    fn exchange(from: &mut Halves, to: &mut Halves) {
        while let Some(flag) = from.pop_flag() {
            to.receive(BytesMut::from(&flag[..])).unwrap();
        }
    }

    fn send(to: &mut Halves, payload: &[u8]) {
        let message = Halves::default().encode(&mut Bytes::copy_from_slice(payload));
        to.receive(BytesMut::from(&message[..])).unwrap();
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
        assert_eq!(b.write_state(), WriteState::Reset(0));
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
        assert_eq!(halves.read(), ReadOutcome::Chunk(Bytes::from_static(b"data")));
        assert_eq!(halves.read(), ReadOutcome::Reset(0));
        assert_eq!(halves.write_state(), WriteState::Reset(0));
        let mut halves = Halves::default();
        halves.finish();
        halves.receive(BytesMut::from(FLAGS[0])).unwrap();
        halves.channel_closed();
        assert_eq!(halves.read(), ReadOutcome::End);
        assert!(halves.is_done());
    }

    #[test]
    fn flood_of_fins_is_not_answered_for_ever() {
        let mut halves = Halves::default();
        for _ in 0..1000 {
            halves.receive(BytesMut::from(FLAGS[0])).unwrap();
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
                        halves.receive(BytesMut::from(FLAGS[usize::from(step)])).unwrap();
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
