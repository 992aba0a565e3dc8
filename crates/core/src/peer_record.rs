//! [`PeerRecord`]: the addresses of a peer in its own words (RFC 0003).

use bytes::Bytes;
use prost::Message;

use crate::{
    keys::Keypair,
    multiaddr::Multiaddr,
    peer_id::{PeerId, PeerIdError},
    signed_envelope::{EnvelopeError, SignedEnvelope},
};

/// The domain that records are signed for. (The RFC says another; all implementations use this one.)
const DOMAIN: &str = "libp2p-peer-record";
/// The multicodec libp2p-peer-record, 0x0301, as all implementations write it.
const PAYLOAD_TYPE: [u8; 2] = [0x03, 0x01];
/// RFC 0003's own domain and payload type, which rust-libp2p still signs with.
const RFC_DOMAIN: &str = "libp2p-routing-state";
const RFC_PAYLOAD_TYPE: &[u8] = b"/libp2p/routing-state-record";

/// Addresses of a peer, signed by itself when in an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Whose addresses these are.
    pub peer_id: PeerId,
    /// Of two records of a peer the one with the greater number is the newer one. Not a time, whatever it looks like.
    pub sequence: u64,
    /// The addresses, at most [`PeerRecord::MAX_ADDRESSES`].
    pub addresses: Vec<Multiaddr>,
}

/// Why a record is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRecordError {
    /// The envelope around it is not valid.
    #[error("peer record: {0}")]
    Envelope(#[from] EnvelopeError),
    /// It is not the protobuf message of a record.
    #[error("peer record is malformed")]
    Malformed,
    /// The peer id in it is none.
    #[error("peer record: {0}")]
    PeerId(#[from] PeerIdError),
    /// Somebody else signed it than the peer that it speaks of.
    #[error("peer record of {peer} was signed by {signer}")]
    WrongSigner {
        /// The peer that the record names.
        peer: PeerId,
        /// The peer that signed it.
        signer: PeerId,
    },
    /// It has more addresses than [`PeerRecord::MAX_ADDRESSES`].
    #[error("peer record with {0} addresses; at most 128 are accepted")]
    TooManyAddresses(usize),
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    peer_id: Bytes,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(message, repeated, tag = "3")]
    addresses: Vec<AddressInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct AddressInfo {
    #[prost(bytes = "bytes", tag = "1")]
    multiaddr: Bytes,
}

impl PeerRecord {
    /// The most addresses that are accepted in a record.
    pub const MAX_ADDRESSES: usize = 128;

    /// The record in an envelope, signed by its own peer.
    pub fn seal(keypair: &Keypair, sequence: u64, addresses: &[Multiaddr]) -> SignedEnvelope {
        let record = Record {
            peer_id: keypair.peer_id().to_bytes().into(),
            seq: sequence,
            addresses: addresses
                .iter()
                .map(|address| AddressInfo { multiaddr: address.to_bytes().into() })
                .collect(),
        };
        SignedEnvelope::seal(keypair, DOMAIN, &PAYLOAD_TYPE, record.encode_to_vec())
    }

    /// The record in `envelope`, if the peer that it speaks of signed it. Addresses that are malformed are left out.
    pub async fn open(envelope: &SignedEnvelope) -> Result<Self, PeerRecordError> {
        let payload = match envelope.payload_type() {
            RFC_PAYLOAD_TYPE => envelope.verify(RFC_DOMAIN, RFC_PAYLOAD_TYPE).await?,
            _ => envelope.verify(DOMAIN, &PAYLOAD_TYPE).await?,
        };
        let record = Record::decode(payload.clone()).map_err(|_| PeerRecordError::Malformed)?;
        let peer_id = PeerId::from_bytes(&record.peer_id)?;
        // RFC 0003: a record whose peer id is not that of the envelope's key MUST be discarded.
        let signer = envelope.public_key().peer_id();
        if peer_id != signer {
            return Err(PeerRecordError::WrongSigner { peer: peer_id, signer });
        }
        if record.addresses.len() > Self::MAX_ADDRESSES {
            return Err(PeerRecordError::TooManyAddresses(record.addresses.len()));
        }
        let addresses =
            record.addresses.into_iter().filter_map(|info| info.multiaddr.try_into().ok()).collect();
        Ok(Self { peer_id, sequence: record.seq, addresses })
    }
}
