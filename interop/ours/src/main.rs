//! Our dialer as a peer program of the matrix; ../README.md has its contract.
//!
//! usage: peerloom-interop dial ADDR [CHECK…]

use anyhow::{Result, bail};

mod dial;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["dial", address, without @ ..] => dial::run(address.parse()?, without).await,
        _ => bail!("usage: peerloom-interop dial ADDR [CHECK…]"),
    }
}
