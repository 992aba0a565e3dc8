//! rust-libp2p as a peer program of the matrix; ../README.md has its contracts.
//!
//! usage: rust-libp2p-peer listen ADDR | relay ADDR | reserve ADDR relayed | dial ADDR [CHECK…] | test-plans

use anyhow::{Result, bail};
use libp2p::StreamProtocol;

mod dial;
mod listen;
mod swarm;
mod test_plans;

use swarm::Relaying;

const ECHO: StreamProtocol = StreamProtocol::new("/echo/1.0.0");
/// Reads something, then resets the stream.
const RESET: StreamProtocol = StreamProtocol::new("/peerloom-interop/reset/1.0.0");

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    // libp2p-webrtc panics unless rustls knows which cryptography to use.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["listen", address] => listen::run(address.parse()?, Relaying::Off).await,
        ["relay", address] => listen::run(address.parse()?, Relaying::On).await,
        ["reserve", relay, "relayed"] => {
            listen::run(format!("{relay}/p2p-circuit").parse()?, Relaying::Off).await
        }
        ["dial", address, without @ ..] => dial::run(address.parse()?, without).await,
        ["test-plans"] => test_plans::run().await,
        _ => bail!(
            "usage: rust-libp2p-peer listen ADDR | relay ADDR | reserve ADDR relayed | dial ADDR [CHECK…] \
             | test-plans"
        ),
    }
}
