//! Our dialer as a peer program of the matrix; ../README.md has its contract.
//!
//! usage: peerloom-interop dial ADDR

use anyhow::{Result, bail};

mod dial;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, address] = arguments.as_slice() else { bail!("usage: peerloom-interop dial ADDR") };
    if role != "dial" {
        bail!("usage: peerloom-interop dial ADDR");
    }
    println!("{}", dial::run(address.parse()?).await?);
    Ok(())
}
