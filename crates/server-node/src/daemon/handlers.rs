//! The protocols that clients handle: a stream that a remote opens for one of them is given to the client that asked for it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use peerloom_core::{ProtocolName, Stream, runtime::timeout};
use peerloom_node::{HandleError, IncomingStream, Node};
use tokio::sync::Semaphore;

use super::{address::LocalAddress, pipe::pipe, protocol::StreamInfo, socket::Socket};

/// Protocols that clients may handle, all clients together. The node has some of its own, and a limit on both.
pub(super) const MAX_HANDLED_PROTOCOLS: usize = 96;
/// Streams given to clients and not yet over. Each is a socket; a further one is reset.
const MAX_HANDLED_STREAMS: usize = 1024;
/// What a client has to accept a connection, and to take what it is told of the stream.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a protocol cannot be given to a client.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegisterError {
    #[error("clients handle {MAX_HANDLED_PROTOCOLS} protocols already")]
    TooMany,
    /// The node handles it itself, as ping.
    #[error(transparent)]
    Node(#[from] HandleError),
}

/// Which client handles what.
pub(super) struct Handlers {
    by_protocol: Mutex<HashMap<ProtocolName, Handler>>,
    streams: Semaphore,
}

#[derive(Clone)]
struct Handler {
    address: LocalAddress,
    /// Whether it was not to be reached for the last stream. It may come back, unless others need its place.
    absent: bool,
}

impl Handlers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { by_protocol: Mutex::default(), streams: Semaphore::new(MAX_HANDLED_STREAMS) })
    }

    /// Gives `protocols` to the client at `address`, all or none. CONTROL.md, "StreamHandler": a client that had one of them
    /// before has it no more.
    pub(super) fn register(
        self: &Arc<Self>,
        node: &Node,
        address: &LocalAddress,
        protocols: &[ProtocolName],
    ) -> Result<(), RegisterError> {
        let mut by_protocol = self.by_protocol.lock();
        let mut added: Vec<&ProtocolName> = Vec::new();
        for protocol in protocols {
            if by_protocol.contains_key(protocol) || added.contains(&protocol) {
                continue;
            }
            if let Err(error) = self.add(node, &mut by_protocol, added.len(), protocol) {
                for protocol in added {
                    node.unhandle(protocol);
                }
                return Err(error);
            }
            added.push(protocol);
        }
        for protocol in protocols {
            by_protocol.insert(protocol.clone(), Handler { address: address.clone(), absent: false });
        }
        Ok(())
    }

    /// Lets the node give this object the streams of a protocol that no client has had. `added` is how many such there are besides
    /// those in the map.
    fn add(
        self: &Arc<Self>,
        node: &Node,
        by_protocol: &mut HashMap<ProtocolName, Handler>,
        added: usize,
        protocol: &ProtocolName,
    ) -> Result<(), RegisterError> {
        if by_protocol.len().saturating_add(added) >= MAX_HANDLED_PROTOCOLS {
            by_protocol.retain(|protocol, handler| !(handler.absent && node.unhandle(protocol)));
        }
        if by_protocol.len().saturating_add(added) >= MAX_HANDLED_PROTOCOLS {
            return Err(RegisterError::TooMany);
        }
        let handlers = self.clone();
        // Other daemons give streams over limited connections to their clients, too.
        node.handle_on_limited(protocol.clone(), move |incoming| {
            let handlers = handlers.clone();
            async move { handlers.give(incoming).await }
        })?;
        Ok(())
    }

    /// Connects the stream with its client, until it is over. A stream that cannot be given to anybody is reset.
    async fn give(&self, mut incoming: IncomingStream) {
        let protocol = incoming.stream.protocol().clone();
        let handler = self.by_protocol.lock().get(&protocol).cloned();
        // The semaphore is never closed.
        let (Some(handler), Ok(_slot)) = (handler, self.streams.try_acquire()) else {
            tracing::warn!(%protocol, "nobody can take a stream: {MAX_HANDLED_STREAMS} are open");
            return incoming.stream.reset(0);
        };
        let info = StreamInfo {
            peer: incoming.connection.peer,
            address: incoming.connection.remote_address.clone(),
            protocol: protocol.clone(),
        };
        let accepted = timeout(ACCEPT_TIMEOUT, introduce(&handler.address, info.encode())).await;
        let error = match accepted {
            Ok(Ok(socket)) => {
                self.tell(&protocol, &handler, false);
                return pipe(socket, incoming.stream, Bytes::new()).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        tracing::warn!(%protocol, client = %handler.address, %error, "a client does not take its stream");
        self.tell(&protocol, &handler, true);
        incoming.stream.reset(0);
    }

    /// Notes whether the client was there, if it has the protocol still.
    fn tell(&self, protocol: &ProtocolName, handler: &Handler, absent: bool) {
        if let Some(current) = self.by_protocol.lock().get_mut(protocol)
            && current.address == handler.address
        {
            current.absent = absent;
        }
    }
}

/// CONTROL.md, "StreamHandler - Inbound stream": what the client reads before the stream's own bytes.
async fn introduce(client: &LocalAddress, mut info: Bytes) -> std::io::Result<Socket> {
    let socket = Socket::connect(client).await?;
    std::future::poll_fn(|cx| socket.poll_write(cx, &mut info)).await?;
    Ok(socket)
}
