//! AutoNAT: which of a node's own addresses do others reach? libp2p specs, autonat/autonat-v2.md and autonat-v1.md.
//!
//! [`AutonatClient`] asks the peers that it is connected to and that serve the protocol, as soon as there is an address to ask
//! about, and again now and then. What it finds out the node knows as the
//! [`Reachability`](peerloom_node::Reachability) of its [`own_addresses`](peerloom_node::Node::own_addresses), and what is told
//! to others follows. [`serve`] answers others: it dials the address that they name, from a node of its own, and sends
//! their nonce there.
//!
//! ```no_run
//! # async fn example(node: peerloom_node::Node, dialer: peerloom_node::Node) -> Result<(), Box<dyn std::error::Error>> {
//! use peerloom_autonat::{AutonatClient, ClientConfig, ServerConfig};
//!
//! AutonatClient::start(&node, ClientConfig::default())?;
//! // `dialer` has transports of its own, which share no port with those of `node`, and another identity.
//! peerloom_autonat::serve(&node, dialer, ServerConfig::default())?;
//! # Ok(()) }
//! ```

mod client;
pub mod message;
mod network;
mod server;
pub mod v1;

pub use client::{
    Answer, AskError, AutonatClient, ClientConfig,
    prober::{MAX_SERVERS, MAX_TESTED_ADDRESSES, Outcome, Probe, Prober, Server, Version},
    request::{MAX_DIAL_DATA, Request, RequestError, Step},
};
pub use server::{
    AutonatServer, ServerConfig, ServerStats,
    choice::{Choice, choose},
    dial_data::{DIAL_DATA, DialData, DialDataError},
    rate::{Rates, RequestRates},
    serve,
};

use peerloom_core::ProtocolName;

/// The protocol between a client and a server.
pub const DIAL_REQUEST: ProtocolName = ProtocolName::from_static("/libp2p/autonat/2/dial-request");
/// The protocol between the server that dials back and the client.
pub const DIAL_BACK: ProtocolName = ProtocolName::from_static("/libp2p/autonat/2/dial-back");
/// Version 1, between a client and a server.
pub const V1: ProtocolName = ProtocolName::from_static("/libp2p/autonat/1.0.0");
