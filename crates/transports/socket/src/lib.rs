//! What Peerloom's native transports share of the operating system: sockets, and the addresses they are bound to.

pub mod address;
#[cfg(feature = "interfaces")]
pub mod interfaces;
#[cfg(feature = "tcp")]
pub mod tcp;
#[cfg(feature = "udp")]
pub mod udp;
