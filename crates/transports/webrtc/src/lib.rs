//! libp2p's WebRTC-direct transport, natively: a listener that takes the wire versions v1 and v2 on one UDP socket, and a
//! dialer.
//!
//! From the wire up: [`stun`], [`ufrag`] and [`demultiplexer`] decide who may begin a session; [`ice`], [`dtls`] and
//! [`sctp`] are its layers and [`peer_connection`] puts them together; [`halves`] makes a libp2p stream of a data
//! channel, with the framing that core shares with the browser's transport. All of that is sans-IO. [`state`] is what a connection's task ([`driver`]), its handle ([`connection`]) and
//! its [`stream`]s share.
//!
//! There is no SDP here: a listener learns all that it would say from the first connectivity check, and a dialer from the
//! address. Nothing that a stranger writes is ever put into a text and parsed again.
#![allow(rustdoc::private_intra_doc_links)]

mod address;
mod certificate;
mod connection;
mod dcep;
mod demultiplexer;
mod dialer;
mod driver;
mod dtls;
mod halves;
mod ice;
pub mod limits;
mod listener;
mod peer_connection;
mod sctp;
mod state;
mod stream;
mod stun;
mod transport;
mod ufrag;

pub use certificate::{Certificate, CertificateError};
pub use transport::{WebRtcDirectConfig, WebRtcDirectTransport};
pub use ufrag::WireVersion;

#[cfg(test)]
fn test_now() -> std::time::Instant {
    driver::now()
}
