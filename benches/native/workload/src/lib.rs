//! What every subject of the bench does, written once: a subject says how it listens, dials, and moves bytes.
//!
//! `PROGRAM listen TRANSPORT IP` prints `{"address":…}` and serves, and answers each line of its standard input with the
//! connections that it has accepted so far, `{"accepted":…}`; `PROGRAM dial TRANSPORT ADDRESS` does what the lines say, and
//! answers each with one line of JSON (`client.rs` lists them). Both end when their input does.
//!
//! The transport `all` is QUIC and TCP at once, both at the port that stands behind the IP address (`IP:PORT`). Its addresses
//! are those of the dialer's commands, and what it is given as one is nothing but the peer id.

mod client;
mod stream;

use std::future::Future;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

pub use stream::{CHUNK_LENGTH, serve};

/// The protocol of the streams, for subjects that negotiate one.
pub const PROTOCOL: &str = "/peerloom-bench/1.0.0";

/// An implementation with one transport.
pub trait Subject: Send + Sync + Sized + 'static {
    /// What a dial makes.
    type Connection: Connection;

    /// Listens on any port of `ip`, and returns the address to dial. Runs [`serve`] for each stream of each connection.
    fn listen(&self, ip: &str) -> impl Future<Output = Result<String>> + Send;

    /// Connections that were accepted so far; nothing if nobody counts them.
    fn accepted(&self) -> usize {
        0
    }

    /// Connects to whoever is at these addresses, of which some may lead nowhere. `all` only.
    fn dial_any(&self, addresses: &[String]) -> impl Future<Output = Result<Self::Connection>> + Send {
        async move { bail!("dials no {addresses:?}") }
    }

    /// Connects to `address`, as often as it is asked. `number` tells the connections apart that are there at one time.
    fn dial(&self, address: &str, number: usize) -> impl Future<Output = Result<Self::Connection>> + Send;
}

/// A connection that was dialed.
pub trait Connection: Send + Sync + 'static {
    /// Its streams.
    type Stream: Stream;

    /// Opens a stream.
    fn open(&self) -> impl Future<Output = Result<Self::Stream>> + Send;

    /// Closes the connection, and waits for that.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// A stream of either side.
pub trait Stream: Send + 'static {
    /// Hands all of `data` to the stream.
    fn send(&mut self, data: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Ends the half that is written, after everything was sent.
    fn finish(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// The next bytes; none at the end. At most [`CHUNK_LENGTH`] where the subject wants a buffer from its user.
    fn receive(&mut self) -> impl Future<Output = Result<&[u8]>> + Send;
}

/// Runs the program of a subject: `make` makes it, for a transport.
pub fn main<S: Subject>(make: impl Fn(&str) -> Result<S>) -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, transport, target] = arguments.as_slice() else {
        bail!("usage: PROGRAM listen TRANSPORT IP | PROGRAM dial TRANSPORT ADDRESS");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let subject = Arc::new(make(transport)?);
        let mut lines = lines();
        match role.as_str() {
            "listen" => {
                print(&json!({ "address": subject.listen(target).await? }))?;
                while lines.recv().await.is_some() {
                    print(&json!({ "accepted": subject.accepted() }))?;
                }
                Ok(())
            }
            "dial" => {
                let mut client = client::Client::new(subject, target.clone());
                while let Some(line) = lines.recv().await {
                    let answer = match line.strip_prefix("race ") {
                        // By a subject of its own, which knows nothing of earlier ones.
                        Some(addresses) => client::race(make(transport)?, addresses).await,
                        None => client.obey(&line).await,
                    };
                    print(&answer.with_context(|| line)?)?;
                }
                Ok(())
            }
            role => bail!("no role {role}"),
        }
    })?;
    // Nobody is to say goodbye to thousands of connections.
    std::process::exit(0)
}

fn print(line: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Standard input, read by a thread that ends with the process.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
