//! Version 1: a peer is asked to dial all addresses back at once, and tells of one that worked. autonat-v1 spec. Nothing of
//! what it tells can be proved, so it is asked only where nobody speaks version 2, and believed later.

#![warn(clippy::arithmetic_side_effects)]

use bytes::Bytes;
use peerloom_core::{Multiaddr, PeerId};
use prost::Message as _;

use crate::message::MessageError;

/// The longest message, in bytes.
pub const MAX_MESSAGE_LENGTH: usize = 4096;
/// Addresses that are sent; servers try fewer.
pub const MAX_ADDRESSES: usize = 16;

const DIAL: i32 = 0;
const DIAL_RESPONSE: i32 = 1;

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub status: Status,
    /// Where it has reached us.
    pub address: Option<Multiaddr>,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// There was a connection.
    Ok,
    /// None of the addresses could be dialed.
    DialError,
    /// The server does not dial them.
    DialRefused,
    /// Anything else.
    Other(i32),
}

/// Asks a server to dial `peer`, which is us. The wire form, without the length before it.
pub fn encode_dial(peer: PeerId, addresses: &[Multiaddr]) -> Vec<u8> {
    let addrs = addresses.iter().take(MAX_ADDRESSES);
    let addrs = addrs.map(|address| Bytes::copy_from_slice(address.as_bytes())).collect();
    let peer = PeerWire { id: Some(peer.to_bytes().into()), addrs };
    MessageWire { kind: Some(DIAL), dial: Some(DialWire { peer: Some(peer) }), response: None }
        .encode_to_vec()
}

impl Response {
    /// Parses the wire form.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let wire = MessageWire::decode(bytes)?;
        let response = wire.response.filter(|_| wire.kind == Some(DIAL_RESPONSE));
        let response = response.ok_or(MessageError::UnknownType)?;
        let status = match response.status.unwrap_or(0) {
            0 => Status::Ok,
            100 => Status::DialError,
            101 => Status::DialRefused,
            other => Status::Other(other),
        };
        let address = response.addr.and_then(|bytes| Multiaddr::from_bytes(&bytes).ok());
        Ok(Self { status, address: address.map(|address| address.without_peer_id()) })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct MessageWire {
    #[prost(int32, optional, tag = "1")]
    kind: Option<i32>,
    #[prost(message, optional, tag = "2")]
    dial: Option<DialWire>,
    #[prost(message, optional, tag = "3")]
    response: Option<ResponseWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DialWire {
    #[prost(message, optional, tag = "1")]
    peer: Option<PeerWire>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PeerWire {
    #[prost(bytes = "bytes", optional, tag = "1")]
    id: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    addrs: Vec<Bytes>,
}

/// The field `statusText` (2) is for people.
#[derive(Clone, PartialEq, prost::Message)]
struct ResponseWire {
    #[prost(int32, optional, tag = "1")]
    status: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    addr: Option<Bytes>,
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_the_spec_s_bytes() {
        let peer = Keypair::from_seed([1; 32]).peer_id();
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/5".parse().unwrap();
        let id = peer.to_bytes();
        let info = [&[0x0a, id.len() as u8][..], &id, &[0x12, 8], address.as_bytes()].concat();
        let expected = [&[0x08, 0, 0x12, info.len() as u8 + 2, 0x0a, info.len() as u8][..], &info].concat();
        assert_eq!(encode_dial(peer, &[address]), expected);
    }

    #[test]
    fn an_answer_tells_the_address_and_a_request_is_none() {
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/5".parse().unwrap();
        let answer = |status: u8| {
            let inner = [&[0x08, status, 0x1a, 8][..], address.as_bytes()].concat();
            [&[0x08, 1, 0x1a, inner.len() as u8][..], &inner].concat()
        };
        let expected = Response { status: Status::Ok, address: Some(address.clone()) };
        assert_eq!(Response::decode(&answer(0)), Ok(expected));
        assert_eq!(Response::decode(&answer(100)).unwrap().status, Status::DialError);
        assert_eq!(Response::decode(&answer(101)).unwrap().status, Status::DialRefused);
        let request = encode_dial(Keypair::from_seed([1; 32]).peer_id(), &[]);
        assert_eq!(Response::decode(&request), Err(MessageError::UnknownType));
    }

    proptest! {
        #[test]
        fn nothing_that_a_remote_sends_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Response::decode(&bytes);
        }
    }
}
