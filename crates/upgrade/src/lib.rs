//! From a raw byte pipe to an authenticated, encrypted, multiplexed connection: Noise and Yamux, as state machines that
//! do no I/O, and the one driver that runs them fused over any pipe; natively also TLS 1.3, and private networks.

mod connection;
mod driver;
pub mod noise;
mod plaintexts;
#[cfg(not(target_arch = "wasm32"))]
pub mod pnet;
mod protection;
#[cfg(not(target_arch = "wasm32"))]
pub mod tls;
mod upgrade;
#[cfg(not(target_arch = "wasm32"))]
mod upgrader;
pub mod yamux;

pub use upgrade::{upgrade_inbound, upgrade_outbound};
#[cfg(not(target_arch = "wasm32"))]
pub use upgrader::{Security, Upgrader};

/// Which side of a handshake or of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that speaks first: the dialer, unless a transport says otherwise.
    Initiator,
    /// The other side.
    Responder,
}
