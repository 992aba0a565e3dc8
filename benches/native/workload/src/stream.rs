//! What one stream carries. It begins with nine bytes, what is wanted and a number, which the listener answers with one
//! byte:
//!
//! - `u`: then the dialer sends to the end, and the listener says how many bytes came, as eight bytes;
//! - `d`: then the dialer says one byte, and the listener sends for so many milliseconds;
//! - `e`: that was all.
//!
//! All numbers are big-endian.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;

use crate::{Connection, Stream};

/// Bytes that are handed to a stream at a time.
pub const CHUNK_LENGTH: usize = 64 * 1024;

const ONE: Bytes = Bytes::from_static(&[1]);

static ZEROES: [u8; CHUNK_LENGTH] = [0; CHUNK_LENGTH];

const HEADER_LENGTH: usize = 9;

/// How often a stream is opened until it is answered: libp2p-stream drops streams that come faster than they are accepted.
const ATTEMPTS: usize = 20;

/// Answers one stream of the dialer's.
pub async fn serve(mut stream: impl Stream) -> Result<()> {
    let mut header = Vec::with_capacity(HEADER_LENGTH);
    while header.len() < HEADER_LENGTH {
        let chunk = stream.receive().await?;
        ensure!(!chunk.is_empty(), "a stream ended before its header");
        header.extend_from_slice(chunk);
    }
    ensure!(header.len() == HEADER_LENGTH, "a dialer does not wait for its answer");
    let number = u64::from_be_bytes(header[1..].try_into()?);
    stream.send(ONE).await?;
    match header[0] {
        b'u' => {
            let received = drain(&mut stream, None).await?;
            stream.send(Bytes::copy_from_slice(&received.to_be_bytes())).await?;
        }
        b'd' => {
            ensure!(!stream.receive().await?.is_empty(), "a stream ended before it was used");
            send_until(&mut stream, Instant::now() + Duration::from_millis(number)).await?;
        }
        b'e' => {}
        other => bail!("a stream wants {other}"),
    }
    stream.finish().await
}

/// What is to be done on a stream.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Upload,
    Download(Duration),
    Echo,
}

/// Opens a stream for that; the listener has answered. This alone is what an echo is.
pub(crate) async fn open<C: Connection>(connection: &C, wanted: Wanted) -> Result<C::Stream> {
    let (what, number) = match wanted {
        Wanted::Upload => (b'u', 0),
        Wanted::Download(duration) => (b'd', u64::try_from(duration.as_millis())?),
        Wanted::Echo => (b'e', 0),
    };
    let mut header = vec![what];
    header.extend_from_slice(&number.to_be_bytes());
    let header = Bytes::from(header);
    let attempt = async || {
        let mut stream = connection.open().await?;
        stream.send(header.clone()).await?;
        ensure!(stream.receive().await?.len() == 1, "the answer is one byte");
        anyhow::Ok(stream)
    };
    for _ in 1..ATTEMPTS {
        if let Ok(stream) = attempt().await {
            return Ok(stream);
        }
    }
    attempt().await
}

/// Sends for so long; returns how many bytes the remote has received.
pub(crate) async fn upload(mut stream: impl Stream, duration: Duration) -> Result<u64> {
    let until = Instant::now() + duration;
    let sent = send_until(&mut stream, until).await?;
    stream.finish().await?;
    let mut answer = Vec::new();
    while answer.len() < size_of::<u64>() {
        let chunk = stream.receive().await?;
        ensure!(!chunk.is_empty(), "the stream ended before its answer");
        answer.extend_from_slice(chunk);
    }
    let received = u64::from_be_bytes(answer.as_slice().try_into().context("an answer of eight bytes")?);
    ensure!(sent == received, "{sent} bytes were sent and {received} received");
    Ok(received)
}

/// Receives to the end of what the remote sends, or until then.
pub(crate) async fn download(mut stream: impl Stream, until: Option<Instant>) -> Result<u64> {
    stream.send(ONE).await?;
    drain(&mut stream, until).await
}

async fn send_until(stream: &mut impl Stream, until: Instant) -> Result<u64> {
    let mut sent = 0;
    while Instant::now() < until {
        stream.send(Bytes::from_static(&ZEROES)).await?;
        sent += CHUNK_LENGTH as u64;
    }
    Ok(sent)
}

async fn drain(stream: &mut impl Stream, until: Option<Instant>) -> Result<u64> {
    let mut received = 0;
    loop {
        let next = stream.receive();
        let chunk = match until {
            Some(until) => match tokio::time::timeout_at(until.into(), next).await {
                Ok(chunk) => chunk?,
                Err(_) => return Ok(received),
            },
            None => next.await?,
        };
        if chunk.is_empty() {
            return Ok(received);
        }
        received += chunk.len() as u64;
    }
}
