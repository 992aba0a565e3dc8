//! litep2p as a peer program of the matrix; ../README.md has its contracts.
//!
//! usage: litep2p-peer listen ADDR | dial ADDR [CHECK…] | test-plans

use anyhow::{Result, bail};

mod dial;
mod listen;
mod node;
mod streams;
mod test_plans;

const ECHO: &str = "/echo/1.0.0";
/// Reads something, then resets the stream.
const RESET: &str = "/peerloom-interop/reset/1.0.0";

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["listen", address] => listen::run(address).await,
        ["dial", address, without @ ..] => dial::run(address, without).await,
        ["test-plans"] => test_plans::run().await,
        _ => bail!("usage: litep2p-peer listen ADDR | dial ADDR [CHECK…] | test-plans"),
    }
}
