//! Errors as the page sees them: a JavaScript `Error` with a `code` that never changes. The codes are listed in the SDK's
//! `error.ts`.

use peerloom_core::{
    CloseReason, ConnectionError, DialError, HandshakeError, ListenError, NegotiationError, StreamError,
};
use peerloom_node::{ConnectError, HandleError, KeepError, LostReason, OpenStreamError, ping::PingError};
use wasm_bindgen::JsValue;

use crate::js;

/// Makes an error.
pub(crate) fn error(code: &str, message: &str) -> JsValue {
    let error = js_sys::Error::new(message);
    js::set_property(&error, "code", &JsValue::from_str(code));
    error.into()
}

/// The page passed something that cannot be.
pub(crate) fn invalid(what: impl ToString) -> JsValue {
    error("ERR_INVALID_ARGUMENT", &what.to_string())
}

/// An error of one of our enums, with its code.
pub(crate) fn coded<E: Coded>(of: &E) -> JsValue {
    error(of.code(), &of.to_string())
}

/// Which code an error has.
pub(crate) trait Coded: ToString {
    fn code(&self) -> &'static str;
}

impl Coded for ConnectError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoAddresses { .. } => "ERR_NO_ADDRESSES",
            Self::NoTransport { .. } => "ERR_UNSUPPORTED_ADDRESS",
            Self::NoAddressGiven | Self::SeveralPeers { .. } => "ERR_INVALID_ARGUMENT",
            Self::SelfDial => "ERR_SELF_DIAL",
            Self::TimedOut { .. } => "ERR_TIMED_OUT",
            Self::Denied(_) => "ERR_DENIED",
            Self::Dial(error) => error.code(),
            Self::LimitExceeded(_) => "ERR_TOO_MANY_CONNECTIONS",
            Self::NodeClosed => "ERR_NODE_CLOSED",
            // The code of the one attempt, or what several of them come to. What cannot be dialed from here was no attempt.
            Self::AllFailed { attempts, .. } => {
                let mut tried =
                    attempts.iter().filter(|attempt| !matches!(attempt, Self::NoTransport { .. }));
                match (tried.next(), tried.next()) {
                    (Some(attempt), None) => attempt.code(),
                    (Some(_), _) if attempts.iter().all(|attempt| attempt.code() == "ERR_DENIED") => {
                        "ERR_DENIED"
                    }
                    (None, _) => "ERR_UNSUPPORTED_ADDRESS",
                    _ => "ERR_UNREACHABLE",
                }
            }
            _ => "ERR_UNREACHABLE",
        }
    }
}

impl Coded for KeepError {
    fn code(&self) -> &'static str {
        match self {
            Self::ThisNode => "ERR_SELF_DIAL",
            Self::TooMany | Self::Tag(_) => "ERR_TOO_MANY_PEERS",
            _ => "ERR_INVALID_ARGUMENT",
        }
    }
}

impl Coded for LostReason {
    fn code(&self) -> &'static str {
        match self {
            Self::Connection(error) => error.code(),
            Self::Dial(error) => error.code(),
            _ => "ERR_CONNECTION_CLOSED",
        }
    }
}

impl Coded for DialError {
    fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedAddress { .. } => "ERR_UNSUPPORTED_ADDRESS",
            Self::Denied { .. } => "ERR_DENIED",
            Self::Handshake { source, .. } => match source {
                HandshakeError::WrongPeer { .. } => "ERR_WRONG_PEER",
                HandshakeError::Certificate(_) => "ERR_CERTIFICATE",
                HandshakeError::TimedOut { .. } => "ERR_TIMED_OUT",
                _ => "ERR_HANDSHAKE",
            },
            _ => "ERR_UNREACHABLE",
        }
    }
}

impl Coded for ListenError {
    fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedAddress { .. } => "ERR_UNSUPPORTED_ADDRESS",
            _ => "ERR_LISTEN",
        }
    }
}

impl Coded for OpenStreamError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotConnected { .. } => "ERR_NOT_CONNECTED",
            Self::ConnectionClosed { .. } => "ERR_CONNECTION_CLOSED",
            Self::Limited { .. } => "ERR_LIMITED_CONNECTION",
            Self::LimitExceeded { .. } => "ERR_TOO_MANY_STREAMS",
            Self::ConnectionLost(error) => error.code(),
            Self::Negotiation { source, .. } => source.code(),
            Self::TimedOut { .. } => "ERR_TIMED_OUT",
            _ => "ERR_CONNECTION_CLOSED",
        }
    }
}

impl Coded for NegotiationError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoCommonProtocol => "ERR_PROTOCOL_NOT_SUPPORTED",
            Self::Stream(error) => error.code(),
            _ => "ERR_PROTOCOL_VIOLATION",
        }
    }
}

impl Coded for StreamError {
    fn code(&self) -> &'static str {
        match self {
            Self::Reset { .. } => "ERR_STREAM_RESET",
            Self::WriteClosed => "ERR_STREAM_CLOSED",
            Self::ConnectionLost(error) => error.code(),
            Self::ProtocolNotSupported => "ERR_PROTOCOL_NOT_SUPPORTED",
            _ => "ERR_PROTOCOL_VIOLATION",
        }
    }
}

impl Coded for ConnectionError {
    fn code(&self) -> &'static str {
        match self {
            Self::TimedOut => "ERR_TIMED_OUT",
            Self::CircuitEnded { .. } => "ERR_CIRCUIT_ENDED",
            Self::ClosedFor { reason: CloseReason::GarbageCollected, .. } => "ERR_CONNECTION_TRIMMED",
            Self::Protocol(_) => "ERR_PROTOCOL_VIOLATION",
            _ => "ERR_CONNECTION_CLOSED",
        }
    }
}

impl Coded for PingError {
    fn code(&self) -> &'static str {
        match self {
            Self::Open(error) => error.code(),
            Self::Stream(error) => error.code(),
            Self::TimedOut => "ERR_TIMED_OUT",
            _ => "ERR_PROTOCOL_VIOLATION",
        }
    }
}

impl Coded for HandleError {
    fn code(&self) -> &'static str {
        match self {
            Self::AlreadyHandled { .. } => "ERR_ALREADY_HANDLED",
            _ => "ERR_TOO_MANY_PROTOCOLS",
        }
    }
}

/// A stream's error, with the code that came with a reset.
pub(crate) fn stream_error(of: &StreamError) -> JsValue {
    let error = coded(of);
    if let StreamError::Reset { code } = of {
        js::set_property(&error, "streamErrorCode", &JsValue::from(*code));
    }
    error
}
