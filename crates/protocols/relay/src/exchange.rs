//! One message there and one back, as both protocols begin.

use std::time::Duration;

use bytes::Bytes;
use peerloom_core::{
    framing::{FramingError, MessageStream},
    multistream_select::NegotiatedStream,
    runtime::timeout,
};

use crate::message::MAX_MESSAGE_LENGTH;

/// What the other side has to read an answer that ends the stream.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream of `hop` or `stop` before it is a circuit.
pub(crate) struct Exchange(MessageStream<NegotiatedStream>);

impl Exchange {
    pub(crate) fn new(stream: NegotiatedStream) -> Self {
        Self(MessageStream::new(stream, MAX_MESSAGE_LENGTH))
    }

    /// The next message. A stream that ends instead is an error.
    pub(crate) async fn read(&mut self) -> Result<Bytes, FramingError> {
        self.0.read().await?.ok_or(FramingError::UnexpectedEnd)
    }

    pub(crate) async fn write(&mut self, message: &[u8]) -> Result<(), FramingError> {
        self.0.write(message).await?;
        self.0.flush().await
    }

    /// Says the last word and waits, within a bound, until the remote has closed its half: dropping a stream before tells
    /// the remote to stop sending, upon which Firefox throws away what it has received and not yet read.
    pub(crate) async fn finish(mut self, message: &[u8]) {
        let goodbye = async {
            self.write(message).await?;
            self.0.close_write().await?;
            self.0.read().await
        };
        if let Err(error) = timeout(GOODBYE_TIMEOUT, goodbye).await.unwrap_or(Ok(None)) {
            tracing::trace!(%error, "relay stream ended before its answer was read");
        }
    }

    /// Closes our half: nothing more is asked.
    pub(crate) async fn close(mut self) {
        let _ = timeout(GOODBYE_TIMEOUT, self.0.close_write()).await;
    }

    /// The stream as a circuit, and its first bytes.
    pub(crate) fn into_circuit(self) -> (NegotiatedStream, Bytes) {
        self.0.into_parts()
    }
}
