//! litep2p as a peer program of the matrix; ../README.md has its contracts.
//!
//! usage: litep2p-peer test-plans

use anyhow::{Result, bail};

mod test_plans;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test-plans"] => test_plans::run().await,
        _ => bail!("usage: litep2p-peer test-plans"),
    }
}
