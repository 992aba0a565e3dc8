//! libp2p's WebRTC, natively: WebRTC-direct, with a listener that takes the wire versions v1 and v2 on one UDP socket, and a
//! dialer; and the connections (`/webrtc`) that two peers negotiate over a relay.
//!
//! From the wire up: [`stun`], [`ufrag`] and [`demultiplexer`] decide who may begin a session; [`ice`], [`dtls`] and
//! [`sctp`] are its layers and [`peer_connection`] puts them together; [`halves`] makes a libp2p stream of a data
//! channel, with the framing that core shares with the browser's transport. All of that is sans-IO. [`state`] is what a
//! connection's task ([`driver`]), its handle ([`connection`]) and its [`stream`]s share.
//!
//! WebRTC-direct needs no SDP: a listener learns all that it would say from the first connectivity check, and a dialer from
//! the address. Nothing that a stranger writes is ever put into a text and parsed again. A connection that is negotiated
//! ([`factory`], [`negotiation`]) begins with two descriptions ([`sdp`]), which come from peers that are no strangers.
#![allow(rustdoc::private_intra_doc_links)]

mod address;
mod certificate;
mod connection;
mod dcep;
mod demultiplexer;
mod dialer;
mod driver;
mod dtls;
mod factory;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod halves;
mod ice;
pub mod limits;
mod listener;
mod negotiation;
mod peer_connection;
mod sctp;
mod sdp;
mod sockets;
mod state;
mod stream;
mod stun;
mod transport;
mod ufrag;

pub use certificate::{Certificate, CertificateError};
pub use factory::{WebRtcConfig, WebRtcFactory};
pub use transport::{Bind, WebRtcDirectConfig, WebRtcDirectTransport};
pub use ufrag::WireVersion;

#[cfg(test)]
fn test_now() -> std::time::Instant {
    driver::now()
}
