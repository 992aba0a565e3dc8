//! Peerloom's vocabulary: what a peer is called ([`PeerId`]), how it proves it ([`Keypair`], [`SignedEnvelope`]), where
//! it is reached ([`Multiaddr`]), and the four traits that every transport implements and nothing else needs to know:
//! [`Transport`], [`Listener`], [`Connection`] and [`Stream`].
//!
//! Nothing here opens a socket. The only platform-dependent part is [`runtime`]: a clock, a timer and task spawning that
//! are the same to their callers natively and in a web page.

pub mod runtime;
mod stream;
mod transport;

pub use stream::{Stream, StreamError, StreamExt, StreamIo};
pub use transport::{
    Connection, ConnectionError, DialError, HandshakeError, Incoming, ListenError, Listener, ListenerEvent, Transport,
};
