//! The driver of [`Handshake`]: reads and writes its messages on a pipe, and nothing beyond them.

use std::io;

use peerloom_core::{
    HandshakeError, Keypair, PeerId,
    multistream_select::{Dialer, confirm_pipe},
    runtime::MaybeSend,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    STEP,
    cipher::CipherState,
    error::NoiseError,
    handshake::{Claim, Handshake, MAX_HANDSHAKE_MESSAGE, Randomness, RemoteIdentity},
    payload::NoiseExtensions,
};
use crate::{
    Role,
    upgrade::{Pipe, negotiation_failed},
};

/// Proves to the remote who we are and learns who it is, over a pipe that is already encrypted (WebTransport, WebRTC):
/// the handshake's keys are thrown away.
///
/// Reads no byte beyond the handshake's messages. The caller sets the deadline, compares
/// [`peer_id`](RemoteIdentity::peer_id) with the one it dialed, and on any error drops the connection.
pub async fn authenticate<IO>(
    io: &mut IO,
    role: Role,
    identity: &Keypair,
    prologue: &[u8],
    extensions: NoiseExtensions,
) -> Result<RemoteIdentity, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + MaybeSend,
{
    let handshake = Handshake::new(role, identity, prologue, &extensions, randomness()?)?;
    let (remote, _ciphers) = run(io, handshake, None, None).await?;
    Ok(remote)
}

/// The ciphers for sending and for receiving.
pub(crate) type Ciphers = (CipherState, CipherState);

/// Runs `handshake` to its end. What `negotiation` has to say is sent together with our first message, and its answer read
/// before the remote's. If `expected` is another peer than the one that answers, that one does not learn who we are.
///
/// Not generic over the pipe: the page has one copy of this, not one for each of its transports.
pub(crate) async fn run(
    mut io: &mut dyn Pipe,
    mut handshake: Handshake,
    mut negotiation: Option<Dialer>,
    expected: Option<PeerId>,
) -> Result<(RemoteIdentity, Ciphers), HandshakeError> {
    let mut outgoing = negotiation.as_mut().map_or_else(Vec::new, |dialer| dialer.take_outgoing().to_vec());
    let mut remote = None;
    loop {
        if let Some(message) = handshake.next_message()? {
            outgoing.extend_from_slice(&message);
        }
        if !outgoing.is_empty() {
            io.write_all(&outgoing).await.map_err(lost)?;
            io.flush().await.map_err(lost)?;
            outgoing.clear();
        }
        if let (Some(remote), Ok(ciphers)) = (&remote, handshake.ciphers()) {
            return Ok((RemoteIdentity::clone(remote), ciphers));
        }
        if let Some(mut dialer) = negotiation.take() {
            confirm_pipe(&mut io, &mut dialer).await.map_err(negotiation_failed)?;
        }
        let message = read_message(io).await?;
        if let Some(claim) = handshake.receive(&message)? {
            remote = Some(verify(claim, expected).await?);
        }
    }
}

/// Fresh keys from the operating system or the browser.
pub(crate) fn randomness() -> Result<Randomness, HandshakeError> {
    let mut randomness = Randomness { static_key: [0; 32], ephemeral_key: [0; 32] };
    getrandom::fill(&mut randomness.static_key)
        .and_then(|()| getrandom::fill(&mut randomness.ephemeral_key))
        .map_err(|error| HandshakeError::Invalid { step: STEP, reason: format!("no randomness: {error}") })?;
    Ok(randomness)
}

async fn verify(claim: Claim, expected: Option<PeerId>) -> Result<RemoteIdentity, HandshakeError> {
    let remote = claim.verify().await?;
    match expected {
        Some(expected) if expected != remote.peer_id => {
            Err(HandshakeError::WrongPeer { expected, actual: remote.peer_id })
        }
        _ => Ok(remote),
    }
}

/// noise spec, "Wire Format": a 16-bit length in network order, then the message.
async fn read_message(io: &mut dyn Pipe) -> Result<Vec<u8>, HandshakeError> {
    let length = usize::from(io.read_u16().await.map_err(lost)?);
    if length > MAX_HANDSHAKE_MESSAGE {
        return Err(NoiseError::TooLong { length, limit: MAX_HANDSHAKE_MESSAGE }.into());
    }
    let mut message = vec![0; length];
    io.read_exact(&mut message).await.map_err(lost)?;
    Ok(message)
}

fn lost(error: io::Error) -> HandshakeError {
    HandshakeError::Lost { step: STEP, reason: error.to_string() }
}
