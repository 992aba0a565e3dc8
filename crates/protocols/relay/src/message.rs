//! The messages of both protocols: their wire form, and what is left of one after parsing. circuit-v2 spec, "Protobuf".

#![warn(clippy::arithmetic_side_effects)]

use std::{fmt, time::Duration};

use bytes::Bytes;
use peerloom_core::{CircuitLimits, Multiaddr, PeerId, PeerIdError};
use prost::Message;

/// The longest message, in bytes, as all implementations have it.
pub const MAX_MESSAGE_LENGTH: usize = 4096;
/// Addresses taken from a reservation; further ones are ignored.
pub const MAX_ADDRESSES: usize = 16;

/// A message of `/libp2p/circuit/relay/0.2.0/hop`, between a client and its relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HopMessage {
    /// The client asks to be reachable through the relay.
    Reserve,
    /// The client asks for a circuit. Addresses that a client may send along are ignored: a relay of ours dials nobody.
    Connect {
        /// To this peer.
        destination: PeerId,
    },
    /// The relay answers.
    Status {
        /// How it went.
        status: Status,
        /// What was reserved.
        reservation: Option<Reservation>,
        /// What circuits may carry.
        limits: CircuitLimits,
    },
}

/// A message of `/libp2p/circuit/relay/0.2.0/stop`, between a relay and the destination of a circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopMessage {
    /// The relay announces a circuit.
    Connect {
        /// From this peer.
        source: PeerId,
        /// What the circuit may carry.
        limits: CircuitLimits,
    },
    /// The destination answers.
    Status(Status),
}

/// What a relay has reserved for a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservation {
    /// When it ends, in seconds since 1970 by the relay's clock.
    pub expires: u64,
    /// Where the relay is reached, each with its `/p2p/…`. Those that are malformed are left out.
    pub addresses: Vec<Multiaddr>,
    /// A signed [`Voucher`](crate::Voucher), not verified yet; empty if there is none.
    pub voucher: Bytes,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// As asked.
    Ok,
    /// There is no place for a reservation.
    ReservationRefused,
    /// The source or the destination has too many circuits.
    ResourceLimitExceeded,
    /// The peer may not ask for this.
    PermissionDenied,
    /// The destination does not answer, or refuses.
    ConnectionFailed,
    /// The destination is not reachable through this relay.
    NoReservation,
    /// The request could not be parsed.
    MalformedMessage,
    /// The request was out of order.
    UnexpectedMessage,
    /// A code that the spec does not name.
    Other(i32),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// They are not the protobuf message.
    #[error("relay message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A field that must be there is not.
    #[error("relay message without its {0}")]
    Missing(&'static str),
    /// It is of a type that the spec does not name.
    #[error("relay message of unknown type {0}")]
    UnknownType(i32),
    /// The peer id in it is none.
    #[error("relay message: {0}")]
    PeerId(#[from] PeerIdError),
}

impl HopMessage {
    /// The wire form, without the length before it.
    pub fn encode(&self) -> Vec<u8> {
        let wire = match self {
            Self::Reserve => HopWire { kind: Some(HOP_RESERVE), ..HopWire::default() },
            Self::Connect { destination } => HopWire {
                kind: Some(HOP_CONNECT),
                peer: Some(PeerWire::of(*destination)),
                ..HopWire::default()
            },
            Self::Status { status, reservation, limits } => HopWire {
                kind: Some(HOP_STATUS),
                peer: None,
                reservation: reservation.as_ref().map(ReservationWire::of),
                limit: LimitWire::of(*limits),
                status: Some(status.code()),
            },
        };
        wire.encode_to_vec()
    }

    /// Parses the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let wire = HopWire::decode(bytes)?;
        match wire.kind.ok_or(MessageError::Missing("type"))? {
            HOP_RESERVE => Ok(Self::Reserve),
            HOP_CONNECT => Ok(Self::Connect { destination: peer_id(wire.peer)? }),
            HOP_STATUS => Ok(Self::Status {
                status: Status::from_code(wire.status.ok_or(MessageError::Missing("status"))?),
                reservation: wire.reservation.map(ReservationWire::parse).transpose()?,
                limits: limits(wire.limit),
            }),
            other => Err(MessageError::UnknownType(other)),
        }
    }
}

impl StopMessage {
    /// The wire form, without the length before it.
    pub fn encode(&self) -> Vec<u8> {
        let wire = match self {
            Self::Connect { source, limits } => StopWire {
                kind: Some(STOP_CONNECT),
                peer: Some(PeerWire::of(*source)),
                limit: LimitWire::of(*limits),
                status: None,
            },
            Self::Status(status) => {
                StopWire { kind: Some(STOP_STATUS), status: Some(status.code()), ..StopWire::default() }
            }
        };
        wire.encode_to_vec()
    }

    /// Parses the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let wire = StopWire::decode(bytes)?;
        match wire.kind.ok_or(MessageError::Missing("type"))? {
            STOP_CONNECT => Ok(Self::Connect { source: peer_id(wire.peer)?, limits: limits(wire.limit) }),
            STOP_STATUS => {
                Ok(Self::Status(Status::from_code(wire.status.ok_or(MessageError::Missing("status"))?)))
            }
            other => Err(MessageError::UnknownType(other)),
        }
    }
}

impl Status {
    /// Its number on the wire.
    pub fn code(self) -> i32 {
        match self {
            Self::Ok => 100,
            Self::ReservationRefused => 200,
            Self::ResourceLimitExceeded => 201,
            Self::PermissionDenied => 202,
            Self::ConnectionFailed => 203,
            Self::NoReservation => 204,
            Self::MalformedMessage => 400,
            Self::UnexpectedMessage => 401,
            Self::Other(code) => code,
        }
    }

    /// What the number on the wire means.
    pub fn from_code(code: i32) -> Self {
        match code {
            100 => Self::Ok,
            200 => Self::ReservationRefused,
            201 => Self::ResourceLimitExceeded,
            202 => Self::PermissionDenied,
            203 => Self::ConnectionFailed,
            204 => Self::NoReservation,
            400 => Self::MalformedMessage,
            401 => Self::UnexpectedMessage,
            other => Self::Other(other),
        }
    }
}

/// As the end of a sentence whose subject is who answered.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "agreed",
            Self::ReservationRefused => "has no place for a reservation (RESERVATION_REFUSED)",
            Self::ResourceLimitExceeded => "has no room for another circuit (RESOURCE_LIMIT_EXCEEDED)",
            Self::PermissionDenied => "does not permit it (PERMISSION_DENIED)",
            Self::ConnectionFailed => "could not connect to the destination (CONNECTION_FAILED)",
            Self::NoReservation => "has no reservation for the destination (NO_RESERVATION)",
            Self::MalformedMessage => "could not parse the request (MALFORMED_MESSAGE)",
            Self::UnexpectedMessage => "did not expect the request (UNEXPECTED_MESSAGE)",
            Self::Other(code) => return write!(f, "answered with the unknown status {code}"),
        })
    }
}

const HOP_RESERVE: i32 = 0;
const HOP_CONNECT: i32 = 1;
const HOP_STATUS: i32 = 2;
const STOP_CONNECT: i32 = 0;
const STOP_STATUS: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HopWire {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    peer: Option<PeerWire>,
    #[prost(message, optional, tag = "3")]
    reservation: Option<ReservationWire>,
    #[prost(message, optional, tag = "4")]
    limit: Option<LimitWire>,
    #[prost(int32, optional, tag = "5")]
    status: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct StopWire {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    peer: Option<PeerWire>,
    #[prost(message, optional, tag = "3")]
    limit: Option<LimitWire>,
    #[prost(int32, optional, tag = "4")]
    status: Option<i32>,
}

/// The field `addrs` (2) is for relays that dial, which the spec deprecates.
#[derive(Clone, PartialEq, Message)]
struct PeerWire {
    #[prost(bytes = "bytes", optional, tag = "1")]
    id: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct ReservationWire {
    #[prost(uint64, optional, tag = "1")]
    expire: Option<u64>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    addrs: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    voucher: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct LimitWire {
    #[prost(uint32, optional, tag = "1")]
    duration: Option<u32>,
    #[prost(uint64, optional, tag = "2")]
    data: Option<u64>,
}

impl PeerWire {
    fn of(peer: PeerId) -> Self {
        Self { id: Some(peer.to_bytes().into()) }
    }
}

fn peer_id(wire: Option<PeerWire>) -> Result<PeerId, MessageError> {
    let id = wire.and_then(|peer| peer.id).ok_or(MessageError::Missing("peer"))?;
    Ok(PeerId::from_bytes(&id)?)
}

impl ReservationWire {
    fn of(reservation: &Reservation) -> Self {
        let addresses = reservation.addresses.iter().take(MAX_ADDRESSES);
        Self {
            expire: Some(reservation.expires),
            addrs: addresses.map(|address| Bytes::copy_from_slice(address.as_bytes())).collect(),
            voucher: Some(reservation.voucher.clone()).filter(|voucher| !voucher.is_empty()),
        }
    }

    fn parse(self) -> Result<Reservation, MessageError> {
        let addresses = self.addrs.iter().take(MAX_ADDRESSES);
        Ok(Reservation {
            expires: self.expire.ok_or(MessageError::Missing("expire"))?,
            // One address that we cannot parse says nothing against the others.
            addresses: addresses.filter_map(|bytes| Multiaddr::from_bytes(bytes).ok()).collect(),
            voucher: self.voucher.unwrap_or_default(),
        })
    }
}

impl LimitWire {
    /// A limit that is none is left out: "When omitted, it indicates that the relay does not apply any limits."
    fn of(limits: CircuitLimits) -> Option<Self> {
        // 0 would mean that there is no limit, so less than a second counts as one.
        let seconds = |duration: Duration| duration.as_secs().max(1).try_into().unwrap_or(u32::MAX);
        (limits != CircuitLimits::default()).then(|| Self {
            duration: limits.duration.map(seconds),
            data: limits.bytes.map(|bytes| bytes.max(1)),
        })
    }
}

fn limits(wire: Option<LimitWire>) -> CircuitLimits {
    let Some(wire) = wire else { return CircuitLimits::default() };
    CircuitLimits {
        bytes: wire.data.filter(|bytes| *bytes > 0),
        duration: wire
            .duration
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.into())),
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn peer(seed: u8) -> PeerId {
        Keypair::from_seed([seed; 32]).peer_id()
    }

    #[test]
    fn a_reserve_message_has_the_spec_s_bytes() {
        assert_eq!(HopMessage::Reserve.encode(), [0x08, 0x00]);
        assert_eq!(StopMessage::Status(Status::Ok).encode(), [0x08, 0x01, 0x20, 100]);
    }

    #[test]
    fn a_limit_of_zero_or_none_is_no_limit() {
        let unlimited =
            HopMessage::Status { status: Status::Ok, reservation: None, limits: CircuitLimits::default() };
        assert_eq!(HopMessage::decode(&unlimited.encode()), Ok(unlimited.clone()));
        // type = STATUS, limit { duration = 0, data = 0 }, status = OK
        let zeroes = [0x08, 2, 0x22, 4, 0x08, 0, 0x10, 0, 0x28, 100];
        assert_eq!(HopMessage::decode(&zeroes), Ok(unlimited));
    }

    #[test]
    fn messages_without_what_they_need_are_refused() {
        assert_eq!(HopMessage::decode(&[]), Err(MessageError::Missing("type")));
        assert_eq!(HopMessage::decode(&[0x08, 1]), Err(MessageError::Missing("peer")));
        assert_eq!(HopMessage::decode(&[0x08, 2]), Err(MessageError::Missing("status")));
        assert_eq!(HopMessage::decode(&[0x08, 3]), Err(MessageError::UnknownType(3)));
        assert_eq!(StopMessage::decode(&[0x08, 0]), Err(MessageError::Missing("peer")));
        assert_eq!(StopMessage::decode(&[0x08, 2]), Err(MessageError::UnknownType(2)));
        assert!(matches!(HopMessage::decode(&[0x08, 1, 0x12, 3, 0x0a, 1, 7]), Err(MessageError::PeerId(_))));
    }

    #[test]
    fn addresses_beyond_the_bound_and_malformed_ones_are_left_out() {
        let good: Multiaddr = "/ip4/1.2.3.4/tcp/1".parse().unwrap();
        let mut wire =
            ReservationWire { expire: Some(1), addrs: vec![Bytes::from_static(b"\xff")], voucher: None };
        wire.addrs.extend(std::iter::repeat_n(Bytes::from(good.to_bytes()), 100));
        assert_eq!(wire.parse().unwrap().addresses, vec![good; MAX_ADDRESSES - 1]);
    }

    fn any_limits() -> impl Strategy<Value = CircuitLimits> {
        (prop::option::of(1..u64::MAX), prop::option::of(1..u32::MAX)).prop_map(|(bytes, seconds)| {
            CircuitLimits { bytes, duration: seconds.map(|seconds| Duration::from_secs(seconds.into())) }
        })
    }

    fn any_hop() -> impl Strategy<Value = HopMessage> {
        let addresses = prop::collection::vec(any::<u16>(), 0..MAX_ADDRESSES).prop_map(|ports| {
            ports.iter().map(|port| format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap()).collect()
        });
        let reservation = (any::<u64>(), addresses, prop::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(expires, addresses, voucher)| Reservation { expires, addresses, voucher: voucher.into() },
        );
        prop_oneof![
            Just(HopMessage::Reserve),
            any::<u8>().prop_map(|seed| HopMessage::Connect { destination: peer(seed) }),
            (any::<i32>(), prop::option::of(reservation), any_limits()).prop_map(
                |(code, reservation, limits)| HopMessage::Status {
                    status: Status::from_code(code),
                    reservation,
                    limits
                }
            ),
        ]
    }

    fn any_stop() -> impl Strategy<Value = StopMessage> {
        prop_oneof![
            (any::<u8>(), any_limits())
                .prop_map(|(seed, limits)| StopMessage::Connect { source: peer(seed), limits }),
            any::<i32>().prop_map(|code| StopMessage::Status(Status::from_code(code))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(hop in any_hop(), stop in any_stop()) {
            prop_assert_eq!(HopMessage::decode(&hop.encode()), Ok(hop));
            prop_assert_eq!(StopMessage::decode(&stop.encode()), Ok(stop));
        }

        #[test]
        fn nothing_that_a_remote_sends_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = HopMessage::decode(&bytes);
            let _ = StopMessage::decode(&bytes);
        }

        #[test]
        fn cut_and_changed_messages_never_panic(hop in any_hop(), cut in any::<prop::sample::Index>(), flip: u8) {
            let mut bytes = hop.encode();
            let at = cut.index(bytes.len());
            bytes[at] ^= flip;
            let _ = HopMessage::decode(&bytes);
            let _ = HopMessage::decode(&bytes[..at]);
        }
    }
}
