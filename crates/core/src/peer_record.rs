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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keypair() -> Keypair {
        Keypair::from_seed([7; 32])
    }

    fn addresses() -> Vec<Multiaddr> {
        ["/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/tcp/1/unknown-4096/uAAEC"]
            .map(|text| text.parse().unwrap())
            .into()
    }

    /// A record as somebody may have signed it who does not keep to the rules.
    fn signed(signer: &Keypair, record: &Record) -> SignedEnvelope {
        SignedEnvelope::seal(signer, DOMAIN, &PAYLOAD_TYPE, record.encode_to_vec())
    }

    fn record_of(peer: &Keypair, addresses: Vec<Vec<u8>>) -> Record {
        let addresses =
            addresses.into_iter().map(|address| AddressInfo { multiaddr: address.into() }).collect();
        Record { peer_id: peer.peer_id().to_bytes().into(), seq: 1, addresses }
    }

    #[tokio::test]
    async fn record_survives_the_wire() {
        let bytes = PeerRecord::seal(&keypair(), u64::MAX, &addresses()).encode_protobuf();
        let record = PeerRecord::open(&SignedEnvelope::decode_protobuf(&bytes).unwrap()).await.unwrap();
        let expected =
            PeerRecord { peer_id: keypair().peer_id(), sequence: u64::MAX, addresses: addresses() };
        assert_eq!(record, expected);
    }

    #[tokio::test]
    async fn record_signed_in_the_rfcs_own_domain_is_read() {
        let payload = record_of(&keypair(), Vec::new()).encode_to_vec();
        let envelope = SignedEnvelope::seal(&keypair(), RFC_DOMAIN, RFC_PAYLOAD_TYPE, payload.clone());
        assert!(PeerRecord::open(&envelope).await.is_ok());
        let mixed = SignedEnvelope::seal(&keypair(), DOMAIN, RFC_PAYLOAD_TYPE, payload);
        assert!(matches!(PeerRecord::open(&mixed).await, Err(PeerRecordError::Envelope(_))));
    }

    #[tokio::test]
    async fn record_that_another_peer_signed_is_refused() {
        let other = Keypair::from_seed([8; 32]);
        let result = PeerRecord::open(&signed(&other, &record_of(&keypair(), Vec::new()))).await;
        let wrong = PeerRecordError::WrongSigner { peer: keypair().peer_id(), signer: other.peer_id() };
        assert_eq!(result, Err(wrong));
    }

    #[tokio::test]
    async fn envelope_of_something_else_is_refused() {
        let envelope = SignedEnvelope::seal(&keypair(), DOMAIN, &[0x03, 0x02], Bytes::new());
        let result = PeerRecord::open(&envelope).await;
        assert_eq!(result, Err(PeerRecordError::Envelope(EnvelopeError::PayloadType)));
        let garbage = SignedEnvelope::seal(&keypair(), DOMAIN, &PAYLOAD_TYPE, &[0xff; 9][..]);
        assert_eq!(PeerRecord::open(&garbage).await, Err(PeerRecordError::Malformed));
        let nobody = signed(&keypair(), &Record::default());
        assert!(matches!(PeerRecord::open(&nobody).await, Err(PeerRecordError::PeerId(_))));
    }

    #[tokio::test]
    async fn malformed_addresses_are_left_out_and_too_many_are_refused() {
        let good = addresses();
        let mixed = vec![good[0].to_bytes(), vec![4, 1], Vec::new(), good[1].to_bytes()];
        let record = PeerRecord::open(&signed(&keypair(), &record_of(&keypair(), mixed))).await.unwrap();
        assert_eq!(record.addresses, good);
        let many = record_of(&keypair(), vec![vec![4, 1]; PeerRecord::MAX_ADDRESSES + 1]);
        let result = PeerRecord::open(&signed(&keypair(), &many)).await;
        assert_eq!(result, Err(PeerRecordError::TooManyAddresses(129)));
    }

    proptest! {
        #[test]
        fn no_signed_payload_panics(payload: Vec<u8>) {
            let envelope = SignedEnvelope::seal(&keypair(), DOMAIN, &PAYLOAD_TYPE, payload);
            let _ = futures_util::FutureExt::now_or_never(PeerRecord::open(&envelope));
        }
    }
}
