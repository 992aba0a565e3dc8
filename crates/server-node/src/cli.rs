//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use peerloom_core::Multiaddr;

/// A libp2p node that browsers can dial.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node: TCP, WebSocket, WebTransport and WebRTC, until SIGTERM or Ctrl-C.
    Run(RunArguments),
    /// Print this node's peer id, making an identity if there is none.
    Id(IdArguments),
    /// Measure the round-trip time to a peer.
    Ping(PingArguments),
    /// Measure the throughput to a peer, both ways (/perf/1.0.0).
    Perf(PerfArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// A TOML file; what the command line says goes before it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A multiaddr to listen on; may be given again.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<Multiaddr>,
    /// Where the identity and the certificates are kept.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where /metrics and /health are served; a loopback address unless you know better.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) status: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct IdArguments {
    /// Where the identity is kept.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PingArguments {
    /// The peer's multiaddr.
    pub(crate) address: Multiaddr,
    /// How many pings.
    #[arg(long, short = 'n', default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// One JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PerfArguments {
    /// The peer's multiaddr.
    pub(crate) address: Multiaddr,
    /// Mebibytes to send.
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    pub(crate) upload: u32,
    /// Mebibytes to receive.
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    pub(crate) download: u32,
    /// One JSON object instead of a progress bar and lines.
    #[arg(long)]
    pub(crate) json: bool,
}
