//! Two Yamux sessions, or one and a hostile remote, without any I/O.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::HashMap,
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{ConnectionError, StreamError, runtime::Instant};
use peerloom_upgrade::{
    Role,
    yamux::{
        Flags, FrameError, GoAwayCode, Header, Session, StreamId, Violation,
        limits::{
            ACK_BACKLOG, INITIAL_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, LINGER, MAX_PENDING_PONGS,
            MAX_PENDING_RESETS, MAX_UNREAD, SEND_BUFFER,
        },
    },
};
use proptest::prelude::*;

fn id(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}

fn session(role: Role) -> Session {
    Session::new(role, Instant::now())
}

const SYN: Flags = Flags { open: true, acknowledge: false, finish: false, reset: false };
const NONE: Flags = Flags { open: false, ..SYN };
const FIN: Flags = Flags { finish: true, ..NONE };
const RST: Flags = Flags { reset: true, ..NONE };

fn data(number: u32, flags: Flags, content: &[u8]) -> Vec<u8> {
    let header = Header::Data { id: id(number), flags, length: content.len() as u32 };
    [&header.encode()[..], content].concat()
}

fn update(number: u32, flags: Flags, delta: u32) -> Vec<u8> {
    Header::WindowUpdate { id: id(number), flags, delta }.encode().to_vec()
}

fn give(session: &mut Session, bytes: impl Into<Bytes>) -> Result<(), Violation> {
    session.receive(bytes.into(), Instant::now())
}

fn accept(session: &mut Session) -> Option<StreamId> {
    session.accept(Waker::noop()).unwrap()
}

fn write(session: &mut Session, stream: StreamId, content: &[u8]) {
    let mut content = Bytes::copy_from_slice(content);
    while !content.is_empty() {
        assert!(session.poll_write(stream, &mut content, Waker::noop()).is_ready(), "no room");
    }
}

fn finish(session: &mut Session, stream: StreamId) {
    let _ready_once_it_is_written = session.poll_close_write(stream, Waker::noop());
}

fn read(session: &mut Session, stream: StreamId) -> Poll<Result<Option<Bytes>, StreamError>> {
    session.poll_read(stream, Waker::noop())
}

/// The frames that the session has to send, as headers.
fn sent(session: &mut Session) -> Vec<Header> {
    let mut output = Vec::new();
    session.transmit(&mut output, usize::MAX / 2, Instant::now());
    session.mark_written();
    let mut rest = &output[..];
    let mut headers = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk() {
        let header = Header::decode(header).unwrap();
        rest = match header {
            Header::Data { length, .. } => &after[length as usize..],
            _ => after,
        };
        headers.push(header);
    }
    assert!(rest.is_empty());
    headers
}

/// Carries everything between two sessions until neither has anything to say.
fn exchange(a: &mut Session, b: &mut Session) {
    while a.has_output() || b.has_output() {
        carry(a, b);
        carry(b, a);
    }
}

fn carry(from: &mut Session, to: &mut Session) {
    let mut output = Vec::new();
    from.transmit(&mut output, 1 << 20, Instant::now());
    from.mark_written();
    give(to, output).unwrap();
}

mod violations {
    use super::*;

    fn refused(bytes: impl Into<Bytes>) -> Violation {
        give(&mut session(Role::Responder), bytes).unwrap_err()
    }

    #[test]
    fn stream_opened_with_an_id_of_the_other_side_is_refused() {
        assert_eq!(refused(update(2, SYN, 0)), Violation::WrongSide(id(2)));
        assert_eq!(give(&mut session(Role::Initiator), update(1, SYN, 0)), Err(Violation::WrongSide(id(1))));
    }

    #[test]
    fn stream_opened_twice_is_refused() {
        assert_eq!(refused([update(1, SYN, 0), update(1, SYN, 0)].concat()), Violation::OpenedTwice(id(1)));
    }

    #[test]
    fn data_beyond_the_window_is_refused() {
        let content = vec![0; INITIAL_WINDOW as usize];
        let fill = data(1, SYN, &content);
        assert_eq!(refused([fill, data(1, NONE, &[0])].concat()), Violation::WindowExceeded(id(1)));
    }

    /// CVE-2026-32314
    #[test]
    fn stream_opened_with_a_body_larger_than_any_window_is_refused_by_its_header() {
        let header = Header::Data { id: id(1), flags: SYN, length: INITIAL_WINDOW + 1 };
        assert_eq!(refused(header.encode().to_vec()), Violation::WindowExceeded(id(1)));
        let header = Header::Data { id: id(1), flags: SYN, length: u32::MAX };
        assert_eq!(refused(header.encode().to_vec()), Violation::WindowExceeded(id(1)));
    }

    /// CVE-2026-31814
    #[test]
    fn window_that_overflows_is_refused() {
        let frames = [update(1, SYN, 0), update(1, NONE, u32::MAX)].concat();
        assert_eq!(refused(frames), Violation::WindowOverflow(id(1)));
        assert_eq!(refused(update(1, SYN, u32::MAX)), Violation::WindowOverflow(id(1)));
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(refused(&b"GET / HTTP/1.1\r\n\r\n"[..]), Violation::Frame(FrameError::Version(b'G')));
    }

    #[test]
    fn remote_that_is_accused_is_told() {
        let mut session = session(Role::Responder);
        give(&mut session, update(2, SYN, 0)).unwrap_err();
        session.terminate(std::sync::Arc::new(ConnectionError::Protocol("test".into())));
        session.accuse();
        assert_eq!(sent(&mut session), [Header::GoAway(GoAwayCode::ProtocolError)]);
        assert!(!session.has_output());
    }
}

mod floods {
    use super::*;

    #[test]
    fn streams_that_nobody_accepts_are_reset_beyond_the_backlog() {
        let mut session = session(Role::Responder);
        for number in 0..ACK_BACKLOG as u32 + 100 {
            give(&mut session, update(2 * number + 1, SYN, 0)).unwrap();
        }
        assert_eq!(session.stream_count(), ACK_BACKLOG);
        let resets = sent(&mut session);
        assert_eq!(resets.len(), 100);
        assert!(
            resets.iter().all(|header| matches!(header, Header::WindowUpdate { flags, .. } if *flags == RST))
        );
    }

    #[test]
    fn remote_that_does_not_read_its_resets_is_cut_off() {
        let mut session = session(Role::Responder);
        let refused =
            (0..1_000_000).find_map(|number| give(&mut session, update(2 * number + 1, SYN, 0)).err());
        assert_eq!(refused, Some(Violation::TooManyResets));
        assert!(session.stream_count() <= ACK_BACKLOG);
        assert!(sent(&mut session).len() <= MAX_PENDING_RESETS);
    }

    #[test]
    fn opening_and_resetting_fast_is_bounded_by_the_backlog() {
        let mut session = session(Role::Responder);
        for number in 0..ACK_BACKLOG as u32 + 1000 {
            give(&mut session, [update(2 * number + 1, SYN, 0), update(2 * number + 1, RST, 0)].concat())
                .unwrap();
        }
        assert_eq!(session.stream_count(), ACK_BACKLOG);
        let stream = accept(&mut session).unwrap();
        assert!(matches!(read(&mut session, stream), Poll::Ready(Err(StreamError::Reset { code: 0 }))));
    }

    #[test]
    fn pings_are_answered_up_to_a_bound_and_the_latest_always() {
        let mut session = session(Role::Responder);
        for value in 0..100_000 {
            give(&mut session, Header::Ping(value).encode().to_vec()).unwrap();
        }
        let pongs = sent(&mut session);
        assert_eq!(pongs.len(), MAX_PENDING_PONGS);
        assert_eq!(pongs.last(), Some(&Header::Pong(99_999)));
    }

    #[test]
    fn unread_bytes_are_bounded_over_all_streams() {
        let mut session = session(Role::Responder);
        let content = vec![0; INITIAL_WINDOW as usize];
        let streams = MAX_UNREAD as u32 / INITIAL_WINDOW + 10;
        let mut held = Vec::new();
        for number in 0..streams {
            give(&mut session, data(2 * number + 1, SYN, &content)).unwrap();
            held.extend(accept(&mut session));
        }
        let resets = sent(&mut session);
        let is_reset = |header: &&Header| matches!(header, Header::WindowUpdate { flags, .. } if flags.reset);
        assert_eq!(resets.iter().filter(is_reset).count(), 10);
        let readable =
            |session: &mut Session, stream| matches!(read(session, stream), Poll::Ready(Ok(Some(_))));
        assert_eq!(
            held.iter().filter(|stream| readable(&mut session, **stream)).count(),
            streams as usize - 10
        );
    }

    #[test]
    fn chunks_of_one_byte_are_gathered() {
        let mut session = session(Role::Responder);
        give(&mut session, update(1, SYN, 0)).unwrap();
        for _ in 0..100_000 {
            give(&mut session, data(1, NONE, &[7])).unwrap();
        }
        let stream = accept(&mut session).unwrap();
        let (mut chunks, mut length) = (0, 0);
        while let Poll::Ready(Ok(Some(chunk))) = read(&mut session, stream) {
            chunks += 1;
            length += chunk.len();
        }
        assert_eq!((chunks, length), (7, 100_000));
    }
}

mod streams {
    use super::*;

    #[test]
    fn first_data_frame_opens_the_stream_and_the_first_answer_acknowledges_it() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        assert!(!a.has_output(), "nothing was said on the stream yet");
        write(&mut a, stream, b"hello");
        assert_eq!(sent(&mut a), [Header::Data { id: id(1), flags: SYN, length: 5 }]);
        give(&mut b, data(1, SYN, b"hello")).unwrap();
        let accepted = accept(&mut b).unwrap();
        write(&mut b, accepted, b"you");
        let acknowledge = Flags { acknowledge: true, ..NONE };
        assert_eq!(sent(&mut b), [Header::Data { id: id(1), flags: acknowledge, length: 3 }]);
    }

    #[test]
    fn reader_that_waits_announces_the_stream() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        assert!(read(&mut a, stream).is_pending());
        exchange(&mut a, &mut b);
        let accepted = accept(&mut b).unwrap();
        write(&mut b, accepted, b"welcome");
        exchange(&mut a, &mut b);
        assert!(matches!(read(&mut a, stream), Poll::Ready(Ok(Some(chunk))) if chunk == "welcome"));
        assert_eq!(a.take_events().acknowledged, 1);
    }

    #[test]
    fn streams_are_acknowledged_even_if_nothing_is_said_on_them() {
        let mut session = session(Role::Responder);
        for number in 0..ACK_BACKLOG as u32 {
            give(&mut session, update(2 * number + 1, SYN, 0)).unwrap();
            accept(&mut session).unwrap();
        }
        assert_eq!(sent(&mut session).len(), ACK_BACKLOG);
        give(&mut session, update(9999, SYN, 0)).unwrap();
        accept(&mut session).unwrap();
        assert!(!session.has_output());
        session.handle_timeout(Instant::now()).unwrap();
        let flags = Flags { acknowledge: true, ..NONE };
        assert_eq!(sent(&mut session), [Header::WindowUpdate { id: id(9999), flags, delta: 0 }]);
    }

    #[test]
    fn half_closed_stream_still_receives() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        write(&mut a, stream, b"question");
        finish(&mut a, stream);
        exchange(&mut a, &mut b);
        let accepted = accept(&mut b).unwrap();
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Ok(Some(chunk))) if chunk == "question"));
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Ok(None))));
        write(&mut b, accepted, b"answer");
        exchange(&mut a, &mut b);
        assert!(matches!(read(&mut a, stream), Poll::Ready(Ok(Some(chunk))) if chunk == "answer"));
        let late = a.poll_write(stream, &mut Bytes::from_static(b"more"), Waker::noop());
        assert!(matches!(late, Poll::Ready(Err(StreamError::WriteClosed))));
    }

    /// The remote had all of it before it dropped the stream, even if our holder hears of both at the same time.
    #[test]
    fn closing_succeeds_though_the_remote_dropped_the_stream_after_the_end() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        write(&mut a, stream, b"all of it");
        assert!(a.poll_close_write(stream, Waker::noop()).is_pending());
        exchange(&mut a, &mut b);
        let accepted = accept(&mut b).unwrap();
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Ok(Some(_)))));
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Ok(None))));
        b.drop_stream(accepted, Instant::now());
        exchange(&mut a, &mut b);
        assert!(matches!(read(&mut a, stream), Poll::Ready(Err(StreamError::Reset { .. }))));
        assert!(matches!(a.poll_close_write(stream, Waker::noop()), Poll::Ready(Ok(()))));
    }

    /// js-libp2p 3 and go-yamux look at the flag first and then take the data for something that follows the end.
    #[test]
    fn end_is_never_in_a_frame_with_data() {
        let mut a = session(Role::Initiator);
        let stream = a.open().unwrap();
        write(&mut a, stream, b"question");
        finish(&mut a, stream);
        let data = Header::Data { id: id(1), flags: SYN, length: 8 };
        assert_eq!(sent(&mut a), [data, Header::Data { id: id(1), flags: FIN, length: 0 }]);
    }

    /// But others may send it so.
    #[test]
    fn end_in_a_frame_with_data_comes_after_the_data() {
        let mut session = session(Role::Responder);
        let frame = data(1, Flags { finish: true, ..SYN }, b"all of it");
        let (first, second) = frame.split_at(15);
        give(&mut session, first.to_vec()).unwrap();
        let stream = accept(&mut session).unwrap();
        assert!(matches!(read(&mut session, stream), Poll::Ready(Ok(Some(chunk))) if chunk == "all"));
        assert!(read(&mut session, stream).is_pending());
        give(&mut session, second.to_vec()).unwrap();
        assert!(matches!(read(&mut session, stream), Poll::Ready(Ok(Some(chunk))) if chunk == " of it"));
        assert!(matches!(read(&mut session, stream), Poll::Ready(Ok(None))));
    }

    #[test]
    fn reset_carries_its_code_and_takes_unread_bytes_along() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        write(&mut a, stream, b"never mind");
        exchange(&mut a, &mut b);
        let accepted = accept(&mut b).unwrap();
        a.reset_stream(stream, 0x1234);
        exchange(&mut a, &mut b);
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Err(StreamError::Reset { code: 0x1234 }))));
        let late = b.poll_write(accepted, &mut Bytes::from_static(b"?"), Waker::noop());
        assert!(matches!(late, Poll::Ready(Err(StreamError::Reset { code: 0x1234 }))));
        b.drop_stream(accepted, Instant::now());
        assert_eq!((a.stream_count(), b.stream_count(), b.has_output()), (0, 0, false));
    }

    #[test]
    fn stream_that_was_never_announced_vanishes_without_a_word() {
        let mut a = session(Role::Initiator);
        let stream = a.open().unwrap();
        a.drop_stream(stream, Instant::now());
        assert_eq!((a.stream_count(), a.has_output()), (0, false));
        let events = a.take_events();
        assert_eq!((events.acknowledged, events.closed), (1, 1));
    }

    #[test]
    fn data_after_the_end_breaks_only_its_stream() {
        let mut session = session(Role::Responder);
        give(&mut session, [data(1, SYN, b"a"), data(3, SYN, b"b"), update(1, FIN, 0)].concat()).unwrap();
        let (first, second) = (accept(&mut session).unwrap(), accept(&mut session).unwrap());
        give(&mut session, [data(1, NONE, b"c"), data(3, NONE, b"d")].concat()).unwrap();
        assert!(matches!(read(&mut session, first), Poll::Ready(Err(StreamError::Reset { .. }))));
        assert!(matches!(read(&mut session, second), Poll::Ready(Ok(Some(chunk))) if chunk == "bd"));
    }

    #[test]
    fn data_of_an_unknown_stream_is_skipped() {
        let mut session = session(Role::Responder);
        give(&mut session, [data(9, NONE, &[1; 1000]), update(11, NONE, 5), data(1, SYN, b"x")].concat())
            .unwrap();
        let stream = accept(&mut session).unwrap();
        assert!(matches!(read(&mut session, stream), Poll::Ready(Ok(Some(chunk))) if chunk == "x"));
        assert_eq!(accept(&mut session), None);
    }

    #[test]
    fn writer_waits_for_the_remote_to_read() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        let mut taken = 0;
        loop {
            let mut chunk = Bytes::from(vec![0; 10_000]);
            if a.poll_write(stream, &mut chunk, Waker::noop()).is_pending() {
                break;
            }
            taken += 10_000 - chunk.len();
            exchange(&mut a, &mut b);
        }
        assert_eq!(taken, INITIAL_WINDOW as usize + SEND_BUFFER);
        let accepted = accept(&mut b).unwrap();
        while read(&mut b, accepted).is_ready() {}
        exchange(&mut a, &mut b);
        assert!(a.poll_write(stream, &mut Bytes::from_static(b"more"), Waker::noop()).is_ready());
    }

    #[test]
    fn streams_take_turns() {
        let mut a = session(Role::Initiator);
        for _ in 0..3 {
            let stream = a.open().unwrap();
            write(&mut a, stream, &[0; 64 * 1024]);
        }
        let mut output = Vec::new();
        a.transmit(&mut output, 65_000, Instant::now());
        let order: Vec<_> = [0, 16_396, 32_792, 49_188].map(|at| output[at + 7]).into();
        assert_eq!(order, [1, 3, 5, 1]);
    }

    #[test]
    fn bytes_of_a_stream_that_is_dropped_after_its_end_still_arrive() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        write(&mut a, stream, b"fire");
        finish(&mut a, stream);
        a.drop_stream(stream, Instant::now());
        exchange(&mut a, &mut b);
        let accepted = accept(&mut b).unwrap();
        // An answer that nobody reads is no reason to reset the stream.
        write(&mut b, accepted, b"and");
        exchange(&mut a, &mut b);
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Ok(Some(chunk))) if chunk == "fire"));
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Ok(None))));
        finish(&mut b, accepted);
        exchange(&mut a, &mut b);
        b.drop_stream(accepted, Instant::now());
        assert_eq!((a.stream_count(), b.stream_count()), (0, 0));
    }

    #[test]
    fn dropped_stream_whose_remote_never_ends_is_reset_in_time() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        finish(&mut a, stream);
        exchange(&mut a, &mut b);
        a.drop_stream(stream, Instant::now());
        assert_eq!(a.stream_count(), 1);
        a.handle_timeout(Instant::now() + LINGER).unwrap();
        assert_eq!(a.stream_count(), 0);
        assert!(sent(&mut a).contains(&Header::WindowUpdate { id: id(1), flags: RST, delta: 0 }));
    }

    #[test]
    fn ten_thousand_streams_leave_nothing_behind() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        for number in 0..10_000u32 {
            let (opener, other) = if number % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let stream = opener.open().unwrap();
            write(opener, stream, b"ping");
            exchange(opener, other);
            let accepted = accept(other).unwrap();
            if number % 3 == 0 {
                other.reset_stream(accepted, 0);
            } else {
                write(other, accepted, b"pong");
                finish(other, accepted);
                exchange(opener, other);
                assert!(read(opener, stream).is_ready());
                finish(opener, stream);
            }
            exchange(opener, other);
            other.drop_stream(accepted, Instant::now());
            opener.drop_stream(stream, Instant::now());
            exchange(opener, other);
        }
        assert_eq!((a.stream_count(), b.stream_count()), (0, 0));
        let (a, b) = (a.take_events(), b.take_events());
        assert_eq!((a.closed, a.acknowledged, b.closed, b.acknowledged), (5000, 5000, 5000, 5000));
    }
}

mod endings {
    use super::*;

    #[test]
    fn go_away_ends_the_session_but_not_what_has_arrived() {
        let (mut a, mut b) = (session(Role::Initiator), session(Role::Responder));
        let stream = a.open().unwrap();
        write(&mut a, stream, b"last words");
        finish(&mut a, stream);
        a.close(Instant::now());
        assert!(a.open().is_err());
        assert!(a.poll_write(stream, &mut Bytes::from_static(b"x"), Waker::noop()).is_ready());
        exchange(&mut a, &mut b);
        assert!(a.is_drained());
        assert!(matches!(b.end().map(|end| &**end), Some(ConnectionError::ClosedByRemote)));
        let accepted = accept(&mut b).unwrap();
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Ok(Some(chunk))) if chunk == "last words"));
        assert!(matches!(read(&mut b, accepted), Poll::Ready(Ok(None))));
        assert!(b.accept(Waker::noop()).is_err());
    }

    #[test]
    fn closing_does_not_wait_for_ever_for_a_remote_that_reads_nothing() {
        let mut a = session(Role::Initiator);
        let stream = a.open().unwrap();
        write(&mut a, stream, &vec![0; SEND_BUFFER]);
        sent(&mut a);
        write(&mut a, stream, &vec![0; SEND_BUFFER]);
        let now = Instant::now();
        a.close(now);
        sent(&mut a);
        assert!(!a.is_drained());
        let deadline = a.next_deadline().unwrap();
        assert!(deadline <= now + Duration::from_secs(5));
        a.handle_timeout(deadline).unwrap();
        assert_eq!(sent(&mut a), [Header::GoAway(GoAwayCode::Normal)]);
    }

    #[test]
    fn silent_remote_is_asked_and_then_given_up() {
        let start = Instant::now();
        let mut a = Session::new(Role::Initiator, start);
        assert_eq!(a.next_deadline(), Some(start + KEEP_ALIVE_INTERVAL));
        let asked = start + KEEP_ALIVE_INTERVAL;
        a.handle_timeout(asked).unwrap();
        assert!(matches!(sent(&mut a)[..], [Header::Ping(_)]));
        assert_eq!(a.next_deadline(), Some(asked + KEEP_ALIVE_TIMEOUT));
        a.handle_timeout(asked + KEEP_ALIVE_TIMEOUT - Duration::from_secs(1)).unwrap();
        let end = a.handle_timeout(asked + KEEP_ALIVE_TIMEOUT);
        assert!(matches!(end, Err(ConnectionError::TimedOut)));
    }

    #[test]
    fn anything_that_arrives_is_a_sign_of_life() {
        let start = Instant::now();
        let mut a = Session::new(Role::Initiator, start);
        a.handle_timeout(start + KEEP_ALIVE_INTERVAL).unwrap();
        let heard = start + KEEP_ALIVE_INTERVAL + Duration::from_secs(20);
        a.receive(update(8, NONE, 1).into(), heard).unwrap();
        a.handle_timeout(start + KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT).unwrap();
        assert_eq!(a.next_deadline(), Some(heard + KEEP_ALIVE_INTERVAL));
    }

    /// A page in the background fires timers once a minute; a laptop sleeps for hours.
    #[test]
    fn late_timer_is_no_evidence_against_the_remote() {
        let mut now = Instant::now();
        let mut a = Session::new(Role::Initiator, now);
        now += Duration::from_secs(3600);
        a.handle_timeout(now).unwrap();
        assert!(matches!(sent(&mut a)[..], [Header::Ping(_)]));
        now += Duration::from_secs(3600);
        a.handle_timeout(now).unwrap();
        let [Header::Ping(value)] = sent(&mut a)[..] else { panic!("no ping") };
        a.receive(Header::Pong(value).encode().to_vec().into(), now).unwrap();
        assert_eq!(a.next_deadline(), Some(now + KEEP_ALIVE_INTERVAL));
    }
}

/// What a random test does, with streams named by their number modulo how many there are.
#[derive(Debug, Clone)]
enum Action {
    Open,
    Accept,
    Write(usize, usize),
    Read(usize),
    Finish(usize),
    Transmit(usize),
    Deliver(usize),
}

fn action() -> impl Strategy<Value = (bool, Action)> {
    let action = prop_oneof![
        1 => Just(Action::Open),
        1 => Just(Action::Accept),
        4 => (0usize..8, 0usize..400_000).prop_map(|(stream, length)| Action::Write(stream, length)),
        4 => (0usize..8).prop_map(Action::Read),
        1 => (0usize..8).prop_map(Action::Finish),
        4 => (0usize..100_000).prop_map(Action::Transmit),
        4 => (1usize..200_000).prop_map(Action::Deliver),
    ];
    (any::<bool>(), action)
}

/// One side of a random test.
struct Side {
    session: Session,
    streams: Vec<StreamId>,
    written: HashMap<StreamId, u64>,
    read: HashMap<StreamId, u64>,
    finished: Vec<StreamId>,
    ended: Vec<StreamId>,
    /// Sent but not delivered to the other side.
    wire: Vec<u8>,
}

impl Side {
    fn new(role: Role) -> Self {
        Self {
            session: session(role),
            streams: Vec::new(),
            written: HashMap::new(),
            read: HashMap::new(),
            finished: Vec::new(),
            ended: Vec::new(),
            wire: Vec::new(),
        }
    }

    fn stream(&self, number: usize) -> Option<StreamId> {
        self.streams.get(number % self.streams.len().max(1)).copied()
    }

    /// The byte at `offset` of every stream.
    fn byte(offset: u64) -> u8 {
        (offset ^ (offset >> 8) ^ (offset >> 16)) as u8
    }

    fn write(&mut self, stream: StreamId, length: usize) {
        if self.finished.contains(&stream) {
            return;
        }
        let start = self.written.entry(stream).or_default();
        let mut chunk: Bytes = (*start..*start + length as u64).map(Self::byte).collect();
        if let Poll::Ready(result) = self.session.poll_write(stream, &mut chunk, Waker::noop()) {
            result.unwrap();
            *start += (length - chunk.len()) as u64;
        }
    }

    /// False if there was nothing to read.
    fn read(&mut self, stream: StreamId) -> bool {
        match read(&mut self.session, stream) {
            Poll::Ready(Ok(Some(chunk))) => {
                let offset = self.read.entry(stream).or_default();
                for byte in chunk {
                    assert_eq!(byte, Self::byte(*offset));
                    *offset += 1;
                }
                true
            }
            Poll::Ready(Ok(None)) => {
                if !self.ended.contains(&stream) {
                    self.ended.push(stream);
                }
                false
            }
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => false,
        }
    }

    fn transmit(&mut self, capacity: usize) {
        let before = self.wire.len();
        self.session.transmit(&mut self.wire, capacity, Instant::now());
        assert!(self.wire.len() - before <= capacity);
        self.session.mark_written();
    }

    fn deliver(&mut self, other: &mut Side, count: usize) {
        let rest = self.wire.split_off(count.min(self.wire.len()));
        let bytes = std::mem::replace(&mut self.wire, rest);
        give(&mut other.session, bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_bytes_arrive_in_order_and_no_window_is_exceeded(actions in proptest::collection::vec(action(), 1..200)) {
        let mut sides = [Side::new(Role::Initiator), Side::new(Role::Responder)];
        for (first, action) in actions {
            let [a, b] = &mut sides;
            let (side, other) = if first { (a, b) } else { (b, a) };
            match action {
                Action::Open => side.streams.push(side.session.open().unwrap()),
                Action::Accept => side.streams.extend(accept(&mut side.session)),
                Action::Write(number, length) => {
                    if let Some(stream) = side.stream(number) {
                        side.write(stream, length);
                    }
                }
                Action::Read(number) => {
                    if let Some(stream) = side.stream(number) {
                        side.read(stream);
                    }
                }
                Action::Finish(number) => {
                    if let Some(stream) = side.stream(number).filter(|stream| !side.finished.contains(stream)) {
                        side.finished.push(stream);
                        finish(&mut side.session, stream);
                    }
                }
                Action::Transmit(capacity) => side.transmit(capacity),
                Action::Deliver(count) => side.deliver(other, count),
            }
        }
        // Everything that was taken arrives once both sides read all.
        let mut progress = true;
        while progress {
            progress = false;
            for turn in 0..2 {
                let [a, b] = &mut sides;
                let (side, other) = if turn == 0 { (a, b) } else { (b, a) };
                while let Some(stream) = accept(&mut side.session) {
                    side.streams.push(stream);
                }
                for stream in side.streams.clone() {
                    while side.read(stream) {
                        progress = true;
                    }
                }
                side.transmit(usize::MAX / 2);
                progress |= !side.wire.is_empty();
                side.deliver(other, usize::MAX);
            }
        }
        let [a, b] = &sides;
        for (from, to) in [(a, b), (b, a)] {
            for (stream, written) in &from.written {
                prop_assert_eq!(to.read.get(stream).copied().unwrap_or(0), *written);
            }
            for stream in &from.finished {
                prop_assert!(to.ended.contains(stream));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..64)) {
        let mut session = session(Role::Responder);
        for chunk in chunks {
            if give(&mut session, chunk).is_err() {
                break;
            }
        }
        sent(&mut session);
    }

    #[test]
    fn arbitrary_frames_do_no_harm(frames in proptest::collection::vec((0u8..4, 0u8..16, 1u32..6, 0u32..100), 0..200)) {
        let mut session = session(Role::Responder);
        for (kind, flags, number, length) in frames {
            let mut frame = vec![0, kind, 0, flags];
            frame.extend_from_slice(&number.to_be_bytes());
            frame.extend_from_slice(&length.to_be_bytes());
            if kind == 0 {
                frame.resize(12 + length as usize, 7);
            }
            if give(&mut session, frame).is_err() {
                break;
            }
            if length % 3 == 0
                && let Ok(Some(stream)) = session.accept(Waker::noop())
            {
                let _ = read(&mut session, stream);
                session.drop_stream(stream, Instant::now());
            }
        }
        sent(&mut session);
    }
}
