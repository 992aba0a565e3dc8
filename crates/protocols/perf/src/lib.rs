//! `/perf/1.0.0`: how many bytes per second a connection carries, each way. libp2p spec, perf/perf.md.
//!
//! The client writes how many bytes it wants as a big-endian `u64`, then uploads what it likes and closes its half; the
//! server reads to the end and then sends the bytes asked for. Their values mean nothing.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use peerloom_core::{
    ProtocolName, StreamError, StreamExt,
    multistream_select::NegotiatedStream,
    runtime::{Instant, timeout},
};
use peerloom_node::{HandleError, Node, OpenStreamError, StreamTarget};

/// The protocol's name.
pub const PROTOCOL: &str = "/perf/1.0.0";
/// Bytes handed to the stream in one piece.
const CHUNK_LENGTH: usize = 256 * 1024;
/// What the other side has for taking or giving the next bytes.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

static ZEROES: [u8; CHUNK_LENGTH] = [0; CHUNK_LENGTH];

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerfError {
    /// No stream for it.
    #[error(transparent)]
    Open(#[from] OpenStreamError),
    /// The stream broke.
    #[error("perf: {0}")]
    Stream(#[from] StreamError),
    /// The remote sent fewer bytes, or more, than asked for.
    #[error("perf: asked for {asked} bytes and received {received}")]
    WrongLength {
        /// Bytes asked for.
        asked: u64,
        /// Bytes received.
        received: u64,
    },
    /// No byte moved for too long.
    #[error("perf: nothing moved for {} s", STALL_TIMEOUT.as_secs())]
    Stalled,
}

/// How far a measurement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes handed to the stream.
    pub uploaded: u64,
    /// Bytes received.
    pub downloaded: u64,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measurement {
    /// From the first byte written to the remote's first byte, which it sends when it has read everything.
    pub upload: Duration,
    /// From there to the remote's last byte.
    pub download: Duration,
}

/// Uploads and downloads so many bytes on a new stream; `progress` hears of every chunk.
///
/// The time of the upload ends with the remote's first answer, so ask for at least one byte.
pub async fn measure(
    node: &Node,
    target: impl Into<StreamTarget>,
    upload: u64,
    download: u64,
    mut progress: impl FnMut(Progress),
) -> Result<Measurement, PerfError> {
    let mut stream = node.open_stream(target, &[ProtocolName::from_static(PROTOCOL)]).await?;
    let start = Instant::now();
    stream.write_all(Bytes::copy_from_slice(&download.to_be_bytes())).await?;
    let mut uploaded = 0;
    while uploaded < upload {
        uploaded = uploaded.saturating_add(send_chunk(&mut stream, upload.saturating_sub(uploaded)).await?);
        progress(Progress { uploaded, downloaded: 0 });
    }
    stall_limit(stream.close_write()).await?;

    let mut received = 0_u64;
    let mut first = None;
    while let Some(chunk) = stall_limit(stream.read_chunk()).await? {
        first.get_or_insert_with(Instant::now);
        received = received.saturating_add(chunk.len() as u64);
        if received > download {
            break;
        }
        progress(Progress { uploaded, downloaded: received });
    }
    if received != download {
        return Err(PerfError::WrongLength { asked: download, received });
    }
    let end = Instant::now();
    let first = first.unwrap_or(end);
    Ok(Measurement { upload: first.duration_since(start), download: end.duration_since(first) })
}

/// Serves the measurements of other peers.
pub fn serve(node: &Node) -> Result<(), HandleError> {
    node.handle(ProtocolName::from_static(PROTOCOL), |incoming| async move {
        if let Err(error) = answer(incoming.stream).await {
            tracing::debug!(peer = %incoming.connection.peer, %error, "perf stream ended");
        }
    })
}

async fn answer(mut stream: NegotiatedStream) -> Result<(), PerfError> {
    let mut header = BytesMut::with_capacity(size_of::<u64>());
    while let Some(chunk) = stall_limit(stream.read_chunk()).await? {
        let missing = size_of::<u64>().saturating_sub(header.len()).min(chunk.len());
        header.extend_from_slice(chunk.get(..missing).unwrap_or_default());
    }
    let Ok(mut wanted) = header.try_get_u64() else {
        return Err(PerfError::WrongLength { asked: size_of::<u64>() as u64, received: header.len() as u64 });
    };
    while wanted > 0 {
        wanted = wanted.saturating_sub(send_chunk(&mut stream, wanted).await?);
    }
    stall_limit(stream.close_write()).await
}

async fn send_chunk(stream: &mut NegotiatedStream, wanted: u64) -> Result<u64, PerfError> {
    let length = usize::try_from(wanted).unwrap_or(CHUNK_LENGTH).min(CHUNK_LENGTH);
    stall_limit(stream.write_all(Bytes::from_static(&ZEROES).slice(..length))).await?;
    Ok(length as u64)
}

async fn stall_limit<T>(operation: impl Future<Output = Result<T, StreamError>>) -> Result<T, PerfError> {
    match timeout(STALL_TIMEOUT, operation).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(PerfError::Stalled),
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::{Keypair, Multiaddr};
    use peerloom_sim::Network;

    use super::*;

    async fn connected() -> (Node, Node) {
        let network = Network::new(Duration::from_millis(10));
        let [server, client] = [(); 2].map(|()| {
            let keypair = Keypair::generate();
            Node::builder(keypair.clone()).transport(network.transport(keypair)).build()
        });
        let address: Multiaddr = server.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0);
        client.dial(address).await.unwrap();
        (server, client)
    }

    #[tokio::test(start_paused = true)]
    async fn both_ways_are_measured_and_progress_ends_at_the_whole() {
        let (server, client) = connected().await;
        serve(&server).unwrap();
        let mut last = None;
        let measured =
            measure(&client, server.peer_id(), 3_000_000, 1_000_001, |progress| last = Some(progress)).await;
        measured.unwrap();
        assert_eq!(last, Some(Progress { uploaded: 3_000_000, downloaded: 1_000_001 }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_sends_too_few_bytes_is_reported() {
        let (server, client) = connected().await;
        server
            .handle(ProtocolName::from_static(PROTOCOL), |mut incoming| async move {
                while let Ok(Some(_)) = incoming.stream.read_chunk().await {}
                let _ = incoming.stream.write_all(Bytes::from_static(b"few")).await;
                let _ = incoming.stream.close_write().await;
            })
            .unwrap();
        let error = measure(&client, server.peer_id(), 10, 10, |_| {}).await.unwrap_err();
        assert!(matches!(error, PerfError::WrongLength { asked: 10, received: 3 }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_nothing_is_given_up() {
        let (server, client) = connected().await;
        let hold = |incoming| async move {
            let _held = incoming;
            std::future::pending().await
        };
        server.handle(ProtocolName::from_static(PROTOCOL), hold).unwrap();
        let error = measure(&client, server.peer_id(), 10_000_000, 1, |_| {}).await.unwrap_err();
        assert!(matches!(error, PerfError::Stalled), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_ends_before_its_header_gets_nothing() {
        let (server, client) = connected().await;
        serve(&server).unwrap();
        let perf = [ProtocolName::from_static(PROTOCOL)];
        let mut stream = client.open_stream(server.peer_id(), &perf).await.unwrap();
        stream.write_all(Bytes::from_static(&[0; 7])).await.unwrap();
        // The reset may come before the end is confirmed.
        let _ = stream.close_write().await;
        stream.read_chunk().await.unwrap_err();
    }
}
