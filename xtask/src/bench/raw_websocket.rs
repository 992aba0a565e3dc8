//! A bare WebSocket server: what a browser's socket can do without encryption, muxer and protocols above it.
//!
//! The perf protocol on one socket per measurement: a binary message with how many bytes are wanted as a big-endian `u64`,
//! then any number of binary messages, then a text message in place of a half-close; the server answers with the bytes
//! wanted, and closes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};
use tungstenite::{Bytes, Message};

/// As large as what pages send.
const MESSAGE: usize = 64 * 1024;

/// Serves until xtask ends.
pub(super) struct RawWebSocketServer {
    address: SocketAddr,
}

impl RawWebSocketServer {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A page that only wanted to see the socket open goes away in the middle.
                thread::spawn(move || _ = answer(stream));
            }
        });
        Ok(Self { address })
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }
}

fn answer(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut socket = tungstenite::accept(stream).map_err(|error| anyhow::anyhow!("{error}"))?;
    let Message::Binary(header) = socket.read()? else { return Ok(()) };
    let mut wanted = usize::try_from(u64::from_be_bytes(header.as_ref().try_into()?))?;
    while !matches!(socket.read()?, Message::Text(_)) {}
    let zeroes = Bytes::from(vec![0; MESSAGE]);
    while wanted > 0 {
        let length = wanted.min(MESSAGE);
        socket.write(Message::Binary(zeroes.slice(..length)))?;
        wanted -= length;
    }
    socket.close(None)?;
    // Flushes, and waits for the browser's own close.
    while socket.read().is_ok() {}
    Ok(())
}
