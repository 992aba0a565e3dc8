//! What a connection reports, and why it ends.

use super::ChannelId;
use crate::ice::agent::Gathered;

/// What a connection has to report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Channels can be opened, and [`HANDSHAKE_CHANNEL`](super::HANDSHAKE_CHANNEL) is, if the connection is not a negotiated one.
    Connected,
    /// Of a negotiated connection: what the remote is to be told.
    Gathered(Gathered),
    /// The remote has opened a channel.
    Opened(ChannelId),
    /// There may be something to [`PeerConnection::read`](super::PeerConnection::read).
    Readable(ChannelId),
    /// The remote closes the channel. What has arrived can still be read.
    Closing(ChannelId),
    /// The channel is gone.
    Closed(ChannelId),
    /// The remote has acknowledged bytes, so that more may be sent.
    Acknowledged,
    /// The connection is over. Nothing follows.
    Over(End),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    #[error("closed by us")]
    ClosedLocally,
    #[error("closed by the remote")]
    ClosedByRemote,
    #[error("{} timed out", .0.name())]
    HandshakeTimedOut(Step),
    #[error("{}: {reason}", .step.name())]
    HandshakeFailed { step: Step, reason: String },
    #[error("{0}")]
    WrongCertificate(String),
    #[error("the remote went silent")]
    Silent,
    #[error("{0}")]
    Violation(&'static str),
    #[error("SCTP: {0}")]
    Lost(String),
}

/// The steps in which a connection comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Of a negotiated connection: until the remote's description is there.
    Description,
    Ice,
    Dtls,
    Sctp,
}

/// The name of [`Step::Ice`].
pub(crate) const ICE: &str = "webrtc ICE";

impl Step {
    /// As it appears in errors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Description => "webrtc description",
            Self::Ice => ICE,
            Self::Dtls => "webrtc DTLS",
            Self::Sctp => "webrtc SCTP",
        }
    }
}
