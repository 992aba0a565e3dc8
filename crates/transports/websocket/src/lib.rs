//! libp2p over WebSocket, native: `/ip4/…/tcp/…/ws` and `/dns…/tcp/…/ws`. libp2p spec, websockets/README.md.
//!
//! A WebSocket is taken as a byte pipe: binary messages whose boundaries mean nothing.

mod listener;
mod pipe;

use std::{io, net::SocketAddr};

use peerloom_core::{
    Connection, DialError, Keypair, ListenError, Listener, Multiaddr, Protocol, Transport, runtime::BoxFuture,
};
use peerloom_socket::{
    address::{Endpoint, Host},
    tcp,
};
use peerloom_upgrade::upgrade_outbound;
use tokio_tungstenite::client_async_with_config;

use crate::{
    listener::WebSocketListener,
    pipe::{MessagePipe, config},
};

/// The WebSocket transport of a node.
#[derive(Debug, Clone)]
pub struct WebSocketTransport {
    keypair: Keypair,
}

impl WebSocketTransport {
    /// A transport whose connections prove this identity.
    pub fn new(keypair: Keypair) -> Self {
        Self { keypair }
    }
}

impl Transport for WebSocketTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        parse(address).is_some()
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        parse(address).is_some_and(|endpoint| matches!(endpoint.host, Host::Ip(_)))
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let keypair = self.keypair.clone();
        Box::pin(async move {
            let Some(endpoint) = parse(&address) else {
                return Err(DialError::UnsupportedAddress { address, reason: "not /<host>/tcp/<port>/ws" });
            };
            let pipe = match connect(&endpoint).await {
                Ok(pipe) => pipe,
                Err(error) => return Err(DialError::Unreachable { address, reason: error.to_string() }),
            };
            match upgrade_outbound(pipe, &keypair, address.clone()).await {
                Ok(connection) => Ok(connection),
                Err(source) => Err(DialError::Handshake { address, source }),
            }
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        let keypair = self.keypair.clone();
        Box::pin(async move {
            let Some(bind) = parse(&address).and_then(|endpoint| endpoint.socket_addr()) else {
                return Err(ListenError::UnsupportedAddress { address, reason: "not /<ip>/tcp/<port>/ws" });
            };
            match WebSocketListener::bind(bind, keypair) {
                Ok(listener) => Ok(Box::new(listener) as Box<dyn Listener>),
                Err(error) => Err(ListenError::Io { address, reason: error.to_string() }),
            }
        })
    }
}

fn parse(address: &Multiaddr) -> Option<Endpoint<'_>> {
    Endpoint::tcp(address).filter(|endpoint| endpoint.rest == [Protocol::Ws])
}

async fn connect(endpoint: &Endpoint<'_>) -> io::Result<MessagePipe> {
    let tcp = tcp::connect(endpoint).await?;
    let host = match &endpoint.host {
        Host::Ip(ip) => SocketAddr::new(*ip, endpoint.port).to_string(),
        Host::Name { name, .. } => format!("{name}:{}", endpoint.port),
    };
    let request = format!("ws://{host}/");
    let (socket, _response) =
        client_async_with_config(request, tcp, Some(config())).await.map_err(io::Error::other)?;
    Ok(MessagePipe::new(socket))
}
