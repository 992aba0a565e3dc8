//! What a native node makes connections of pipes with: Noise or TLS, in a private network or not.

use std::{
    fmt, io,
    sync::{Arc, OnceLock},
};

use bytes::BytesMut;
use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, Multiaddr, Protocol, ProtocolName,
    multistream_select::dial_pipe,
};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::{
    Role,
    pnet::{self, NONCE_LENGTH, PreSharedKey, PrivatePipe},
    tls::{self, KeyExchange, TlsIdentity},
    upgrade::{
        Negotiable, Pipe, SECURITY_STEP, Secured, accept_security, negotiable, negotiation_failed,
        noise_inbound, noise_outbound,
    },
};

const NOISE: ProtocolName = ProtocolName::from_static("/noise");
const TLS: ProtocolName = ProtocolName::from_static(tls::PROTOCOL);

/// What is read at once of a dialer's first bytes, at most.
const FIRST_READ: usize = 4 * 1024;

/// A protocol that secures byte pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// Noise XX.
    Noise,
    /// TLS 1.3.
    Tls,
}

/// Makes connections of byte pipes: secures them with Noise or TLS and multiplexes them with Yamux. Clones share what was
/// computed once.
#[derive(Clone)]
pub struct Upgrader {
    identity: Keypair,
    /// Otherwise both.
    only: Option<Security>,
    private_network: Option<PreSharedKey>,
    key_exchange: KeyExchange,
    tls: Arc<OnceLock<Tls>>,
}

struct Tls {
    identity: TlsIdentity,
    server: Arc<ServerConfig>,
}

impl Upgrader {
    /// Proves `identity` to remotes.
    pub fn new(identity: Keypair) -> Self {
        Self {
            identity,
            only: None,
            private_network: None,
            key_exchange: KeyExchange::default(),
            tls: Arc::new(OnceLock::new()),
        }
    }

    /// Talks only to nodes that have the same key. See [`pnet`].
    pub fn with_private_network(mut self, key: PreSharedKey) -> Self {
        self.private_network = Some(key);
        self
    }

    /// Speaks this security protocol and no other. By default, listeners take both, and dialers prefer Noise.
    pub fn with_security(mut self, security: Security) -> Self {
        self.only = Some(security);
        self
    }

    /// Finds a common secret in this way where TLS is spoken.
    pub fn with_key_exchange(mut self, key_exchange: KeyExchange) -> Self {
        self.key_exchange = key_exchange;
        // What clones have made already is of the other kind.
        self.tls = Arc::new(OnceLock::new());
        self
    }

    /// Connects to `address` through a pipe that `connect` opens. If the address ends in `/p2p/<peer id>`, the remote must
    /// prove to be that peer, and otherwise does not learn who we are.
    ///
    /// An address that names its security, `…/noise/p2p/…` or `…/tls/p2p/…`, is taken at its word. Otherwise Noise is
    /// proposed and its first message sent along, which costs no round trip; whoever refuses is asked for TLS on a second
    /// pipe, for the first is of no more use.
    pub async fn dial<IO, C>(
        &self,
        address: Multiaddr,
        connect: impl Fn() -> C,
    ) -> Result<Box<dyn Connection>, DialError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C: Future<Output = io::Result<IO>>,
    {
        let unreachable =
            |error: io::Error| DialError::Unreachable { address: address.clone(), reason: error.to_string() };
        let named = named_security(&address);
        if let Some(named) = named
            && !self.speaks(named)
        {
            let source = HandshakeError::NoCommonProtocol { step: SECURITY_STEP };
            return Err(DialError::Handshake { address, source });
        }
        let io = connect().await.map_err(unreachable)?;
        let mut secured = self.secure_outbound(io, named, &address).await;
        if let Err(refusal) = &secured
            && named.or(self.only).is_none()
            && is_refusal(refusal)
        {
            let io = connect().await.map_err(unreachable)?;
            match self.propose_tls(io, &address).await {
                // Nothing came of that either: the first refusal says more.
                Err(error) if is_refusal(&error) => {}
                second => secured = second,
            }
        }
        let connection = match secured {
            Ok(secured) => secured.multiplex(Role::Initiator, address.clone()).await,
            Err(error) => Err(self.explain(error)),
        };
        connection.map_err(|source| DialError::Handshake { address, source })
    }

    /// Makes a connection of a pipe that a remote opened. `remote_address` is where it comes from.
    ///
    /// Whether it negotiates the security or begins with Noise or TLS right away is seen by its first bytes. The caller sets
    /// the deadline; dropping the future drops the pipe.
    pub async fn accept<IO>(
        &self,
        io: IO,
        remote_address: Multiaddr,
    ) -> Result<Box<dyn Connection>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let secured = self.secure_inbound(io).await.map_err(|error| self.explain(error))?;
        secured.multiplex(Role::Responder, remote_address).await
    }

    async fn secure_outbound<IO>(
        &self,
        io: IO,
        named: Option<Security>,
        address: &Multiaddr,
    ) -> Result<Secured, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match (named, self.only) {
            (Some(Security::Tls), _) => {
                tls::connect(self.privately(io)?, &self.tls()?.identity, address.peer_id()).await
            }
            (None, Some(Security::Tls)) => self.propose_tls(io, address).await,
            (Some(Security::Noise), _) | (None, _) => {
                noise_outbound(self.privately(io)?, &self.identity, address, named.is_none()).await
            }
        }
    }

    async fn propose_tls<IO>(&self, io: IO, address: &Multiaddr) -> Result<Secured, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut io = self.privately(io)?;
        dial_pipe(&mut io, &[TLS]).await.map_err(negotiation_failed)?;
        tls::connect(io, &self.tls()?.identity, address.peer_id()).await
    }

    async fn secure_inbound<IO>(&self, io: IO) -> Result<Secured, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut io = self.privately(io)?;
        let mut first = BytesMut::with_capacity(FIRST_READ);
        let opening = loop {
            if io.read_buf(&mut first).await.map_err(lost)? == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Some(known) = Opening::of(&first)? {
                break known;
            }
        };
        let mut io = negotiable(first.freeze(), io);
        match opening {
            Opening::Security(named) if !self.speaks(named) => {
                Err(HandshakeError::NoCommonProtocol { step: SECURITY_STEP })
            }
            Opening::Security(Security::Noise) => noise_inbound(io, &self.identity).await,
            Opening::Security(Security::Tls) => self.tls_inbound(io).await,
            Opening::Negotiation => {
                let supports = |name: &str| {
                    let known = [(Security::Noise, NOISE), (Security::Tls, TLS)].into_iter();
                    known
                        .filter(|(security, _)| self.speaks(*security))
                        .map(|(_, protocol)| protocol)
                        .find(|protocol| protocol.as_str() == name)
                };
                if accept_security(&mut io, supports).await? == TLS {
                    self.tls_inbound(io).await
                } else {
                    noise_inbound(io, &self.identity).await
                }
            }
        }
    }

    fn speaks(&self, security: Security) -> bool {
        self.only.is_none_or(|only| only == security)
    }

    async fn tls_inbound(&self, io: Negotiable) -> Result<Secured, HandshakeError> {
        tls::accept(io, self.tls()?.server.clone()).await
    }

    /// Made when it is needed first: signing a certificate takes as long as a handshake.
    fn tls(&self) -> Result<&Tls, HandshakeError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls);
        }
        let failed = |error: tls::TlsIdentityError| HandshakeError::Invalid {
            step: tls::STEP,
            reason: error.to_string(),
        };
        let identity = TlsIdentity::new(&self.identity, self.key_exchange).map_err(failed)?;
        let server = Arc::new(identity.server(&tls::MUXER_ALPN));
        Ok(self.tls.get_or_init(|| Tls { identity, server }))
    }

    fn privately<IO>(&self, io: IO) -> Result<Box<dyn Pipe>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(key) = &self.private_network else { return Ok(Box::new(io)) };
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce).map_err(|error| HandshakeError::Invalid {
            step: pnet::STEP,
            reason: format!("no randomness: {error}"),
        })?;
        Ok(Box::new(PrivatePipe::new(io, key, nonce)))
    }

    /// Bytes from outside a private network make no sense; in which way they do not, helps nobody.
    fn explain(&self, error: HandshakeError) -> HandshakeError {
        match error {
            HandshakeError::Invalid { reason, .. } | HandshakeError::Lost { reason, .. }
                if self.private_network.is_some() =>
            {
                let reason = format!("the remote seems to have another key, or none ({reason})");
                HandshakeError::Invalid { step: pnet::STEP, reason }
            }
            other => other,
        }
    }
}

impl fmt::Debug for Upgrader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrader")
            .field("peer", &self.identity.peer_id())
            .field("only", &self.only)
            .field("private_network", &self.private_network)
            .finish_non_exhaustive()
    }
}

/// The security protocol that an address names, `…/tcp/4001/noise/p2p/…`: it needs no negotiation.
fn named_security(address: &Multiaddr) -> Option<Security> {
    match address.without_peer_id().protocols().last() {
        Some(Protocol::Noise) => Some(Security::Noise),
        Some(Protocol::Tls) => Some(Security::Tls),
        _ => None,
    }
}

/// What a dialer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// multistream-select.
    Negotiation,
    /// The first message of Noise XX, which holds an ephemeral key and nothing else; or a TLS record with a ClientHello.
    Security(Security),
}

impl Opening {
    /// `None` while there are too few bytes to know.
    fn of(bytes: &[u8]) -> Result<Option<Self>, HandshakeError> {
        match *bytes {
            // The length of the header and its slash.
            [0x13, b'/', ..] => Ok(Some(Self::Negotiation)),
            [0, 32, ..] => Ok(Some(Self::Security(Security::Noise))),
            // RFC 8446, section 5.1: a handshake record, and the legacy version's first byte.
            [0x16, 3, ..] => Ok(Some(Self::Security(Security::Tls))),
            [] | [0x13 | 0 | 0x16] => Ok(None),
            _ => Err(HandshakeError::Invalid {
                step: SECURITY_STEP,
                reason: "first bytes are neither multistream-select nor Noise nor TLS".to_owned(),
            }),
        }
    }
}

/// The remote answered that it has no Noise, or was confused by the message behind the proposal, as those are that have none.
fn is_refusal(error: &HandshakeError) -> bool {
    matches!(
        error,
        HandshakeError::NoCommonProtocol { step: SECURITY_STEP }
            | HandshakeError::Lost { step: SECURITY_STEP, .. }
    )
}

fn lost(error: io::Error) -> HandshakeError {
    HandshakeError::Lost { step: SECURITY_STEP, reason: error.to_string() }
}
