//! `/echo/1.0.0`: what comes in goes out. `/peerloom/echo-digest/1.0.0` does the same and, once the remote has closed its
//! half, adds the SHA-256 of what was received: so a file sent there and back is hashed at both ends.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use peerloom_core::{ProtocolName, StreamError, StreamExt, multistream_select::NegotiatedStream};
use peerloom_node::{HandleError, Node};

pub(crate) const ECHO: &str = "/echo/1.0.0";
pub(crate) const ECHO_DIGEST: &str = "/peerloom/echo-digest/1.0.0";

pub(crate) fn serve(node: &Node) -> Result<(), HandleError> {
    for (protocol, with_digest) in [(ECHO, false), (ECHO_DIGEST, true)] {
        node.handle(ProtocolName::from_static(protocol), move |incoming| async move {
            if let Err(error) = echo(incoming.stream, with_digest).await {
                tracing::debug!(peer = %incoming.connection.peer, protocol, %error, "echo ended");
            }
        })?;
    }
    Ok(())
}

async fn echo(mut stream: NegotiatedStream, with_digest: bool) -> Result<(), StreamError> {
    let mut digest = with_digest.then(|| Context::new(&SHA256));
    while let Some(chunk) = stream.read_chunk().await? {
        if let Some(digest) = &mut digest {
            digest.update(&chunk);
        }
        stream.write_all(chunk).await?;
    }
    if let Some(digest) = digest {
        stream.write_all(Bytes::copy_from_slice(digest.finish().as_ref())).await?;
    }
    stream.close_write().await
}
