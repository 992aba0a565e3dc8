//! Dialing and accepting TCP, for every transport that begins with it.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use peerloom_core::runtime::sleep;
use tokio::net::{TcpListener, TcpStream};

use crate::address::{Endpoint, reachable};

/// After an error of accept(2), for which the process being out of files is the likeliest reason.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Connects to the first of the endpoint's addresses that takes the connection.
pub async fn connect(endpoint: &Endpoint<'_>) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in endpoint.resolve().await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // The layers above gather what belongs together; Nagle's algorithm would only hold it back.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    bound: SocketAddr,
}

impl Acceptor {
    /// Listens on `address`.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        // std's, because it sets SO_REUSEADDR and listens in one call; tokio's own is async only for names.
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok(Self { listener: TcpListener::from_std(listener)?, bound })
    }

    /// Where it can be reached: see [`reachable`].
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        reachable(self.bound)
    }

    /// The next connection. Cancel-safe. An error of the system's is logged and waited out: it is never the end.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    // Fails only for a socket that is gone already; then the handshake says so.
                    let _ = stream.set_nodelay(true);
                    return (stream, remote);
                }
                Err(error) => {
                    tracing::warn!(bound = %self.bound, %error, "cannot accept a connection");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}
