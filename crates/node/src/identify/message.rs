//! The identify message: its wire form, and what is left of one after parsing.

use bytes::{Bytes, BytesMut};
use peerloom_core::{EnvelopeError, KeyError, Multiaddr, ProtocolName, PublicKey, SignedEnvelope};
use prost::Message;

/// The longest single message, in bytes.
pub const MAX_MESSAGE_LENGTH: usize = 8 * 1024;
/// A sender may cut what it tells into so many messages (as go-libp2p does for signed records).
pub const MAX_MESSAGES: usize = 10;
/// Protocols kept of one peer; further ones are ignored.
pub const MAX_PROTOCOLS: usize = 256;
/// Addresses kept of one message; further ones are ignored.
pub const MAX_ADDRESSES: usize = 32;
/// Bytes kept of a version string.
pub const MAX_VERSION_LENGTH: usize = 128;

/// What a peer tells of itself. Absent parts are `None` or empty.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Identification {
    /// The peer's key.
    pub public_key: Option<PublicKey>,
    /// Where it listens, unsigned.
    pub listen_addresses: Vec<Multiaddr>,
    /// What it handles.
    pub protocols: Vec<ProtocolName>,
    /// The receiver's address as the sender sees it.
    pub observed_address: Option<Multiaddr>,
    /// Its network, as it calls it.
    pub protocol_version: Option<String>,
    /// Its software, as it calls itself.
    pub agent_version: Option<String>,
    /// Its addresses, signed by itself; the signature is not verified yet.
    pub signed_record: Option<SignedEnvelope>,
}

/// Why bytes are no identify message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// They are not the protobuf message.
    #[error("not an identify message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// The key in it is none.
    #[error("public key: {0}")]
    PublicKey(#[from] KeyError),
    /// The envelope in it is none.
    #[error("signed peer record: {0}")]
    Envelope(#[from] EnvelopeError),
}

/// identify/README.md, "The Identify Message". Field 7 is not used.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(bytes = "bytes", optional, tag = "1")]
    public_key: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    listen_addrs: Vec<Bytes>,
    #[prost(string, repeated, tag = "3")]
    protocols: Vec<String>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    observed_addr: Option<Bytes>,
    #[prost(string, optional, tag = "5")]
    protocol_version: Option<String>,
    #[prost(string, optional, tag = "6")]
    agent_version: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    signed_peer_record: Option<Bytes>,
}

impl Identification {
    /// The messages that tell this, each within [`MAX_MESSAGE_LENGTH`]: the signed record goes into a second one if need be.
    pub(super) fn encode(&self) -> Vec<Vec<u8>> {
        let mut wire = Wire {
            public_key: self.public_key.as_ref().map(|key| key.encode_protobuf().into()),
            listen_addrs: self
                .listen_addresses
                .iter()
                .take(MAX_ADDRESSES)
                .map(|address| Bytes::copy_from_slice(address.as_bytes()))
                .collect(),
            protocols: self.protocols.iter().map(|protocol| protocol.as_str().to_owned()).collect(),
            observed_addr: self
                .observed_address
                .as_ref()
                .map(|address| Bytes::copy_from_slice(address.as_bytes())),
            protocol_version: self.protocol_version.clone(),
            agent_version: self.agent_version.clone(),
            signed_peer_record: self.signed_record.as_ref().map(|record| record.encode_protobuf().into()),
        };
        if wire.encoded_len() <= MAX_MESSAGE_LENGTH {
            return vec![wire.encode_to_vec()];
        }
        let record = Wire { signed_peer_record: wire.signed_peer_record.take(), ..Wire::default() };
        vec![wire.encode_to_vec(), record.encode_to_vec()]
    }

    /// What one or several messages tell. Concatenated protobuf messages are one message with all of their fields.
    pub(super) fn decode(messages: BytesMut) -> Result<Self, MessageError> {
        let wire = Wire::decode(messages.freeze())?;
        Ok(Self {
            public_key: wire.public_key.map(|key| PublicKey::decode_protobuf(&key)).transpose()?,
            // One address that we cannot parse says nothing against the others.
            listen_addresses: wire
                .listen_addrs
                .iter()
                .take(MAX_ADDRESSES)
                .filter_map(|bytes| Multiaddr::from_bytes(bytes).ok())
                .collect(),
            protocols: wire
                .protocols
                .iter()
                .take(MAX_PROTOCOLS)
                .filter_map(|name| name.parse().ok())
                .collect(),
            observed_address: wire.observed_addr.and_then(|bytes| Multiaddr::from_bytes(&bytes).ok()),
            protocol_version: wire.protocol_version.map(shorten),
            agent_version: wire.agent_version.map(shorten),
            signed_record: wire
                .signed_peer_record
                .map(|bytes| SignedEnvelope::decode_protobuf(&bytes))
                .transpose()?,
        })
    }
}

fn shorten(mut version: String) -> String {
    version.truncate(version.floor_char_boundary(MAX_VERSION_LENGTH));
    version
}

#[cfg(test)]
mod tests {
    use peerloom_core::{Keypair, PeerRecord};
    use proptest::prelude::*;

    use super::*;

    fn joined(messages: &[Vec<u8>]) -> BytesMut {
        messages.concat().as_slice().into()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let keypair = Keypair::generate();
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/4001".parse().unwrap();
        let told = Identification {
            public_key: Some(keypair.public().clone()),
            listen_addresses: vec![address.clone()],
            protocols: vec!["/echo/1.0.0".parse().unwrap()],
            observed_address: Some(address.clone()),
            protocol_version: Some("test".to_owned()),
            agent_version: Some("agent".to_owned()),
            signed_record: Some(PeerRecord::seal(&keypair, 7, &[address])),
        };
        let heard = Identification::decode(joined(&told.encode())).unwrap();
        assert_eq!(heard.public_key, told.public_key);
        assert_eq!(heard.listen_addresses, told.listen_addresses);
        assert_eq!(heard.protocols, told.protocols);
        assert_eq!(heard.observed_address, told.observed_address);
        assert_eq!(heard.agent_version, told.agent_version);
        assert!(heard.signed_record.is_some());
    }

    #[test]
    fn a_long_message_puts_the_record_into_a_second_one() {
        let keypair = Keypair::generate();
        let protocols = (0..100).map(|n| format!("/{:070}/{n}", 0).parse().unwrap()).collect();
        let addresses: Vec<_> = (1..60).map(|n| format!("/ip4/1.2.3.4/tcp/{n}").parse().unwrap()).collect();
        let record = PeerRecord::seal(&keypair, 7, &addresses);
        let told = Identification { protocols, signed_record: Some(record), ..Identification::default() };
        let messages = told.encode();
        assert_eq!(messages.len(), 2);
        assert!(messages.iter().all(|message| message.len() <= MAX_MESSAGE_LENGTH));
        let heard = Identification::decode(joined(&messages)).unwrap();
        assert_eq!((heard.protocols.len(), heard.signed_record.is_some()), (100, true));
    }

    #[test]
    fn an_endless_version_is_cut_at_a_character() {
        let told = Identification { agent_version: Some("ö".repeat(1000)), ..Identification::default() };
        let heard = Identification::decode(joined(&told.encode())).unwrap();
        assert_eq!(heard.agent_version.unwrap().len(), MAX_VERSION_LENGTH);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Identification::decode(bytes.as_slice().into());
        }
    }
}
