use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    memory_stream::MemoryStream,
    protocol_name::ProtocolName,
    stream::{Stream, StreamError, StreamExt},
};

const ECHO: ProtocolName = ProtocolName::from_static("/echo/1.0.0");
const PING: ProtocolName = ProtocolName::from_static("/ipfs/ping/1.0.0");
const WINDOW: usize = 64 * 1024;

fn only_echo(name: &str) -> Option<ProtocolName> {
    (ECHO == *name).then_some(ECHO)
}

/// Messages as they are on the wire.
fn wire(messages: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        message::encode(message, &mut bytes);
    }
    bytes
}

async fn lazy(window: usize) -> (NegotiatedStream, MemoryStream) {
    let (ours, theirs) = MemoryStream::pair(window);
    (negotiate_outbound(Box::new(ours), &[ECHO]).await.unwrap(), theirs)
}

async fn read_to_end(stream: &mut impl Stream) -> Result<Vec<u8>, StreamError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.read_chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

// The machines.

#[test]
fn bytes_are_those_of_the_spec() {
    assert_eq!(wire(&[HEADER, "na"]), b"\x13/multistream/1.0.0\n\x03na\n");
    assert_eq!(Dialer::new(&[ECHO, PING]).take_outgoing(), wire(&[HEADER, "/echo/1.0.0"]));
}

#[test]
fn dialer_proposes_the_next_protocol_when_one_is_refused() {
    let mut dialer = Dialer::new(&[PING, ECHO]);
    dialer.take_outgoing();
    assert_eq!(dialer.receive(&mut wire(&[HEADER, "na"]).into()).unwrap(), None);
    assert_eq!(dialer.take_outgoing(), wire(&["/echo/1.0.0"]));
    let mut answer = Bytes::from([&wire(&["/echo/1.0.0"])[..], b"more"].concat());
    assert_eq!(dialer.receive(&mut answer).unwrap(), Some(ECHO));
    assert_eq!(answer, "more");
}

#[test]
fn dialer_whose_last_proposal_is_refused_finds_nothing() {
    let mut dialer = Dialer::new(&[ECHO]);
    let refusal = dialer.receive(&mut wire(&[HEADER, "na"]).into());
    assert!(matches!(refusal, Err(NegotiationError::NoCommonProtocol)));
    assert!(matches!(Dialer::new(&[]).receive(&mut Bytes::new()), Err(NegotiationError::NoCommonProtocol)));
}

#[test]
fn dialer_refuses_an_answer_to_no_proposal_and_a_foreign_header() {
    for answers in [&[HEADER, "/other"][..], &["/multistream/2.0.0"], &["/echo/1.0.0"], &[HEADER, HEADER]] {
        let result = Dialer::new(&[ECHO, PING]).receive(&mut wire(answers).into());
        assert!(matches!(result, Err(NegotiationError::Protocol(_))), "{answers:?}");
    }
}

#[test]
fn listener_accepts_the_first_proposal_that_it_supports() {
    let mut listener = Listener::new();
    let mut input = Bytes::from([&wire(&[HEADER, "ls", "/other", "/echo/1.0.0"])[..], b"more"].concat());
    assert_eq!(listener.receive(&mut input, only_echo).unwrap(), Some(ECHO));
    assert_eq!(listener.take_outgoing(), wire(&[HEADER, "na", "na", "/echo/1.0.0"]));
    assert_eq!(input, "more");
}

#[test]
fn listener_echoes_the_proposal_even_if_it_knows_the_protocol_by_another_name() {
    let mut listener = Listener::new();
    let mut input = Bytes::from(wire(&[HEADER, "/echo/1.0.7"]));
    assert_eq!(listener.receive(&mut input, |_| Some(ECHO)).unwrap(), Some(ECHO));
    assert_eq!(listener.take_outgoing(), wire(&[HEADER, "/echo/1.0.7"]));
}

#[test]
fn remote_that_proposes_without_end_is_refused() {
    let mut listener = Listener::new();
    let mut proposals = vec![HEADER];
    proposals.extend(["/other"; MAX_PROPOSALS]);
    assert_eq!(listener.receive(&mut wire(&proposals).into(), only_echo).unwrap(), None);
    let result = listener.receive(&mut wire(&["/echo/1.0.0"]).into(), only_echo);
    assert!(matches!(result, Err(NegotiationError::Protocol("too many proposals"))));
}

#[test]
fn malformed_messages_are_refused_by_both_sides() {
    let long = "x".repeat(MAX_MESSAGE_BYTES);
    for bad in [
        &b"\0"[..],
        b"\x01x",
        b"\x02\xff\n",
        // Lengths: too long, not minimal, endless.
        b"\x81\x08",
        b"\x85\x00",
        b"\xff\xff",
        &wire(&[&long]),
        b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\nUser-Agent: somebody that is lost\r\n\r\n",
    ] {
        let mut input = Bytes::copy_from_slice(bad);
        let result = Listener::new().receive(&mut input.clone(), only_echo);
        assert!(matches!(result, Err(NegotiationError::Protocol(_))), "{bad:?}");
        let result = Dialer::new(&[ECHO]).receive(&mut input);
        assert!(matches!(result, Err(NegotiationError::Protocol(_))), "{bad:?}");
    }
}

// Pipes.

#[tokio::test]
async fn pipes_agree_and_leave_what_follows_alone() {
    for protocols in [&[ECHO][..], &[PING, ECHO]] {
        let (mut ours, mut theirs) = tokio::io::duplex(40);
        let dial = async {
            assert_eq!(dial_pipe(&mut ours, protocols).await.unwrap(), ECHO);
            ours.write_all(b"ping").await.unwrap();
            let mut answer = [0; 4];
            ours.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"pong");
        };
        let accept = async {
            assert_eq!(accept_pipe(&mut theirs, only_echo).await.unwrap(), ECHO);
            theirs.write_all(b"pong").await.unwrap();
            let mut question = [0; 4];
            theirs.read_exact(&mut question).await.unwrap();
            assert_eq!(&question, b"ping");
        };
        tokio::join!(dial, accept);
    }
}

#[tokio::test]
async fn proposal_and_first_bytes_can_go_out_together_on_a_pipe() {
    let (mut ours, mut theirs) = tokio::io::duplex(1024);
    let mut dialer = Dialer::new(&[ECHO]);
    let first = [&dialer.take_outgoing()[..], b"first"].concat();
    ours.write_all(&first).await.unwrap();
    accept_pipe(&mut theirs, only_echo).await.unwrap();
    theirs.write_all(b"answer").await.unwrap();
    let mut question = [0; 5];
    theirs.read_exact(&mut question).await.unwrap();
    assert_eq!(&question, b"first");
    confirm_pipe(&mut ours, &mut dialer).await.unwrap();
    let mut answer = [0; 6];
    ours.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
}

#[tokio::test]
async fn pipes_without_a_common_protocol_say_so_on_both_sides() {
    let (mut ours, mut theirs) = tokio::io::duplex(1024);
    let dial = async move {
        let result = dial_pipe(&mut ours, &[PING]).await;
        assert!(matches!(result, Err(NegotiationError::NoCommonProtocol)), "{result:?}");
    };
    let accept = async move {
        let result = accept_pipe(&mut theirs, only_echo).await;
        assert!(matches!(result, Err(NegotiationError::NoCommonProtocol)), "{result:?}");
    };
    tokio::join!(dial, accept);
}

#[tokio::test]
async fn pipe_that_ends_within_the_negotiation_is_an_error() {
    let whole = wire(&[HEADER, "/echo/1.0.0"]);
    for length in 0..whole.len() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        ours.write_all(&whole[..length]).await.unwrap();
        drop(ours);
        let result = accept_pipe(&mut theirs, only_echo).await;
        // Our answer to the header may find the pipe closed already.
        let ended = matches!(result, Err(NegotiationError::UnexpectedEnd | NegotiationError::Io(_)));
        assert!(ended, "{length}: {result:?}");
    }
}

// Streams.

#[tokio::test]
async fn single_proposal_goes_out_with_the_first_bytes_in_one_piece() {
    let (mut ours, theirs) = lazy(WINDOW).await;
    assert!(!ours.is_confirmed());
    assert!(theirs.unread_chunks().is_empty());
    ours.write_all("first".into()).await.unwrap();
    ours.write_all("second".into()).await.unwrap();
    let together = [&wire(&[HEADER, "/echo/1.0.0"])[..], b"first"].concat();
    assert_eq!(theirs.unread_chunks(), [Bytes::from(together), "second".into()]);
}

#[tokio::test]
async fn proposal_goes_out_when_the_stream_is_flushed_read_or_closed_without_a_write() {
    let polls: [fn(&mut NegotiatedStream, &mut Context<'_>) -> bool; 3] = [
        |stream, cx| stream.poll_flush(cx).is_ready(),
        |stream, cx| stream.poll_read(cx).is_ready(),
        |stream, cx| stream.poll_close_write(cx).is_ready(),
    ];
    for poll in polls {
        let (mut ours, theirs) = lazy(WINDOW).await;
        poll(&mut ours, &mut Context::from_waker(Waker::noop()));
        assert_eq!(theirs.unread_chunks().concat(), wire(&[HEADER, "/echo/1.0.0"]));
    }
}

#[tokio::test]
async fn bytes_flow_both_ways_over_a_lazy_stream_however_small_the_window() {
    for window in [1, 2, 7, 33, 5000, WINDOW] {
        let sent: Bytes = (0..20_000u32).map(|n| n as u8).collect::<Vec<_>>().into();
        let (mut ours, theirs) = lazy(window).await;
        let echo = async {
            let mut theirs = negotiate_inbound(Box::new(theirs), only_echo).await.unwrap();
            assert_eq!(theirs.protocol(), &ECHO);
            let mut received = 0;
            while let Some(chunk) = theirs.read_chunk().await.unwrap() {
                received += chunk.len();
                theirs.write_all(chunk).await.unwrap();
            }
            theirs.close_write().await.unwrap();
            received
        };
        // The two halves as tasks of their own would have them: polled in turn, each with its waker.
        let mut unsent = sent.clone();
        let mut received = Vec::new();
        let both = poll_fn(|cx| {
            while !unsent.is_empty() {
                match ours.poll_write(cx, &mut unsent) {
                    Poll::Ready(result) => result.unwrap(),
                    Poll::Pending => break,
                }
            }
            if unsent.is_empty()
                && let Poll::Ready(result) = ours.poll_close_write(cx)
            {
                result.unwrap();
            }
            while let Poll::Ready(chunk) = ours.poll_read(cx) {
                match chunk.unwrap() {
                    Some(chunk) => received.extend_from_slice(&chunk),
                    None => return Poll::Ready(()),
                }
            }
            Poll::Pending
        });
        let (echoed, ()) = tokio::join!(echo, both);
        assert_eq!((echoed, received.len()), (sent.len(), sent.len()), "window {window}");
        assert_eq!(received, sent);
    }
}

#[tokio::test]
async fn several_proposals_are_negotiated_before_the_stream_is_there() {
    let (ours, theirs) = MemoryStream::pair(WINDOW);
    let protocols = [PING, ECHO];
    let dial = negotiate_outbound(Box::new(ours), &protocols);
    let accept = negotiate_inbound(Box::new(theirs), only_echo);
    let (ours, theirs) = tokio::join!(dial, accept);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert!(ours.is_confirmed() && theirs.is_confirmed());
    assert_eq!((ours.protocol(), theirs.protocol()), (&ECHO, &ECHO));
}

#[tokio::test]
async fn no_common_protocol_is_told_apart_from_a_failure_on_both_sides() {
    for protocols in [&[PING][..], &[PING, ProtocolName::from_static("/other")]] {
        let (ours, theirs) = MemoryStream::pair(WINDOW);
        let dial = async {
            let mut stream = negotiate_outbound(Box::new(ours), protocols).await?;
            stream.confirm().await
        };
        let accept = negotiate_inbound(Box::new(theirs), only_echo);
        // The dialer drops its stream, which resets it for the listener.
        let (dialed, accepted) = tokio::join!(dial, accept);
        assert!(matches!(dialed, Err(NegotiationError::NoCommonProtocol)), "{dialed:?}");
        assert!(matches!(accepted, Err(NegotiationError::Stream(_))), "{accepted:?}");
    }
    let (mut ours, theirs) = MemoryStream::pair(WINDOW);
    ours.write_all(wire(&[HEADER, "/other"]).into()).await.unwrap();
    ours.close_write().await.unwrap();
    let accepted = negotiate_inbound(Box::new(theirs), only_echo).await;
    assert!(matches!(accepted, Err(NegotiationError::NoCommonProtocol)), "{accepted:?}");
}

#[tokio::test]
async fn lazy_stream_whose_proposal_is_refused_fails_in_every_poll() {
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    ours.write_all("for nobody".into()).await.unwrap();
    theirs.write_all(wire(&[HEADER, "na"]).into()).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(ours.read_chunk().await, Err(StreamError::ProtocolNotSupported)));
        assert!(matches!(ours.write_all("x".into()).await, Err(StreamError::ProtocolNotSupported)));
        assert!(matches!(ours.flush().await, Err(StreamError::ProtocolNotSupported)));
        assert!(matches!(ours.close_write().await, Err(StreamError::ProtocolNotSupported)));
    }
    assert!(!ours.is_confirmed());
    assert!(ours.into_inner_parts().await.is_err());
}

#[tokio::test]
async fn protocol_that_only_sends_can_close_and_drop_the_stream() {
    let (mut ours, theirs) = lazy(WINDOW).await;
    let send = async move {
        ours.write_all("a one-way message".into()).await.unwrap();
        ours.close_write().await.unwrap();
        // Dropped here: what the remote has not sent by now it is told not to send.
    };
    let receive = async {
        tokio::task::yield_now().await;
        let mut theirs = negotiate_inbound(Box::new(theirs), only_echo).await.unwrap();
        let received = read_to_end(&mut theirs).await.unwrap();
        theirs.close_write().await.unwrap();
        received
    };
    let ((), received) = tokio::join!(send, receive);
    assert_eq!(received, b"a one-way message");
}

#[tokio::test]
async fn closing_tells_that_the_remote_does_not_support_the_protocol() {
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    theirs.write_all(wire(&[HEADER, "na"]).into()).await.unwrap();
    assert!(matches!(ours.close_write().await, Err(StreamError::ProtocolNotSupported)));
}

#[tokio::test]
async fn end_follows_the_answer_and_closing_twice_is_closing_once() {
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    assert!(ours.poll_close_write(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(theirs.read_chunk().await.unwrap().unwrap(), wire(&[HEADER, "/echo/1.0.0"]));
    assert!(theirs.poll_read(&mut Context::from_waker(Waker::noop())).is_pending());
    theirs.write_all(wire(&[HEADER, "/echo/1.0.0"]).into()).await.unwrap();
    ours.close_write().await.unwrap();
    assert!(theirs.read_chunk().await.unwrap().is_none());
    ours.close_write().await.unwrap();
    theirs.write_all("answer".into()).await.unwrap();
    assert_eq!(ours.read_chunk().await.unwrap().unwrap(), "answer");
}

#[tokio::test]
async fn reader_is_woken_although_an_abandoned_close_was_polled_after_it() {
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    let woken = std::sync::Arc::new(CountingWaker::default());
    let waker = Waker::from(woken.clone());
    assert!(ours.poll_read(&mut Context::from_waker(&waker)).is_pending());
    assert!(ours.poll_close_write(&mut Context::from_waker(Waker::noop())).is_pending());
    theirs.write_all(wire(&[HEADER, "/echo/1.0.0"]).into()).await.unwrap();
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn closing_is_woken_when_the_reader_has_taken_the_answer() {
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    let woken = std::sync::Arc::new(CountingWaker::default());
    let waker = Waker::from(woken.clone());
    assert!(ours.poll_close_write(&mut Context::from_waker(&waker)).is_pending());
    theirs.write_all(wire(&[HEADER, "/echo/1.0.0"]).into()).await.unwrap();
    assert!(ours.poll_read(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0);
    assert!(matches!(ours.poll_close_write(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))));
}

#[tokio::test]
async fn confirmation_that_is_cancelled_goes_on_where_it_was() {
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    let answer = wire(&[HEADER, "/echo/1.0.0"]);
    for part in answer.chunks(5) {
        assert!(pin!(ours.confirm()).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        theirs.write_all(Bytes::copy_from_slice(part)).await.unwrap();
    }
    ours.confirm().await.unwrap();
    assert_eq!(theirs.unread_chunks().concat(), answer);
}

#[tokio::test]
async fn stream_below_is_given_back_with_what_came_after_the_answer() {
    let (ours, mut theirs) = lazy(WINDOW).await;
    let answer = [&wire(&[HEADER, "/echo/1.0.0"])[..], b"and more"].concat();
    theirs.write_all(answer.into()).await.unwrap();
    let (inner, unread) = ours.into_inner_parts().await.unwrap();
    assert_eq!(unread, "and more");
    assert!(inner.into_any().downcast::<MemoryStream>().is_ok());
}

#[tokio::test]
async fn stream_that_ends_or_is_reset_before_the_answer_fails() {
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    theirs.write_all(wire(&[HEADER]).into()).await.unwrap();
    theirs.close_write().await.unwrap();
    assert!(matches!(ours.read_chunk().await, Err(StreamError::Protocol(_))));
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    theirs.reset(7);
    assert!(matches!(ours.read_chunk().await, Err(StreamError::Reset { code: 7 })));
    let (mut ours, mut theirs) = lazy(WINDOW).await;
    ours.reset(9);
    assert!(matches!(theirs.read_chunk().await, Err(StreamError::Reset { code: 9 })));
}

#[derive(Default)]
struct CountingWaker(std::sync::atomic::AtomicUsize);

impl std::task::Wake for CountingWaker {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

proptest! {
    #[test]
    fn machines_agree_however_the_bytes_are_cut(
        cuts in prop::collection::vec(1usize..30, 1..40),
        names in prop::collection::vec("/[a-z]{1,8}", 1..6),
        supported: prop::sample::Index,
        tail: Vec<u8>,
    ) {
        let protocols: Vec<ProtocolName> = names.iter().map(|name| name.parse().unwrap()).collect();
        let common = supported.get(&protocols);
        let supports = |name: &str| (*common == *name).then(|| common.clone());
        let (mut dialer, mut listener) = (Dialer::new(&protocols), Listener::new());
        let mut cuts = cuts.into_iter().cycle();
        let accepted = loop {
            let mut to_listener = dialer.take_outgoing();
            let mut accepted = None;
            while !to_listener.is_empty() && accepted.is_none() {
                let mut part = to_listener.split_to(cuts.next().unwrap().min(to_listener.len()));
                accepted = listener.receive(&mut part, supports).unwrap();
                prop_assert!(part.is_empty());
            }
            let answer = [&listener.take_outgoing()[..], &tail].concat();
            let tail_bytes = if accepted.is_some() { answer.len() } else { answer.len() - tail.len() };
            let mut to_dialer = Bytes::from(answer).split_to(tail_bytes);
            let mut left = Vec::new();
            let mut dialed = None;
            while !to_dialer.is_empty() {
                let mut part = to_dialer.split_to(cuts.next().unwrap().min(to_dialer.len()));
                if dialed.is_none() {
                    dialed = dialer.receive(&mut part).unwrap();
                }
                left.extend_from_slice(&part);
            }
            prop_assert_eq!(&dialed, &accepted);
            if accepted.is_some() {
                prop_assert_eq!(left, tail);
                break accepted;
            }
        };
        prop_assert_eq!(accepted.as_ref(), Some(common));
    }

    #[test]
    fn nothing_that_a_remote_sends_panics(bytes: Vec<u8>, after_header: bool) {
        let mut input = if after_header { wire(&[HEADER]) } else { Vec::new() };
        input.extend_from_slice(&bytes);
        let mut listener = Listener::new();
        let _ = listener.receive(&mut input.clone().into(), only_echo);
        // At most one answer for each message of two bytes or more.
        prop_assert!(listener.take_outgoing().len() <= 20 + input.len() * 2);
        let _ = Dialer::new(&[ECHO, PING]).receive(&mut input.into());
    }
}

#[test]
fn negotiations_can_run_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    let (ours, theirs) = MemoryStream::pair(1);
    is_send(negotiate_outbound(Box::new(ours), &[]));
    is_send(negotiate_inbound(Box::new(theirs), only_echo));
    let (mut ours, _theirs) = tokio::io::duplex(1);
    is_send(dial_pipe(&mut ours, &[]));
    is_send(accept_pipe(&mut ours, only_echo));
}
