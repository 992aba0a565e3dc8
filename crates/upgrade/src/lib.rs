//! From a raw byte pipe to an authenticated, encrypted, multiplexed connection: Noise and Yamux, as state machines that
//! do no I/O, and the one driver that runs them fused over any pipe.

mod connection;
mod driver;
pub mod noise;
#[cfg(not(target_arch = "wasm32"))]
pub mod tls;
mod upgrade;
pub mod yamux;

pub use upgrade::{upgrade_inbound, upgrade_outbound};

/// Which side of a handshake or of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that speaks first: the dialer, unless a transport says otherwise.
    Initiator,
    /// The other side.
    Responder,
}
