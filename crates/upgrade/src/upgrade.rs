//! From a pipe to a connection: which protocols, and in which order.
//!
//! ```text
//! multistream-select, unless the address names the security  →  Noise XX, or TLS 1.3
//!   →  Yamux, if both sides name it in the handshake; otherwise multistream-select /yamux/1.0.0, then Yamux
//! ```

use std::io;

use bytes::{Bytes, BytesMut};
use peerloom_core::{
    Connection, HandshakeError, Keypair, Multiaddr, NegotiationError, Prefixed, ProtocolName,
    multistream_select::{Dialer, Listener, accept_pipe},
    runtime::{Instant, MaybeSend},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

use crate::{
    Role,
    connection::MuxedConnection,
    driver::Driver,
    noise::{self, Handshake, NoiseExtensions, RemoteIdentity},
    plaintexts::Plaintexts,
    protection::Protection,
    yamux::Session,
};

const NOISE: ProtocolName = ProtocolName::from_static("/noise");
const YAMUX: ProtocolName = ProtocolName::from_static("/yamux/1.0.0");

/// How errors name the negotiations before and after the handshake.
pub(crate) const SECURITY_STEP: &str = "multistream-select";
const MUXER_STEP: &str = "muxer negotiation";

/// Holds the messages of the handshake, which come one or two at a time.
const HANDSHAKE_BUFFER: usize = 4 * 1024;

/// An ordered byte pipe in both directions.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Unpin + MaybeSend {}
impl<IO: AsyncRead + AsyncWrite + Unpin + MaybeSend> Pipe for IO {}

/// Makes a connection of a pipe that we opened, with Noise. If `remote_address` ends in `/p2p/<peer id>`, the remote must
/// prove to be that peer, and otherwise does not learn who we are.
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
    let secured = noise_outbound(Box::new(io), identity, &remote_address, true).await?;
    secured.multiplex(Role::Initiator, remote_address).await
}

/// Makes a connection of a pipe that a remote opened, with Noise. `remote_address` is where it comes from.
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
    let mut io = negotiable(Bytes::new(), Box::new(io));
    accept_security(&mut io, |name| (name == NOISE.as_str()).then_some(NOISE)).await?;
    noise_inbound(io, identity).await?.multiplex(Role::Responder, remote_address).await
}

/// A pipe that is read in small pieces for as long as protocols are negotiated on it.
pub(crate) type Negotiable = BufReader<Prefixed<Box<dyn Pipe>>>;

/// `read` has been read from `io` already.
pub(crate) fn negotiable(read: Bytes, io: Box<dyn Pipe>) -> Negotiable {
    BufReader::with_capacity(HANDSHAKE_BUFFER, Prefixed::new(read, io))
}

/// What was read but not used, and the pipe.
pub(crate) fn into_unread(io: Negotiable) -> (BytesMut, Box<dyn Pipe>) {
    let mut unread = BytesMut::from(io.buffer());
    let (rest, io) = io.into_inner().into_parts();
    unread.extend_from_slice(&rest);
    (unread, io)
}

/// Listeners read exactly the messages of the negotiation: dialers that have only one proposal have always sent their first
/// handshake message with it.
pub(crate) async fn accept_security(
    io: &mut Negotiable,
    supports: impl Fn(&str) -> Option<ProtocolName>,
) -> Result<ProtocolName, HandshakeError> {
    accept_pipe(io, supports).await.map_err(negotiation_failed)
}

/// `propose`: the remote is to be asked whether it wants Noise. With one proposal there is nothing to wait for: the first
/// message goes with it.
pub(crate) async fn noise_outbound(
    io: Box<dyn Pipe>,
    identity: &Keypair,
    remote_address: &Multiaddr,
    propose: bool,
) -> Result<Secured, HandshakeError> {
    let negotiation = propose.then(|| Dialer::new(&[NOISE]));
    let io = negotiable(Bytes::new(), io);
    run_noise(io, Role::Initiator, identity, negotiation, remote_address).await
}

pub(crate) async fn noise_inbound(io: Negotiable, identity: &Keypair) -> Result<Secured, HandshakeError> {
    run_noise(io, Role::Responder, identity, None, &Multiaddr::empty()).await
}

async fn run_noise(
    mut io: Negotiable,
    role: Role,
    identity: &Keypair,
    negotiation: Option<Dialer>,
    remote_address: &Multiaddr,
) -> Result<Secured, HandshakeError> {
    let extensions = NoiseExtensions { stream_muxers: vec![YAMUX], ..NoiseExtensions::default() };
    let handshake = Handshake::new(role, identity, b"", &extensions, noise::randomness()?)?;
    let (remote, (sealing, opening)) =
        noise::run(&mut io, handshake, negotiation, remote_address.peer_id()).await?;
    let muxer_agreed = negotiate_early(&remote)?;
    let (input, io) = into_unread(io);
    Ok(Secured { io, input, protection: Protection::Noise { sealing, opening }, remote, muxer_agreed })
}

/// connections/inlined-muxer-negotiation.md, "Multiplexer Negotiation over Noise". We have one muxer, so it is that one or
/// none; unless the remote does not negotiate early: then false.
fn negotiate_early(remote: &RemoteIdentity) -> Result<bool, HandshakeError> {
    let theirs = &remote.extensions.stream_muxers;
    if theirs.is_empty() || theirs.contains(&YAMUX) {
        Ok(!theirs.is_empty())
    } else {
        Err(HandshakeError::NoCommonProtocol { step: MUXER_STEP })
    }
}

/// How far Yamux was negotiated before the driver starts.
pub(crate) enum Muxer {
    /// Agreed on. This plaintext has come after that.
    Agreed(Bytes),
    /// The proposal is to be sent; with nothing else to propose, streams need not wait for the answer.
    Proposed(Dialer),
}

/// A pipe whose remote has proved who it is.
pub(crate) struct Secured {
    pub(crate) io: Box<dyn Pipe>,
    /// Read, but not opened.
    pub(crate) input: BytesMut,
    pub(crate) protection: Protection,
    pub(crate) remote: RemoteIdentity,
    /// The handshake has settled that it is Yamux.
    pub(crate) muxer_agreed: bool,
}

impl Secured {
    pub(crate) async fn multiplex(
        mut self,
        role: Role,
        remote_address: Multiaddr,
    ) -> Result<Box<dyn Connection>, HandshakeError> {
        let muxer = match role {
            _ if self.muxer_agreed => Muxer::Agreed(Bytes::new()),
            Role::Initiator => Muxer::Proposed(Dialer::new(&[YAMUX])),
            Role::Responder => self.accept_muxer().await?,
        };
        let session = Session::new(role, Instant::now());
        let (connection, shared) =
            MuxedConnection::new(session, self.remote, remote_address.without_peer_id());
        let driver = Driver::new(self.io, self.protection, shared, self.input, muxer);
        Ok(Box::new(connection.driven_by(driver.run())))
    }

    async fn accept_muxer(&mut self) -> Result<Muxer, HandshakeError> {
        let mut listener = Listener::new();
        let supports = |name: &str| (name == YAMUX.as_str()).then_some(YAMUX);
        loop {
            let mut input = self.read().await?;
            let accepted =
                listener.receive(&mut input, supports).map_err(|error| describe(MUXER_STEP, error))?;
            self.write(&listener.take_outgoing()).await?;
            if accepted.is_some() {
                return Ok(Muxer::Agreed(input));
            }
        }
    }

    async fn write(&mut self, plaintext: &[u8]) -> Result<(), HandshakeError> {
        let mut message = Vec::new();
        if self.protection.seal(&mut message, |message| message.extend_from_slice(plaintext))? {
            self.io.write_all(&message).await.map_err(lost)?;
            self.io.flush().await.map_err(lost)?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<Bytes, HandshakeError> {
        loop {
            if let Some(plaintext) = self.protection.open(&mut self.input, &mut Plaintexts::default())? {
                return Ok(plaintext);
            }
            self.input.reserve(HANDSHAKE_BUFFER);
            if self.io.read_buf(&mut self.input).await.map_err(lost)? == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
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
