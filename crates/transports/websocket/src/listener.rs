use std::{io, net::SocketAddr};

use peerloom_core::{
    Connection, HandshakeError, Incoming, Keypair, ListenError, Listener, ListenerEvent, Multiaddr, Protocol,
    runtime::BoxFuture,
};
use peerloom_socket::{address::tcp_multiaddr, tcp::Acceptor};
use peerloom_upgrade::upgrade_inbound;
use tokio::net::TcpStream;
use tokio_tungstenite::accept_async_with_config;

use crate::pipe::{MessagePipe, config};

pub(crate) struct WebSocketListener {
    acceptor: Acceptor,
    keypair: Keypair,
    addresses: Vec<Multiaddr>,
}

impl WebSocketListener {
    pub(crate) fn bind(bind: SocketAddr, keypair: Keypair) -> io::Result<Self> {
        let acceptor = Acceptor::bind(bind)?;
        let reachable = acceptor.addresses()?;
        let addresses =
            reachable.into_iter().map(|address| tcp_multiaddr(address).with(Protocol::Ws)).collect();
        Ok(Self { acceptor, keypair, addresses })
    }
}

impl Listener for WebSocketListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.clone()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            let (tcp, remote) = self.acceptor.accept().await;
            let remote_address = tcp_multiaddr(remote).with(Protocol::Ws);
            let handshake = Box::pin(accept(tcp, self.keypair.clone(), remote_address.clone()));
            Ok(ListenerEvent::Incoming(Incoming { remote_address, handshake }))
        })
    }
}

async fn accept(
    tcp: TcpStream,
    keypair: Keypair,
    remote_address: Multiaddr,
) -> Result<Box<dyn Connection>, HandshakeError> {
    let socket = accept_async_with_config(tcp, Some(config()))
        .await
        .map_err(|error| HandshakeError::Lost { step: "websocket", reason: error.to_string() })?;
    upgrade_inbound(MessagePipe::new(socket), &keypair, remote_address).await
}
