//! multistream-select 1.0: the two sides of a stream, or of a bare pipe, agree on a protocol.
//!
//! [`Dialer`] and [`Listener`] are the two sides without I/O: bytes in, bytes out. They take exactly their own messages off
//! what arrives, so what follows belongs to the protocol that was agreed on.
//!
//! A dialer with a single proposal need not wait for the answer: see [`NegotiatedStream`].

mod dialer;
mod listener;
mod message;
mod negotiated;
mod pipe;
#[cfg(test)]
mod tests;

pub use dialer::Dialer;
pub use listener::Listener;
pub use negotiated::{Attachment, NegotiatedStream, negotiate_inbound, negotiate_outbound};
pub use pipe::{accept_pipe, confirm_pipe, dial_pipe};

use crate::stream::StreamError;

/// The longest message, in bytes; implementations refuse longer ones.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// How many protocols a remote may propose before the negotiation fails.
pub const MAX_PROPOSALS: usize = 64;

/// What each side sends first.
const HEADER: &str = "/multistream/1.0.0";
/// A listener's answer to a proposal that it does not support.
const NOT_AVAILABLE: &str = "na";

/// Why no protocol was agreed on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The remote supports none of the protocols proposed, or proposed none that we support.
    #[error("no protocol in common")]
    NoCommonProtocol,
    /// The remote broke the rules of multistream-select.
    #[error("multistream-select: {0}")]
    Protocol(&'static str),
    /// The remote closed the stream before the end of the negotiation.
    #[error("stream ended during the negotiation of its protocol")]
    UnexpectedEnd,
    /// The stream failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The pipe failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
