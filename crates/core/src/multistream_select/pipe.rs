//! Negotiation on a bare pipe, such as a TCP connection, before it is secured.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Dialer, Listener, MAX_MESSAGE_BYTES, NegotiationError};
use crate::protocol_name::ProtocolName;

/// Proposes `protocols` on `io` until one is accepted. Reads nothing that comes after the negotiation.
///
/// To save the round trip where there is only one protocol, send [`Dialer::take_outgoing`] together with that protocol's
/// first bytes, and then [`confirm_pipe`] before reading it.
pub async fn dial_pipe<IO>(io: &mut IO, protocols: &[ProtocolName]) -> Result<ProtocolName, NegotiationError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut dialer = Dialer::new(protocols);
    confirm_pipe(io, &mut dialer).await
}

/// Drives `dialer` on `io` up to the end of the negotiation. Reads nothing that comes after it.
pub async fn confirm_pipe<IO>(io: &mut IO, dialer: &mut Dialer) -> Result<ProtocolName, NegotiationError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        write(io, &dialer.take_outgoing()).await?;
        let mut input = read(io, dialer.wants()).await?;
        if let Some(protocol) = dialer.receive(&mut input)? {
            return Ok(protocol);
        }
    }
}

/// Answers proposals on `io` until one is supported. Reads nothing that comes after the negotiation.
pub async fn accept_pipe<IO>(
    io: &mut IO,
    supports: impl Fn(&str) -> Option<ProtocolName>,
) -> Result<ProtocolName, NegotiationError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut listener = Listener::new();
    loop {
        let mut input = match read(io, listener.wants()).await {
            Err(NegotiationError::UnexpectedEnd) => return Err(listener.ended()),
            result => result?,
        };
        let accepted = listener.receive(&mut input, &supports)?;
        write(io, &listener.take_outgoing()).await?;
        if let Some(protocol) = accepted {
            return Ok(protocol);
        }
    }
}

async fn write<IO: AsyncWrite + Unpin>(io: &mut IO, bytes: &[u8]) -> Result<(), NegotiationError> {
    if !bytes.is_empty() {
        io.write_all(bytes).await?;
        io.flush().await?;
    }
    Ok(())
}

/// At least one byte and at most `wants`.
async fn read<IO: AsyncRead + Unpin>(io: &mut IO, wants: usize) -> Result<Bytes, NegotiationError> {
    let mut buffer = [0; MAX_MESSAGE_BYTES];
    let room = buffer.get_mut(..wants).ok_or(NegotiationError::Protocol("message is too long"))?;
    match io.read(room).await? {
        0 => Err(NegotiationError::UnexpectedEnd),
        count => Ok(Bytes::copy_from_slice(room.get(..count).unwrap_or_default())),
    }
}
