//! One client's control connection: a request, its answer, and so on, until the client has gone or the socket is a stream.

use std::{future::poll_fn, io, sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    Multiaddr, NegotiatedStream, PeerId, ProtocolName,
    framing::{FramingError, MessageDecoder},
    runtime::{Instant, timeout},
};
use peerloom_node::{ConnectError, ConnectionInfo, Node, Tag};

use super::{
    handlers::Handlers,
    pipe::pipe,
    protocol::{MAX_REQUEST_LENGTH, PeerInfo, Request, RequestError, Response, StreamInfo},
    socket::Socket,
};

/// What a client that is refused has to read why, before its socket is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What all clients have in common.
pub(super) struct Daemon {
    pub(super) node: Node,
    pub(super) handlers: Arc<Handlers>,
    /// Connections that are left when they are trimmed.
    pub(super) trim_to: usize,
}

/// Why a control connection ends before the client has closed it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the client went before it was answered")]
    Gone,
}

impl Daemon {
    /// Serves a client for as long as it stays.
    pub(super) async fn serve(&self, socket: Socket) -> Result<(), ControlError> {
        let mut requests =
            Requests { decoder: MessageDecoder::new(MAX_REQUEST_LENGTH), unread: Bytes::new() };
        loop {
            let message = match requests.next(&socket).await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(error) => return Err(refuse(socket, error).await),
            };
            let request = match Request::decode(message) {
                Err(error) if error.is_foreign() => return Err(refuse(socket, error.into()).await),
                request => request,
            };
            tracing::debug!(?request, "a client asks");
            let answer = async {
                match request {
                    Ok(Request::OpenStream { peer, protocols, timeout }) => {
                        match self.open_stream(peer, &protocols, timeout).await {
                            Ok((stream, info)) => (Response::StreamOpened(info), Some(stream)),
                            Err(reason) => (Response::Error(reason), None),
                        }
                    }
                    Ok(request) => (self.answer(request).await, None),
                    Err(error) => (Response::Error(error.to_string()), None),
                }
            };
            // What is under way ends with who asked for it.
            let (response, stream) = tokio::select! {
                answered = answer => answered,
                () = socket.gone() => return Err(ControlError::Gone),
            };
            write(&socket, response.encode()).await?;
            if let Some(stream) = stream {
                // CONTROL.md, "StreamOpen": the socket is the stream from here on.
                pipe(socket, stream, requests.unread).await;
                return Ok(());
            }
        }
    }

    async fn answer(&self, request: Request) -> Response {
        let outcome = match request {
            Request::Identify => return self.identity(),
            Request::ListPeers => return Response::Peers(by_peer(self.node.connections())),
            Request::Connect { peer, addresses, timeout } => self.connect(peer, &addresses, timeout).await,
            Request::Disconnect { peer } => {
                self.node.disconnect(peer).await;
                Ok(())
            }
            Request::HandleStreams { address, protocols } => {
                self.handlers.register(&self.node, &address, &protocols).map_err(|error| error.to_string())
            }
            Request::TagPeer { peer, tag, weight } => {
                let tagged = self.node.peer_store().tag(peer, &tag, Tag::new(weight));
                tagged.map_err(|error| error.to_string())
            }
            Request::UntagPeer { peer, tag } => {
                self.node.peer_store().untag(peer, &tag);
                Ok(())
            }
            Request::TrimConnections => {
                self.node.trim_connections(self.trim_to).await;
                Ok(())
            }
            Request::PeerProtocols { peer } => match self.node.peer_store().details(peer) {
                Some(details) => return Response::Protocols(details.protocols),
                None => Err(unknown(peer)),
            },
            Request::PeerAddresses { peer } => match self.node.peer_store().details(peer) {
                Some(_) => {
                    let addresses = self.node.peer_store().addresses(peer);
                    return Response::Peer(PeerInfo { peer, addresses });
                }
                None => Err(unknown(peer)),
            },
            Request::Unavailable { part } => Err(format!("{part} is not available in this build")),
            // Answered by the stream itself.
            Request::OpenStream { .. } => Ok(()),
        };
        outcome.map_or_else(Response::Error, |()| Response::Done)
    }

    fn identity(&self) -> Response {
        let addresses = self.node.listen_addresses();
        let addresses = addresses.iter().map(Multiaddr::without_peer_id).collect();
        Response::Identity(PeerInfo { peer: self.node.peer_id(), addresses })
    }

    async fn connect(&self, peer: PeerId, addresses: &[Multiaddr], within: Duration) -> Result<(), String> {
        for address in addresses {
            self.node.peer_store().add_address(peer, address);
        }
        self.dial(peer, Instant::now() + within).await
    }

    async fn dial(&self, peer: PeerId, deadline: Instant) -> Result<(), String> {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, self.node.dial(peer)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(match &*error {
                ConnectError::SelfDial => format!("{peer} is this node itself"),
                error => error.to_string(),
            }),
            Err(_) => Err(format!("no connection to {peer} in time")),
        }
    }

    /// A stream, which is known to speak one of the protocols. As in other daemons, relays' limited connections are good enough, and
    /// what is not connected is dialed.
    async fn open_stream(
        &self,
        peer: PeerId,
        protocols: &[ProtocolName],
        within: Duration,
    ) -> Result<(NegotiatedStream, StreamInfo), String> {
        let deadline = Instant::now() + within;
        self.dial(peer, deadline).await?;
        let opening = async {
            let opened = self.node.open_stream_and_tell(peer, protocols, true).await;
            let mut opened = opened.map_err(|error| error.to_string())?;
            // A client cannot tell a refusal from an end, so it is not told that a stream is open before the remote has agreed. That
            // takes a round trip, unless identify has told already what the answer will be.
            if !self.node.peer_store().supports(peer, opened.stream.protocol()) {
                let confirmed = opened.stream.confirm().await;
                confirmed.map_err(|error| format!("{peer}: {}: {error}", opened.stream.protocol()))?;
            }
            Ok(opened)
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let opened = timeout(left, opening).await;
        let opened = opened.unwrap_or_else(|_| Err(format!("{peer} did not answer in time")))?;
        let protocol = opened.stream.protocol().clone();
        let address = opened.connection.remote_address;
        Ok((opened.stream, StreamInfo { peer, address, protocol }))
    }
}

fn unknown(peer: PeerId) -> String {
    format!("nothing is known of {peer}")
}

/// Each peer once, with the addresses of all connections to it.
fn by_peer(mut connections: Vec<ConnectionInfo>) -> Vec<PeerInfo> {
    connections.sort_by_key(|connection| (connection.peer, connection.id));
    let mut peers: Vec<PeerInfo> = Vec::new();
    for connection in connections {
        match peers.last_mut() {
            Some(last) if last.peer == connection.peer => last.addresses.push(connection.remote_address),
            _ => peers.push(PeerInfo { peer: connection.peer, addresses: vec![connection.remote_address] }),
        }
    }
    peers
}

/// The messages that a client sends.
struct Requests {
    decoder: MessageDecoder,
    unread: Bytes,
}

impl Requests {
    /// `None` if the client has ended after the last one.
    async fn next(&mut self, socket: &Socket) -> Result<Option<Bytes>, ControlError> {
        loop {
            if let Some(message) = self.decoder.decode(&mut self.unread)? {
                return Ok(Some(message));
            }
            match poll_fn(|cx| socket.poll_read(cx)).await? {
                Some(bytes) => self.unread = bytes,
                None if self.decoder.is_between_messages() => return Ok(None),
                None => return Err(FramingError::UnexpectedEnd.into()),
            }
        }
    }
}

async fn write(socket: &Socket, mut bytes: Bytes) -> io::Result<()> {
    poll_fn(|cx| socket.poll_write(cx, &mut bytes)).await
}

/// Tells a client what is wrong, and ends.
async fn refuse(socket: Socket, error: ControlError) -> ControlError {
    let say = async {
        write(&socket, Response::Error(error.to_string()).encode()).await?;
        socket.close_write()?;
        // A socket that is closed with something unread takes what was written last with it.
        while poll_fn(|cx| socket.poll_read(cx)).await?.is_some() {}
        io::Result::Ok(())
    };
    // It is no matter whether the client listens.
    let _ = timeout(LAST_WORDS, say).await;
    error
}
