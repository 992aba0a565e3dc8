//! Circuit relay v2: a peer that cannot be dialed reserves a place at one that can, and is reached through it. libp2p
//! spec, relay/circuit-v2.md.
//!
//! [`RelayClient`] is the side that everybody has. It lets a node dial `…/p2p/<relay>/p2p-circuit/p2p/<destination>`, and
//! listen on `…/p2p/<relay>/p2p-circuit`, which makes a reservation and keeps it. [`serve`] makes a node a relay.
//!
//! ```no_run
//! # async fn example(node: peerloom_node::Node) -> Result<(), Box<dyn std::error::Error>> {
//! use peerloom_relay::{ClientConfig, RelayClient};
//!
//! RelayClient::start(&node, ClientConfig::default())?;
//! let relay = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
//! let reachable_at = node.listen(format!("{relay}/p2p-circuit").parse()?).await?;
//! # Ok(()) }
//! ```

mod address;
mod client;
mod exchange;
pub mod message;
#[cfg(feature = "server")]
mod server;
mod voucher;

pub use client::{ClientConfig, RelayClient};
#[cfg(feature = "server")]
pub use server::{AutonomousSystem, RelayConfig, RelayLimits, RelayServer, RelayStats, ip_network, serve};
pub use voucher::{Voucher, VoucherError};

use peerloom_core::ProtocolName;

/// The protocol between a client and its relay.
pub const HOP: ProtocolName = ProtocolName::from_static("/libp2p/circuit/relay/0.2.0/hop");
/// The protocol between a relay and the destination of a circuit.
pub const STOP: ProtocolName = ProtocolName::from_static("/libp2p/circuit/relay/0.2.0/stop");
