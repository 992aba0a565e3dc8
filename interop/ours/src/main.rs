//! Our dialer, and our listener behind a relay, as a peer program of the matrix; ../README.md has its contract. And, as
//! `test-plans`, our program for the matrix of the libp2p project.
//!
//! usage: peerloom-interop reserve ADDR relayed|webrtc | ask-autonat ADDR | dial ADDR [CHECK…] | test-plans

use anyhow::{Result, bail};

mod autonat;
mod dial;
mod node;
mod reserve;
mod test_plans;

use node::Path;

const ECHO: &str = "/echo/1.0.0";
/// Reads something, then resets the stream.
const RESET: &str = "/peerloom-interop/reset/1.0.0";

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["dial", address, without @ ..] => dial::run(address.parse()?, without).await,
        ["reserve", relay, "relayed"] => reserve::run(relay.parse()?, Path::Relayed).await,
        ["reserve", relay, "webrtc"] => reserve::run(relay.parse()?, Path::WebRtc).await,
        ["ask-autonat", server] => autonat::run(server.parse()?).await,
        ["test-plans"] => test_plans::run().await,
        _ => bail!(
            "usage: peerloom-interop reserve ADDR relayed|webrtc | ask-autonat ADDR | dial ADDR [CHECK…] | test-plans"
        ),
    }
}
