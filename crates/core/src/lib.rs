//! Peerloom's vocabulary: what a peer is called ([`PeerId`]), how it proves it ([`Keypair`], [`SignedEnvelope`]), where
//! it is reached ([`Multiaddr`]), and the four traits that every transport implements and nothing else needs to know:
//! [`Transport`], [`Listener`], [`Connection`] and [`Stream`].
//!
//! Nothing here opens a socket. The only platform-dependent part is [`runtime`]: a clock, a timer and task spawning that
//! are the same to their callers natively and in a web page.

mod base_encoding;
mod circuit;
pub mod framing;
mod keys;
#[cfg(test)]
mod memory_stream;
mod multiaddr;
mod multibase;
pub mod multihash;
pub mod multistream_select;
mod peer_id;
mod peer_record;
mod prefixed;
mod protocol_name;
pub mod runtime;
mod scope;
mod signed_envelope;
mod stream;
mod transport;
pub mod varint;
pub mod webrtc_stream;

pub use circuit::{Circuit, CircuitEnd, CircuitLimits};
pub use keys::{InvalidSignature, KeyError, Keypair, MAX_ENCODED_KEY_BYTES, PublicKey, RSA_BITS};
pub use multiaddr::{MAX_BYTES as MAX_MULTIADDR_BYTES, MAX_COMPONENTS as MAX_MULTIADDR_COMPONENTS};
pub use multiaddr::{Multiaddr, MultiaddrError, Protocol, Protocols};
pub use multihash::{Multihash, MultihashError};
pub use multistream_select::{NegotiatedStream, NegotiationError, negotiate_inbound, negotiate_outbound};
pub use peer_id::{PeerId, PeerIdError};
pub use peer_record::{PeerRecord, PeerRecordError};
pub use prefixed::Prefixed;
pub use protocol_name::{ProtocolName, ProtocolNameError};
pub use scope::Scope;
pub use signed_envelope::{EnvelopeError, MAX_ENVELOPE_BYTES, SignedEnvelope};
pub use stream::{Stream, StreamError, StreamExt, StreamIo};
pub use transport::{
    CloseReason, Connection, ConnectionError, DialError, HandshakeError, Incoming, ListenError, Listener,
    ListenerEvent, Transport,
};
