//! From a pipe to a connection: which protocols, and in which order.
//!
//! ```text
//! multistream-select /noise  →  Noise XX  →  Yamux, if both sides name it in the handshake
//!                                            multistream-select /yamux/1.0.0, then Yamux, otherwise
//! ```

use std::io;

use bytes::Bytes;
use peerloom_core::{
    Connection, HandshakeError, Keypair, Multiaddr, NegotiationError, ProtocolName,
    multistream_select::{Dialer, Listener, accept_pipe},
    runtime::{Instant, MaybeSend},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

use crate::{
    Role,
    connection::MuxedConnection,
    driver::Driver,
    noise::{self, CipherState, Handshake, NoiseExtensions, RemoteIdentity},
    yamux::Session,
};

const NOISE: ProtocolName = ProtocolName::from_static("/noise");
const YAMUX: ProtocolName = ProtocolName::from_static("/yamux/1.0.0");

/// How errors name the negotiations before and after Noise.
const SECURITY_STEP: &str = "multistream-select";
const MUXER_STEP: &str = "muxer negotiation";

/// Holds the messages of the handshake, which come one or two at a time.
const HANDSHAKE_BUFFER: usize = 4 * 1024;

/// An ordered byte pipe in both directions.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Unpin + MaybeSend {}
impl<IO: AsyncRead + AsyncWrite + Unpin + MaybeSend> Pipe for IO {}

/// Makes a connection of a pipe that we opened. If `remote_address` ends in `/p2p/<peer id>`, the remote must prove to be
/// that peer, and otherwise does not learn who we are.
///
/// Takes one round trip. A remote that turns out not to have Yamux is an error of the connection. The caller sets the
/// deadline; dropping the future drops the pipe.
pub async fn upgrade_outbound<IO>(
    io: IO,
    identity: &Keypair,
    remote_address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + MaybeSend + 'static,
{
    upgrade(Box::new(io), Role::Initiator, identity, remote_address).await
}

/// Makes a connection of a pipe that a remote opened. `remote_address` is where it comes from.
///
/// The caller sets the deadline; dropping the future drops the pipe.
pub async fn upgrade_inbound<IO>(
    io: IO,
    identity: &Keypair,
    remote_address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + MaybeSend + 'static,
{
    upgrade(Box::new(io), Role::Responder, identity, remote_address).await
}

async fn upgrade(
    io: Box<dyn Pipe>,
    role: Role,
    identity: &Keypair,
    remote_address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let mut io = BufReader::with_capacity(HANDSHAKE_BUFFER, io);
    let extensions = NoiseExtensions { stream_muxers: vec![YAMUX], ..NoiseExtensions::default() };
    let handshake = Handshake::new(role, identity, b"", &extensions, noise::randomness()?)?;
    let (expected, negotiation) = match role {
        // With one proposal there is nothing to wait for: the first Noise message goes with it. Listeners read exactly
        // the messages of the negotiation, as rust-libp2p's dialers, which do the same, have always expected of them.
        Role::Initiator => (remote_address.peer_id(), Some(Dialer::new(&[NOISE]))),
        Role::Responder => {
            let supports = |name: &str| (name == NOISE.as_str()).then_some(NOISE);
            accept_pipe(&mut io, supports).await.map_err(negotiation_failed)?;
            (None, None)
        }
    };
    let (remote, (sealing, opening)) = noise::run(&mut io, handshake, negotiation, expected).await?;
    let mut secured = Secured { io, sealing, opening };
    let muxer = match negotiate_early(&remote)? {
        Some(muxer) => muxer,
        None if role == Role::Initiator => Muxer::Proposed(Dialer::new(&[YAMUX])),
        None => accept_muxer(&mut secured).await?,
    };

    let Secured { io, sealing, opening } = secured;
    let session = Session::new(role, Instant::now());
    let (connection, shared) = MuxedConnection::new(session, remote, remote_address.without_peer_id());
    let sealed = io.buffer().to_vec();
    let driver = Driver::new(io.into_inner(), sealing, opening, shared, &sealed, muxer);
    Ok(Box::new(connection.driven_by(driver.run())))
}

/// How far Yamux was negotiated before the driver starts.
pub(crate) enum Muxer {
    /// Agreed on. This plaintext has come after that.
    Agreed(Bytes),
    /// The proposal is to be sent; with nothing else to propose, streams need not wait for the answer.
    Proposed(Dialer),
}

/// connections/inlined-muxer-negotiation.md, "Multiplexer Negotiation over Noise". We have one muxer, so it is that one or
/// none; unless the remote does not negotiate early.
fn negotiate_early(remote: &RemoteIdentity) -> Result<Option<Muxer>, HandshakeError> {
    let theirs = &remote.extensions.stream_muxers;
    if theirs.contains(&YAMUX) {
        Ok(Some(Muxer::Agreed(Bytes::new())))
    } else if theirs.is_empty() {
        Ok(None)
    } else {
        Err(HandshakeError::NoCommonProtocol { step: MUXER_STEP })
    }
}

async fn accept_muxer(io: &mut Secured) -> Result<Muxer, HandshakeError> {
    let mut listener = Listener::new();
    let supports = |name: &str| (name == YAMUX.as_str()).then_some(YAMUX);
    loop {
        let mut input = io.read().await?;
        let accepted = listener.receive(&mut input, supports).map_err(|error| describe(MUXER_STEP, error))?;
        io.write(&listener.take_outgoing()).await?;
        if accepted.is_some() {
            return Ok(Muxer::Agreed(input));
        }
    }
}

/// A pipe with the ciphers of its Noise handshake, for the few messages before the driver takes over.
struct Secured {
    io: BufReader<Box<dyn Pipe>>,
    sealing: CipherState,
    opening: CipherState,
}

impl Secured {
    async fn write(&mut self, plaintext: &[u8]) -> Result<(), HandshakeError> {
        if plaintext.is_empty() {
            return Ok(());
        }
        let mut frame = Vec::new();
        noise::seal_frame(&mut self.sealing, &mut frame, |frame| frame.extend_from_slice(plaintext))?;
        self.io.write_all(&frame).await.map_err(lost)?;
        self.io.flush().await.map_err(lost)
    }

    async fn read(&mut self) -> Result<Bytes, HandshakeError> {
        let length = usize::from(self.io.read_u16().await.map_err(lost)?);
        let mut frame = vec![0; length];
        self.io.read_exact(&mut frame).await.map_err(lost)?;
        Ok(self.opening.open(b"", &frame)?.into())
    }
}

pub(crate) fn negotiation_failed(error: NegotiationError) -> HandshakeError {
    describe(SECURITY_STEP, error)
}

fn describe(step: &'static str, error: NegotiationError) -> HandshakeError {
    match error {
        NegotiationError::NoCommonProtocol => HandshakeError::NoCommonProtocol { step },
        NegotiationError::UnexpectedEnd | NegotiationError::Stream(_) | NegotiationError::Io(_) => {
            HandshakeError::Lost { step, reason: error.to_string() }
        }
        _ => HandshakeError::Invalid { step, reason: error.to_string() },
    }
}

fn lost(error: io::Error) -> HandshakeError {
    HandshakeError::Lost { step: MUXER_STEP, reason: error.to_string() }
}
