//! Yamux: one session against a remote that sends anything, and two sessions that must understand each other.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use peerloom_core::{ConnectionError, StreamError, runtime::Instant};
use peerloom_upgrade::{
    Role,
    yamux::{
        HEADER_LENGTH, Header, Session, StreamId,
        limits::{MAX_INBOUND_STREAMS, SEND_BUFFER},
    },
};

/// Headers of frames: what is read can be written, and is read as the same.
pub fn yamux_frame(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<HEADER_LENGTH>() else { return };
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
}

/// What happens to a session.
#[derive(Debug, Arbitrary)]
enum Action {
    /// A frame of the remote's, with this many bytes after it.
    Frame {
        kind: u8,
        flags: u8,
        stream: u8,
        length: u32,
        body: u16,
    },
    /// A data frame that is as long as it says.
    Data {
        flags: u8,
        stream: u8,
        length: u16,
    },
    Bytes(Vec<u8>),
    Open,
    Accept,
    Read(u8),
    Write(u8, u16),
    Flush(u8),
    CloseWrite(u8),
    Reset(u8, u32),
    Drop(u8),
    Transmit(u16),
    Wait(u16),
    Close,
}

/// One session against a remote that sends anything, with an owner that does anything.
pub fn yamux_session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let role = if input.arbitrary().unwrap_or_default() { Role::Initiator } else { Role::Responder };
    let mut now = Instant::now();
    let mut session = Session::new(role, now);
    let mut held = Vec::new();
    let mut wakers = Vec::new();
    let (mut opened, mut delivered, mut read) = (0, 0, 0);
    while !input.is_empty() {
        let Ok(action) = Action::arbitrary(&mut input) else { break };
        let arrived = match &action {
            Action::Frame { kind, flags, stream, length, body } => {
                let mut frame = header(*kind, *flags, *stream, *length).to_vec();
                frame.resize(HEADER_LENGTH + usize::from(*body), 0x2a);
                Some(frame)
            }
            Action::Data { flags, stream, length } => {
                let mut frame = header(0, *flags, *stream, (*length).into()).to_vec();
                frame.resize(HEADER_LENGTH + usize::from(*length), 0x2a);
                Some(frame)
            }
            Action::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        };
        if let Some(arrived) = arrived {
            delivered += arrived.len();
            if let Err(violation) = session.receive(arrived.into(), now) {
                accuse(session, violation.to_string(), now);
                return;
            }
        }
        match action {
            Action::Frame { .. } | Action::Data { .. } | Action::Bytes(_) => {}
            Action::Open if opened < 32 => {
                opened += 1;
                held.extend(session.open().ok());
            }
            Action::Accept => held.extend(session.accept(Waker::noop()).ok().flatten()),
            Action::Read(index) => {
                let Some(id) = pick(&held, index) else { continue };
                if let Poll::Ready(Ok(Some(chunk))) = session.poll_read(id, Waker::noop()) {
                    assert!(!chunk.is_empty(), "an empty chunk says nothing");
                    read += chunk.len();
                }
            }
            Action::Write(index, length) => {
                let Some(id) = pick(&held, index) else { continue };
                let mut data = Bytes::from(vec![0x5a; length.into()]);
                let before = data.len();
                let outcome = session.poll_write(id, &mut data, Waker::noop());
                assert!(before - data.len() <= SEND_BUFFER);
                assert!(data.len() == before || matches!(outcome, Poll::Ready(Ok(()))));
            }
            Action::Flush(index) => {
                let Some(id) = pick(&held, index) else { continue };
                let _ = session.poll_flush(id, Waker::noop());
            }
            Action::CloseWrite(index) => {
                let Some(id) = pick(&held, index) else { continue };
                let _ = session.poll_close_write(id, Waker::noop());
            }
            Action::Reset(index, code) => {
                let Some(id) = pick(&held, index) else { continue };
                session.reset_stream(id, code);
            }
            Action::Drop(index) => {
                let Some(id) = pick(&held, index) else { continue };
                held.retain(|other| *other != id);
                session.drop_stream(id, now);
            }
            Action::Transmit(capacity) => {
                let capacity = HEADER_LENGTH + usize::from(capacity);
                let mut output = vec![0; 3];
                session.transmit(&mut output, capacity, now);
                assert!(output.len() <= 3 + capacity);
                check_frames(&output[3..]);
                session.mark_written();
            }
            Action::Wait(millis) => {
                now += Duration::from_millis(u64::from(millis) * 4);
                if session.next_deadline().is_some_and(|deadline| deadline <= now)
                    && let Err(error) = session.handle_timeout(now)
                {
                    session.terminate(Arc::new(error));
                }
            }
            Action::Close => session.close(now),
            Action::Open => {}
        }
        session.take_events();
        session.take_wakers(&mut wakers);
        wakers.clear();
        assert!(read <= delivered, "a session makes up no bytes");
        assert!(session.stream_count() <= MAX_INBOUND_STREAMS + opened + held.len());
    }
    session.terminate(Arc::new(ConnectionError::ClosedLocally));
    held.into_iter().for_each(|id| session.drop_stream(id, now));
    while let Ok(Some(id)) = session.accept(Waker::noop()) {
        session.drop_stream(id, now);
    }
    assert_eq!(session.stream_count(), 0, "nothing is left of a session that is over");
}

fn header(kind: u8, flags: u8, stream: u8, length: u32) -> [u8; HEADER_LENGTH] {
    let [length0, length1, length2, length3] = length.to_be_bytes();
    [0, kind & 3, 0, flags & 15, 0, 0, 0, stream, length0, length1, length2, length3]
}

fn pick(held: &[StreamId], index: u8) -> Option<StreamId> {
    held.get(usize::from(index).checked_rem(held.len())?).copied()
}

/// What a driver does with a remote that breaks the protocol.
fn accuse(mut session: Session, reason: String, now: Instant) {
    session.accuse();
    let mut output = Vec::new();
    for _ in 0..10_000 {
        if !session.has_output() {
            break;
        }
        session.transmit(&mut output, 64 * 1024, now);
    }
    assert!(session.is_drained(), "the remote is told");
    session.terminate(Arc::new(ConnectionError::Protocol(reason)));
}

/// Whole frames, each with a header that we read ourselves.
fn check_frames(mut output: &[u8]) {
    while let Some((header, rest)) = output.split_first_chunk::<HEADER_LENGTH>() {
        output = match Header::decode(header).expect("we read our own headers") {
            Header::Data { length, .. } => {
                rest.split_at_checked(length as usize).expect("frames are whole").1
            }
            _ => rest,
        };
    }
    assert!(output.is_empty(), "frames are whole");
}

/// What the owners of two connected sessions do.
#[derive(Debug, Arbitrary)]
enum Step {
    Open(bool),
    Accept(bool),
    Write(bool, u8, u16),
    Read(bool, u8),
    CloseWrite(bool, u8),
    /// By the application, or by dropping it.
    Abandon(bool, u8, bool),
    /// So many of a session's bytes go on their way, and so many of them arrive.
    Transmit(bool, u16),
    Deliver(bool, u16),
    Wait(u8),
}

/// Two sessions over a pipe that cuts where it likes: neither may find a fault with the other, what is read is what was
/// written, and in the end all of it has arrived.
pub fn yamux_pair(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut now = Instant::now();
    let mut sides = [Side::new(Role::Initiator, now), Side::new(Role::Responder, now)];
    while !input.is_empty() {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        match step {
            Step::Open(side) => sides[usize::from(side)].open(),
            Step::Accept(side) => drop(sides[usize::from(side)].accept()),
            Step::Write(side, index, length) => sides[usize::from(side)].write(index, length),
            Step::Read(side, index) => {
                let [a, b] = &mut sides;
                let (reader, writer) = if side { (b, a) } else { (a, b) };
                if let Some(id) = reader.pick(index) {
                    reader.read(id, writer);
                }
            }
            Step::CloseWrite(side, index) => sides[usize::from(side)].close_write(index),
            Step::Abandon(side, index, reset) => sides[usize::from(side)].abandon(index, reset, now),
            Step::Transmit(side, capacity) => sides[usize::from(side)].transmit(capacity.into(), now),
            Step::Deliver(side, length) => {
                let arrived = sides[usize::from(!side)].take_wire(length.into());
                sides[usize::from(side)].receive(arrived, now);
            }
            Step::Wait(millis) => {
                now += Duration::from_millis(millis.into());
                for side in &mut sides {
                    side.session
                        .handle_timeout(now)
                        .expect("less time has passed than a remote has to answer");
                }
            }
        }
    }
    finish(sides, now);
}

/// Everybody closes and reads until nothing moves any more.
fn finish(mut sides: [Side; 2], now: Instant) {
    sides.iter_mut().for_each(Side::close_all);
    // A round of all moves a window of each stream, and what was written fits into a few. What is closed in one round is
    // sent in the next.
    let mut quiet = 0;
    for _ in 0..1000 {
        let mut moved = false;
        for index in 0..2 {
            let [a, b] = &mut sides;
            let (reader, writer) = if index == 0 { (a, b) } else { (b, a) };
            writer.transmit(1 << 20, now);
            let arrived = writer.take_wire(usize::MAX);
            moved |= !arrived.is_empty();
            reader.receive(arrived, now);
            reader.accept_all();
            for id in reader.held.keys().copied().collect::<Vec<_>>() {
                while reader.read(id, writer) {
                    moved = true;
                }
            }
        }
        sides.iter_mut().for_each(Side::close_all);
        quiet = if moved { 0 } else { quiet + 1 };
        if quiet > 2 {
            break;
        }
    }
    let [a, b] = &sides;
    for (reader, writer) in [(a, b), (b, a)] {
        for (id, stream) in &reader.held {
            if let Some(theirs) = writer.held.get(id) {
                assert!(stream.ended, "stream {id} never ends");
                assert_eq!(stream.read, theirs.written, "stream {id} has lost bytes");
            }
        }
    }
    for side in &mut sides {
        let held = std::mem::take(&mut side.held);
        held.into_keys().for_each(|id| side.session.drop_stream(id, now));
    }
    for _ in 0..4 {
        for index in 0..2 {
            let [a, b] = &mut sides;
            let (from, to) = if index == 0 { (a, b) } else { (b, a) };
            from.transmit(1 << 20, now);
            let arrived = from.take_wire(usize::MAX);
            to.receive(arrived, now);
            to.accept_all();
            let held = std::mem::take(&mut to.held);
            held.into_keys().for_each(|id| to.session.drop_stream(id, now));
        }
    }
    for side in &sides {
        assert_eq!(side.session.stream_count(), 0, "streams that both sides have done with are forgotten");
    }
}

struct Side {
    session: Session,
    held: HashMap<StreamId, Held>,
    /// Streams that were dropped or reset at this side, and what was written to them.
    abandoned: HashMap<StreamId, usize>,
    wire: VecDeque<u8>,
    opened: usize,
}

#[derive(Default)]
struct Held {
    written: usize,
    read: usize,
    ended: bool,
}

impl Side {
    /// Streams that a side opens. Fewer than may wait to be accepted, so that none is refused.
    const MAX_OPENED: usize = 64;
    /// The same for bytes: a stream's first window and its send buffer, and then some.
    const MAX_WRITTEN: usize = 1 << 20;

    fn new(role: Role, now: Instant) -> Self {
        Self {
            session: Session::new(role, now),
            held: HashMap::new(),
            abandoned: HashMap::new(),
            wire: VecDeque::new(),
            opened: 0,
        }
    }

    fn pick(&self, index: u8) -> Option<StreamId> {
        // In order, so that a run is the same every time.
        let mut ids: Vec<_> = self.held.keys().copied().collect();
        ids.sort();
        pick(&ids, index)
    }

    fn open(&mut self) {
        if self.opened < Self::MAX_OPENED {
            self.opened += 1;
            let id = self.session.open().expect("the session is open");
            self.held.insert(id, Held::default());
        }
    }

    fn accept(&mut self) -> bool {
        let accepted = self.session.accept(Waker::noop()).expect("the session is open");
        if let Some(id) = accepted {
            assert!(self.held.insert(id, Held::default()).is_none(), "stream {id} was accepted twice");
        }
        accepted.is_some()
    }

    fn accept_all(&mut self) {
        while self.accept() {}
    }

    fn write(&mut self, index: u8, length: u16) {
        let Some(id) = self.pick(index) else { return };
        let Some(held) = self.held.get_mut(&id).filter(|held| held.written < Self::MAX_WRITTEN) else {
            return;
        };
        let length = usize::from(length);
        let mut data: Bytes = (held.written..held.written + length).map(|at| content(id, at)).collect();
        // An error is a reset by the remote, or a half that is closed.
        let _ = self.session.poll_write(id, &mut data, Waker::noop());
        held.written += length - data.len();
    }

    /// Reads a chunk; whether there was one.
    fn read(&mut self, id: StreamId, writer: &Self) -> bool {
        let Some(held) = self.held.get_mut(&id) else { return false };
        match self.session.poll_read(id, Waker::noop()) {
            Poll::Ready(Ok(Some(chunk))) => {
                let at = held.read;
                assert!(
                    chunk.iter().zip(at..).all(|(byte, at)| *byte == content(id, at)),
                    "stream {id} is mixed up"
                );
                held.read += chunk.len();
                let written = writer.held.get(&id).map(|held| held.written);
                let written = written.or_else(|| writer.abandoned.get(&id).copied());
                assert!(written.is_some_and(|written| held.read <= written), "stream {id} makes up bytes");
                true
            }
            Poll::Ready(Ok(None)) => {
                held.ended = true;
                false
            }
            Poll::Ready(Err(StreamError::Reset { .. })) => {
                assert!(writer.abandoned.contains_key(&id), "stream {id} was reset, and by nobody");
                held.ended = true;
                false
            }
            Poll::Ready(Err(error)) => panic!("stream {id}: {error}"),
            Poll::Pending => false,
        }
    }

    fn close_write(&mut self, index: u8) {
        if let Some(id) = self.pick(index) {
            let _ = self.session.poll_close_write(id, Waker::noop());
        }
    }

    fn close_all(&mut self) {
        for id in self.held.keys() {
            let _ = self.session.poll_close_write(*id, Waker::noop());
        }
    }

    fn abandon(&mut self, index: u8, reset: bool, now: Instant) {
        let Some(id) = self.pick(index) else { return };
        if reset {
            self.session.reset_stream(id, 7);
        }
        self.session.drop_stream(id, now);
        let held = self.held.remove(&id).unwrap_or_default();
        self.abandoned.insert(id, held.written);
    }

    fn transmit(&mut self, capacity: usize, now: Instant) {
        let mut output = Vec::new();
        self.session.transmit(&mut output, capacity, now);
        assert!(output.len() <= capacity);
        self.session.mark_written();
        self.wire.extend(output);
    }

    fn take_wire(&mut self, length: usize) -> Bytes {
        self.wire.drain(..length.min(self.wire.len())).collect()
    }

    fn receive(&mut self, arrived: Bytes, now: Instant) {
        self.session.receive(arrived, now).expect("a remote that keeps to the protocol is not accused");
        assert!(self.session.end().is_none());
        self.session.take_events();
        self.session.take_wakers(&mut Vec::new());
    }
}

/// The byte of a stream at a position, in either direction.
fn content(stream: StreamId, at: usize) -> u8 {
    (stream.get() as usize).wrapping_mul(31).wrapping_add(at).wrapping_mul(0x9e37_79b1) as u8
}
