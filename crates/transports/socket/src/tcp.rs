//! Dialing and accepting TCP, for every transport that begins with it.

mod newcomers;
mod port;

use std::{io, net::SocketAddr, time::Duration};

use peerloom_core::runtime::sleep;
use tokio::net::{TcpListener, TcpStream};

#[cfg(any(test, fuzzing))]
pub use self::port::fuzzing;
pub use self::port::{Inbound, PortListener, Serve, Service, TcpPorts, join};
use crate::address::{Endpoint, reachable};

/// After an error of accept(2), for which the process being out of files is the likeliest reason.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Connections that the kernel completes before they are accepted; further dialers wait and try again.
const BACKLOG: i32 = 1024;

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
    /// Listens on `address`. An IPv6 socket carries IPv6 only, so that the same port can be bound for IPv4.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A port whose last connections have just ended can be had again.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let bound = listener.local_addr()?;
        Ok(Self { listener, bound })
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
