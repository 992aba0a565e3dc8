use std::{io, net::SocketAddr, time::Duration};

use peerloom_core::{
    HandshakeError, Incoming, Keypair, ListenError, Listener, ListenerEvent, Multiaddr, Protocol,
    runtime::{BoxFuture, sleep},
};
use peerloom_socket::address::{reachable, tcp_multiaddr};
use peerloom_upgrade::upgrade_inbound;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async_with_config;

use crate::pipe::{MessagePipe, config};

/// After an error of accept(2), for which the process being out of files is the likeliest reason.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

pub(crate) struct WebSocketListener {
    socket: TcpListener,
    keypair: Keypair,
    addresses: Vec<Multiaddr>,
}

impl WebSocketListener {
    pub(crate) fn bind(bind: SocketAddr, keypair: Keypair) -> io::Result<Self> {
        let socket = std::net::TcpListener::bind(bind)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket)?;
        let addresses = reachable(socket.local_addr()?)?;
        let addresses = addresses.into_iter().map(|address| tcp_multiaddr(address).with(Protocol::Ws)).collect();
        Ok(Self { socket, keypair, addresses })
    }
}

impl Listener for WebSocketListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.addresses.clone()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move {
            loop {
                match self.socket.accept().await {
                    Ok((tcp, remote)) => {
                        let remote_address = tcp_multiaddr(remote).with(Protocol::Ws);
                        let handshake = accept(tcp, self.keypair.clone(), remote_address.clone());
                        let handshake = Box::pin(handshake);
                        return Ok(ListenerEvent::Incoming(Incoming { remote_address, handshake }));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_BACKOFF).await;
                    }
                }
            }
        })
    }
}

async fn accept(
    tcp: TcpStream,
    keypair: Keypair,
    remote_address: Multiaddr,
) -> Result<Box<dyn peerloom_core::Connection>, HandshakeError> {
    let lost = |reason: String| HandshakeError::Lost { step: "websocket", reason };
    tcp.set_nodelay(true).map_err(|error| lost(error.to_string()))?;
    let socket = accept_async_with_config(tcp, Some(config())).await.map_err(|error| lost(error.to_string()))?;
    upgrade_inbound(MessagePipe::new(socket), &keypair, remote_address).await
}
