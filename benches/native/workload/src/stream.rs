//! What one stream carries. It begins with nine bytes, what is wanted and a number:
//!
//! - `u`: the dialer sends to the end; then the listener says how many bytes came, as eight bytes;
//! - `d`: the listener sends for so many milliseconds;
//! - `e`: the listener answers with one byte.
//!
//! All numbers are big-endian.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;

use crate::Stream;

/// Bytes that are handed to a stream at a time.
pub const CHUNK_LENGTH: usize = 64 * 1024;

static ZEROES: [u8; CHUNK_LENGTH] = [0; CHUNK_LENGTH];

const HEADER_LENGTH: usize = 9;

/// Answers one stream of the dialer's.
pub async fn serve(mut stream: impl Stream) -> Result<()> {
    let mut header = Vec::with_capacity(HEADER_LENGTH);
    let mut beyond = 0;
    while header.len() < HEADER_LENGTH {
        let chunk = stream.receive().await?;
        ensure!(!chunk.is_empty(), "a stream ended before its header");
        let missing = (HEADER_LENGTH - header.len()).min(chunk.len());
        header.extend_from_slice(&chunk[..missing]);
        beyond = (chunk.len() - missing) as u64;
    }
    let number = u64::from_be_bytes(header[1..].try_into()?);
    match header[0] {
        b'u' => {
            let received = beyond + drain(&mut stream, None).await?;
            stream.send(Bytes::copy_from_slice(&received.to_be_bytes())).await?;
        }
        b'd' => _ = send_until(&mut stream, Instant::now() + Duration::from_millis(number)).await?,
        b'e' => stream.send(Bytes::from_static(&[1])).await?,
        other => bail!("a stream wants {other}"),
    }
    stream.finish().await
}

/// Sends for so long; returns how many bytes the remote has received.
pub(crate) async fn upload(mut stream: impl Stream, duration: Duration) -> Result<u64> {
    let until = Instant::now() + duration;
    stream.send(header(b'u', 0)).await?;
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

/// Receives for so long, to the end of what the remote sends, or, if `cut`, until the time is over.
pub(crate) async fn download(mut stream: impl Stream, duration: Duration, cut: bool) -> Result<u64> {
    let wanted = if cut { duration * 2 } else { duration };
    stream.send(header(b'd', u64::try_from(wanted.as_millis())?)).await?;
    drain(&mut stream, cut.then(|| Instant::now() + duration)).await
}

/// One byte there and back, on a stream that ends then.
pub(crate) async fn echo(mut stream: impl Stream) -> Result<()> {
    stream.send(header(b'e', 0)).await?;
    stream.finish().await?;
    ensure!(stream.receive().await?.len() == 1, "the answer is one byte");
    Ok(())
}

fn header(what: u8, number: u64) -> Bytes {
    let mut header = vec![what];
    header.extend_from_slice(&number.to_be_bytes());
    header.into()
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
