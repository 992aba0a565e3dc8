//! Streams: what they carry and how they end.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use peerloom_core::{Connection, Stream, StreamError, StreamExt as _};

use crate::{Subject, host::Host};

/// What stops a reader that waits for ever: nothing has come for so long.
const QUIET: Duration = Duration::from_millis(500);

/// Bytes come back as they were sent.
pub async fn bytes_echo(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    for length in [1, 1000, 100_000] {
        let sent = content(1, length);
        let echo = async { echo_one(&inbound).await };
        let dialer = async {
            let mut stream = outbound.open_stream().await.unwrap();
            stream.write_all(sent.clone()).await.unwrap();
            stream.close_write().await.unwrap();
            read_all(&mut stream).await
        };
        let (received, ()) = tokio::join!(dialer, echo);
        assert_eq!(received, sent);
    }
}

/// The half that is not closed goes on as if nothing was.
pub async fn half_close_leaves_the_other_half(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    for (opener, acceptor) in [(&outbound, &inbound), (&inbound, &outbound)] {
        let mut stream = opener.open_stream().await.unwrap();
        stream.write_all(Bytes::from_static(b"question")).await.unwrap();
        stream.close_write().await.unwrap();
        stream.close_write().await.unwrap();
        let late = stream.write_all(Bytes::from_static(b"?")).await;
        assert!(matches!(late, Err(StreamError::WriteClosed)), "{late:?}");
        let mut accepted = acceptor.accept_stream().await.unwrap();
        assert_eq!(read_all(&mut accepted).await, b"question");
        assert_eq!(accepted.read_chunk().await.unwrap(), None);
        for _ in 0..3 {
            accepted.write_all(Bytes::from_static(b"answer.")).await.unwrap();
            accepted.flush().await.unwrap();
        }
        accepted.close_write().await.unwrap();
        assert_eq!(read_all(&mut stream).await, b"answer.answer.answer.");
    }
}

/// A stream that carries nothing but its end arrives, too.
pub async fn empty_stream_is_seen_at_its_end(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let mut stream = outbound.open_stream().await.unwrap();
    stream.close_write().await.unwrap();
    let mut accepted = inbound.accept_stream().await.unwrap();
    assert_eq!(accepted.read_chunk().await.unwrap(), None);
    accepted.close_write().await.unwrap();
    assert_eq!(stream.read_chunk().await.unwrap(), None);
}

/// A reset is an error for the remote's reader and writer, not an end.
pub async fn reset_by_the_opener_is_seen(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let (mut stream, mut accepted) = open(&outbound, &inbound).await;
    stream.reset(0);
    assert_reset(&mut stream, &mut accepted).await;
}

/// The same from the other side.
pub async fn reset_by_the_acceptor_is_seen(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let (mut stream, mut accepted) = open(&outbound, &inbound).await;
    accepted.reset(0);
    assert_reset(&mut accepted, &mut stream).await;
}

/// A stream that is dropped before its write half was closed is not mistaken for one that ended.
pub async fn dropped_stream_is_reset(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let (stream, mut accepted) = open(&outbound, &inbound).await;
    drop(stream);
    loop {
        match accepted.read_chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the end of a stream that was dropped"),
            Err(error) => {
                assert!(matches!(error, StreamError::Reset { .. }), "{error:?}");
                break;
            }
        }
    }
    // The connection is none the worse for it.
    open(&outbound, &inbound).await;
}

/// The writer waits when the reader does, having taken no more than some buffers; nothing is lost when it goes on.
pub async fn reader_that_stops_holds_up_the_writer(subject: Subject) {
    const MOST: usize = 32 * 1024 * 1024;
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let mut stream = outbound.open_stream().await.unwrap();
    let chunk = content(1, 64 * 1024);
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(QUIET, write_some(&mut stream, &chunk)).await {
        taken += written;
        assert!(taken < MOST, "nothing holds the writer up");
    }
    let mut accepted = inbound.accept_stream().await.unwrap();
    let (mut received, mut more) = (0, 0);
    let reader = async {
        while let Some(chunk) = accepted.read_chunk().await.unwrap() {
            received += chunk.len();
        }
    };
    let writer = async {
        for _ in 0..10 {
            stream.write_all(chunk.clone()).await.unwrap();
            more += chunk.len();
        }
        stream.close_write().await.unwrap();
    };
    tokio::join!(reader, writer);
    assert_eq!(received, taken + more);
}

/// Streams do not get in each other's way.
pub async fn many_streams_at_once(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let count = subject.streams;
    let echoes = async {
        let mut accepted = Vec::new();
        for _ in 0..count {
            accepted.push(inbound.accept_stream().await.unwrap());
        }
        join_all(accepted.into_iter().map(echo)).await;
    };
    let dialers = join_all((0..count).map(|number| {
        let outbound = outbound.clone();
        async move {
            let sent = content(number, 1000 + number);
            let mut stream = outbound.open_stream().await.unwrap();
            stream.write_all(sent.clone()).await.unwrap();
            stream.close_write().await.unwrap();
            assert!(read_all(&mut stream).await == sent, "stream {number}");
        }
    }));
    tokio::join!(dialers, echoes);
}

/// A lot of bytes in both directions of one stream at the same time.
pub async fn ten_mebibytes_both_ways_at_once(subject: Subject) {
    const LENGTH: usize = 10 * 1024 * 1024;
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let sent = content(3, LENGTH);
    let echoes = async { echo_one(&inbound).await };
    let dialer = async {
        let mut stream = outbound.open_stream().await.unwrap();
        let mut unsent = sent.clone();
        let mut received = Vec::with_capacity(LENGTH);
        // Reading and writing by turns in one task: neither may depend on the other being done first.
        let mut closed = false;
        loop {
            let chunk = std::future::poll_fn(|cx| {
                while !unsent.is_empty() {
                    match stream.poll_write(cx, &mut unsent) {
                        std::task::Poll::Ready(result) => result.unwrap(),
                        std::task::Poll::Pending => break,
                    }
                }
                if unsent.is_empty() && !closed {
                    closed = stream.poll_close_write(cx).map(Result::unwrap).is_ready();
                }
                stream.poll_read(cx)
            });
            match chunk.await.unwrap() {
                Some(chunk) => received.extend_from_slice(&chunk),
                None => return received,
            }
        }
    };
    let (received, ()) = tokio::join!(dialer, echoes);
    assert!(received == sent);
}

/// Boundaries of writes mean nothing, their order everything.
pub async fn many_small_writes_arrive_in_order(subject: Subject) {
    let mut host = Host::new(&subject).await;
    let (outbound, inbound) = host.connect().await;
    let sent = content(5, 20_000);
    let mut stream = outbound.open_stream().await.unwrap();
    let writer = async {
        for (number, chunk) in sent.chunks(7).enumerate() {
            stream.write_all(Bytes::copy_from_slice(chunk)).await.unwrap();
            if number % 100 == 0 {
                stream.flush().await.unwrap();
            }
        }
        stream.close_write().await.unwrap();
    };
    let reader = async { read_all(&mut inbound.accept_stream().await.unwrap()).await };
    let ((), received) = tokio::join!(writer, reader);
    assert_eq!(received, sent);
}

type OneStream = Box<dyn Stream>;

/// Bytes that tell one stream and one position from another.
fn content(stream: usize, length: usize) -> Bytes {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16) ^ stream) as u8).collect()
}

/// A stream that both sides know of.
async fn open(opener: &Arc<dyn Connection>, acceptor: &Arc<dyn Connection>) -> (OneStream, OneStream) {
    let mut stream = opener.open_stream().await.unwrap();
    stream.write_all(Bytes::from_static(b"hello")).await.unwrap();
    let mut accepted = acceptor.accept_stream().await.unwrap();
    assert_eq!(accepted.read_chunk().await.unwrap().unwrap(), "hello");
    (stream, accepted)
}

async fn assert_reset(by: &mut OneStream, seen: &mut OneStream) {
    let is_reset = |error: &StreamError| matches!(error, StreamError::Reset { .. });
    assert!(is_reset(&by.read_chunk().await.unwrap_err()));
    assert!(is_reset(&by.write_all(Bytes::from_static(b"?")).await.unwrap_err()));
    let error = seen.read_chunk().await.unwrap_err();
    assert!(is_reset(&error), "{error:?}");
    // Where each half has its own reset, that of the other half may still be on its way.
    let error = loop {
        if let Err(error) = seen.write_all(Bytes::from_static(b"?")).await {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(is_reset(&error), "{error:?}");
}

async fn read_all(stream: &mut OneStream) -> Vec<u8> {
    let mut received = Vec::new();
    while let Some(chunk) = stream.read_chunk().await.unwrap() {
        assert!(!chunk.is_empty());
        received.extend_from_slice(&chunk);
    }
    received
}

/// How much of `data` the stream takes in one go.
async fn write_some(stream: &mut OneStream, data: &Bytes) -> usize {
    let mut rest = data.clone();
    std::future::poll_fn(|cx| stream.poll_write(cx, &mut rest)).await.unwrap();
    data.len() - rest.len()
}

async fn echo_one(connection: &Arc<dyn Connection>) {
    echo(connection.accept_stream().await.unwrap()).await;
}

async fn echo(mut stream: OneStream) {
    while let Some(chunk) = stream.read_chunk().await.unwrap() {
        stream.write_all(chunk).await.unwrap();
    }
    stream.close_write().await.unwrap();
}
