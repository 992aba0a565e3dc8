//! The messages of version 2: their wire form, and what is left of one after parsing. autonat-v2 spec, "RPC Messages".

#![warn(clippy::arithmetic_side_effects)]

use bytes::Bytes;
use peerloom_core::Multiaddr;
use prost::Message as _;

/// The longest message of `/libp2p/autonat/2/dial-request`, in bytes, as go-libp2p has it.
pub const MAX_MESSAGE_LENGTH: usize = 8192;
/// The longest message of `/libp2p/autonat/2/dial-back`, in bytes.
pub const MAX_DIAL_BACK_LENGTH: usize = 1024;
/// Addresses considered of one request; further ones are ignored.
pub const MAX_ADDRESSES: usize = 50;
/// The most that one [`DialDataResponse`](Message::DialDataResponse) may carry, in bytes.
pub const MAX_DATA_LENGTH: usize = 4096;

/// A message of `/libp2p/autonat/2/dial-request`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The client asks for one of its addresses to be dialed.
    DialRequest {
        /// Those that matter most first; `None` for one that is malformed, so that the others keep their place.
        addresses: Vec<Option<Multiaddr>>,
        /// What is to be sent there.
        nonce: u64,
    },
    /// The server has done so, or not.
    DialResponse(DialResponse),
    /// The server wants something in return, for the address is not the client's.
    DialDataRequest {
        /// The place of the address in the request.
        index: u32,
        /// How much, in bytes.
        bytes: u64,
    },
    /// Some of that.
    DialDataResponse {
        /// Of no meaning.
        data: Bytes,
    },
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialResponse {
    /// Whether it was served.
    pub status: ResponseStatus,
    /// The place in the request of the address that was dialed. Without meaning if none was.
    pub index: u32,
    /// How the dial went.
    pub dial: DialStatus,
}

/// Whether a request was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseStatus {
    /// Something went wrong.
    InternalError,
    /// The server has too much to do, or none of the client.
    RequestRejected,
    /// The server does not dial any of the addresses.
    DialRefused,
    /// It was.
    Ok,
    /// A code that the spec does not name.
    Other(i32),
}

/// How a dial went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DialStatus {
    /// Nothing was dialed.
    Unused,
    /// There was no connection.
    DialError,
    /// There was one, but the nonce did not get through.
    DialBackError,
    /// The nonce was sent.
    Ok,
    /// A code that the spec does not name.
    Other(i32),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// They are not the protobuf message.
    #[error("AutoNAT message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// It is none of those that the spec names.
    #[error("AutoNAT message of no known type")]
    UnknownType,
}

impl Message {
    /// The wire form, without the length before it.
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self {
            Self::DialRequest { addresses, nonce } => {
                let bytes = |address: &Option<Multiaddr>| {
                    address
                        .as_ref()
                        .map(|address| Bytes::copy_from_slice(address.as_bytes()))
                        .unwrap_or_default()
                };
                let addrs = addresses.iter().take(MAX_ADDRESSES).map(bytes).collect();
                Kind::Request(DialRequestWire { addrs, nonce: *nonce })
            }
            Self::DialResponse(response) => Kind::Response(DialResponseWire {
                status: response.status.code(),
                addr_idx: response.index,
                dial_status: response.dial.code(),
            }),
            Self::DialDataRequest { index, bytes } => {
                Kind::DataRequest(DialDataRequestWire { addr_idx: *index, num_bytes: *bytes })
            }
            Self::DialDataResponse { data } => {
                Kind::DataResponse(DialDataResponseWire { data: data.clone() })
            }
        };
        MessageWire { msg: Some(kind) }.encode_to_vec()
    }

    /// Parses the wire form.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        Ok(match MessageWire::decode(bytes)?.msg.ok_or(MessageError::UnknownType)? {
            Kind::Request(wire) => {
                let addresses = wire.addrs.into_iter().take(MAX_ADDRESSES);
                let addresses = addresses.map(|bytes| parse_address(&bytes)).collect();
                Self::DialRequest { addresses, nonce: wire.nonce }
            }
            Kind::Response(wire) => Self::DialResponse(DialResponse {
                status: ResponseStatus::from_code(wire.status),
                index: wire.addr_idx,
                dial: DialStatus::from_code(wire.dial_status),
            }),
            Kind::DataRequest(wire) => Self::DialDataRequest { index: wire.addr_idx, bytes: wire.num_bytes },
            Kind::DataResponse(wire) => Self::DialDataResponse { data: wire.data },
        })
    }
}

/// An address without components is none.
fn parse_address(bytes: &[u8]) -> Option<Multiaddr> {
    Multiaddr::from_bytes(bytes).ok().filter(|address| !address.as_bytes().is_empty())
}

/// The message of `/libp2p/autonat/2/dial-back`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialBack {
    /// That of the request.
    pub nonce: u64,
}

impl DialBack {
    /// The wire form, without the length before it.
    pub fn encode(self) -> Vec<u8> {
        DialBackWire { nonce: self.nonce }.encode_to_vec()
    }

    /// Parses the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        Ok(Self { nonce: DialBackWire::decode(bytes)?.nonce })
    }
}

/// The answer to a [`DialBack`]: that it has arrived. There is but one status, OK, which is the default value of its field.
pub fn encode_dial_back_response() -> Vec<u8> {
    DialBackResponseWire { status: 0 }.encode_to_vec()
}

impl ResponseStatus {
    /// Its number on the wire.
    pub fn code(self) -> i32 {
        match self {
            Self::InternalError => 0,
            Self::RequestRejected => 100,
            Self::DialRefused => 101,
            Self::Ok => 200,
            Self::Other(code) => code,
        }
    }

    /// What the number on the wire means.
    pub fn from_code(code: i32) -> Self {
        match code {
            0 => Self::InternalError,
            100 => Self::RequestRejected,
            101 => Self::DialRefused,
            200 => Self::Ok,
            other => Self::Other(other),
        }
    }
}

impl DialStatus {
    /// Its number on the wire.
    pub fn code(self) -> i32 {
        match self {
            Self::Unused => 0,
            Self::DialError => 100,
            Self::DialBackError => 101,
            Self::Ok => 200,
            Self::Other(code) => code,
        }
    }

    /// What the number on the wire means.
    pub fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Unused,
            100 => Self::DialError,
            101 => Self::DialBackError,
            200 => Self::Ok,
            other => Self::Other(other),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct MessageWire {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
    msg: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Request(DialRequestWire),
    #[prost(message, tag = "2")]
    Response(DialResponseWire),
    #[prost(message, tag = "3")]
    DataRequest(DialDataRequestWire),
    #[prost(message, tag = "4")]
    DataResponse(DialDataResponseWire),
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialRequestWire {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    addrs: Vec<Bytes>,
    #[prost(fixed64, tag = "2")]
    nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialResponseWire {
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(uint32, tag = "2")]
    addr_idx: u32,
    #[prost(int32, tag = "3")]
    dial_status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialDataRequestWire {
    #[prost(uint32, tag = "1")]
    addr_idx: u32,
    #[prost(uint64, tag = "2")]
    num_bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialDataResponseWire {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialBackWire {
    #[prost(fixed64, tag = "1")]
    nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialBackResponseWire {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(address: &str) -> Multiaddr {
        address.parse().unwrap()
    }

    #[test]
    fn messages_have_the_spec_s_bytes() {
        let address = parse("/ip4/1.2.3.4/tcp/5");
        let request = Message::DialRequest { addresses: vec![Some(address.clone())], nonce: 0x0102 };
        let inner = [&[0x0a, 8][..], address.as_bytes(), &[0x11, 2, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(request.encode(), [&[0x0a, 19][..], &inner].concat());
        let response = DialResponse { status: ResponseStatus::Ok, index: 1, dial: DialStatus::DialBackError };
        assert_eq!(Message::DialResponse(response).encode(), [0x12, 7, 0x08, 0xc8, 1, 0x10, 1, 0x18, 101]);
        let wanted = Message::DialDataRequest { index: 2, bytes: 300 };
        assert_eq!(wanted.encode(), [0x1a, 5, 0x08, 2, 0x10, 0xac, 2]);
        let data = Message::DialDataResponse { data: Bytes::from_static(&[7, 7]) };
        assert_eq!(data.encode(), [0x22, 4, 0x0a, 2, 7, 7]);
        assert_eq!(DialBack { nonce: 1 }.encode(), [0x09, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode_dial_back_response(), []);
    }

    #[test]
    fn malformed_addresses_keep_their_place_and_those_beyond_the_bound_are_left_out() {
        let good = Bytes::copy_from_slice(parse("/ip4/1.2.3.4/tcp/1").as_bytes());
        let mut addrs = vec![Bytes::from_static(b"\xff"), Bytes::new()];
        addrs.extend(std::iter::repeat_n(good, 100));
        let wire = MessageWire { msg: Some(Kind::Request(DialRequestWire { addrs, nonce: 0 })) };
        let Ok(Message::DialRequest { addresses, .. }) = Message::decode(wire.encode_to_vec().into()) else {
            panic!("not a request");
        };
        assert_eq!(addresses.len(), MAX_ADDRESSES);
        assert!(addresses[..2].iter().all(Option::is_none) && addresses[2..].iter().all(Option::is_some));
    }

    #[test]
    fn a_message_of_no_known_type_is_refused() {
        assert_eq!(Message::decode(Bytes::new()), Err(MessageError::UnknownType));
        assert_eq!(Message::decode(Bytes::from_static(&[0x2a, 0])), Err(MessageError::UnknownType));
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let address = prop::option::of(any::<u16>())
            .prop_map(|port| port.map(|port| parse(&format!("/ip4/1.2.3.4/udp/{port}/quic-v1"))));
        prop_oneof![
            (prop::collection::vec(address, 0..MAX_ADDRESSES), any::<u64>())
                .prop_map(|(addresses, nonce)| Message::DialRequest { addresses, nonce }),
            (any::<i32>(), any::<u32>(), any::<i32>()).prop_map(|(status, index, dial)| {
                let (status, dial) = (ResponseStatus::from_code(status), DialStatus::from_code(dial));
                Message::DialResponse(DialResponse { status, index, dial })
            }),
            (any::<u32>(), any::<u64>()).prop_map(|(index, bytes)| Message::DialDataRequest { index, bytes }),
            prop::collection::vec(any::<u8>(), 0..200)
                .prop_map(|data| Message::DialDataResponse { data: data.into() }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(message in any_message(), nonce: u64) {
            prop_assert_eq!(Message::decode(message.encode().into()), Ok(message));
            prop_assert_eq!(DialBack::decode(&DialBack { nonce }.encode()), Ok(DialBack { nonce }));
        }

        #[test]
        fn nothing_that_a_remote_sends_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = DialBack::decode(&bytes);
            let _ = Message::decode(bytes.into());
        }

        #[test]
        fn the_largest_request_and_the_largest_data_fit(addresses in 0..MAX_ADDRESSES) {
            let longest = parse(&format!("/ip6/2001:db8:1:2:3:4:5:6/udp/65535/quic-v1/webtransport{}",
                "/certhash/uEiAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw".repeat(2)));
            let request = Message::DialRequest { addresses: vec![Some(longest); addresses], nonce: u64::MAX };
            prop_assert!(request.encode().len() <= MAX_MESSAGE_LENGTH);
            let data = Message::DialDataResponse { data: vec![1; MAX_DATA_LENGTH].into() };
            prop_assert!(data.encode().len() <= MAX_MESSAGE_LENGTH);
        }
    }
}
