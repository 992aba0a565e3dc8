use std::{io, net::SocketAddr, sync::Arc};

use peerloom_core::{
    Connection, HandshakeError, ListenError, Listener, ListenerEvent, Multiaddr, runtime::BoxFuture,
};
use peerloom_socket::tcp::{Inbound, PortListener, Service, TcpPorts, join};
use peerloom_upgrade::Upgrader;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async_with_config;

use crate::{
    CertificateFiles,
    pipe::{MessagePipe, config},
};

pub(crate) struct WebSocketListener {
    port: PortListener,
}

impl WebSocketListener {
    /// `name` is the part of the address behind the port. With a certificate, inside of TLS.
    pub(crate) fn bind(
        ports: &TcpPorts,
        bind: SocketAddr,
        name: Multiaddr,
        upgrader: Upgrader,
        certificate: Option<Arc<CertificateFiles>>,
    ) -> io::Result<Self> {
        let tls = certificate.map(|certificate| certificate.server_config().map(TlsAcceptor::from));
        let server = Server { upgrader, tls: tls.transpose()?, name: name.clone() };
        let service = if server.tls.is_some() { Service::Https } else { Service::Http };
        let serve = Arc::new(move |inbound| Box::pin(server.clone().serve(inbound)) as BoxFuture<'static, _>);
        let port = ports.listen(bind, service, name, serve)?;
        port.addresses().map(|_| Self { port })
    }
}

impl Listener for WebSocketListener {
    fn addresses(&self) -> Vec<Multiaddr> {
        self.port.addresses().unwrap_or_else(|error| {
            tracing::warn!(%error, "the machine's addresses cannot be listed");
            Vec::new()
        })
    }

    fn next(&mut self) -> BoxFuture<'_, Result<ListenerEvent, ListenError>> {
        Box::pin(async move { Ok(ListenerEvent::Incoming(self.port.accept().await)) })
    }
}

/// From a socket to a connection.
#[derive(Clone)]
struct Server {
    upgrader: Upgrader,
    tls: Option<TlsAcceptor>,
    name: Multiaddr,
}

impl Server {
    async fn serve(self, inbound: Inbound) -> Result<Box<dyn Connection>, HandshakeError> {
        let Inbound { stream, remote } = inbound;
        let remote = join(&remote, &self.name);
        match &self.tls {
            None => self.websocket(stream, remote).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.websocket(stream, remote).await,
                Err(error) => Err(HandshakeError::Lost { step: "tls", reason: error.to_string() }),
            },
        }
    }

    async fn websocket<IO>(&self, io: IO, remote: Multiaddr) -> Result<Box<dyn Connection>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let socket = accept_async_with_config(io, Some(config()))
            .await
            .map_err(|error| HandshakeError::Lost { step: "websocket", reason: error.to_string() })?;
        self.upgrader.accept(MessagePipe::new(socket), remote).await
    }
}
