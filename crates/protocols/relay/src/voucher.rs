//! [`Voucher`]: a relay's signed word that it serves a peer. circuit-v2 spec, "Reservation Vouchers".

#![warn(clippy::arithmetic_side_effects)]

use bytes::Bytes;
use peerloom_core::{EnvelopeError, Keypair, PeerId, PeerIdError, SignedEnvelope};
use prost::Message;

const DOMAIN: &str = "libp2p-relay-rsvp";
/// The multicodec 0x0302, as all implementations write it: two bytes, not a varint.
const PAYLOAD_TYPE: [u8; 2] = [0x03, 0x02];

/// Says that a relay serves a peer until some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voucher {
    /// The relay, which signs it.
    pub relay: PeerId,
    /// The peer that is reachable through the relay.
    pub peer: PeerId,
    /// Until when, in seconds since 1970 by the relay's clock.
    pub expires: u64,
}

/// Why a voucher is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VoucherError {
    /// The envelope around it is not valid.
    #[error("voucher: {0}")]
    Envelope(#[from] EnvelopeError),
    /// It is not the protobuf message of a voucher.
    #[error("voucher is malformed")]
    Malformed,
    /// A peer id in it is none.
    #[error("voucher: {0}")]
    PeerId(#[from] PeerIdError),
    /// Somebody else signed it than the relay that it names.
    #[error("voucher of the relay {relay} was signed by {signer}")]
    WrongSigner {
        /// The relay that the voucher names.
        relay: PeerId,
        /// The peer that signed it.
        signer: PeerId,
    },
    /// It names another relay than the one that gave it.
    #[error("the relay {expected} gave a voucher of {actual}")]
    WrongRelay {
        /// The relay that gave it.
        expected: PeerId,
        /// The relay that the voucher names.
        actual: PeerId,
    },
    /// It is for another peer.
    #[error("voucher is for {actual}, not for {expected}")]
    WrongPeer {
        /// The peer that asked for it.
        expected: PeerId,
        /// The peer that it is for.
        actual: PeerId,
    },
    /// It ends before the reservation does.
    #[error("voucher ends at {voucher}, before the reservation at {reservation}")]
    EndsEarly {
        /// The end of the voucher, in seconds since 1970.
        voucher: u64,
        /// The end of the reservation, in seconds since 1970.
        reservation: u64,
    },
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(bytes = "bytes", optional, tag = "1")]
    relay: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    peer: Option<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    expiration: Option<u64>,
}

impl Voucher {
    /// The voucher in an envelope, signed by the relay whose key this is.
    pub fn seal(keypair: &Keypair, peer: PeerId, expires: u64) -> SignedEnvelope {
        let wire = Wire {
            relay: Some(keypair.peer_id().to_bytes().into()),
            peer: Some(peer.to_bytes().into()),
            expiration: Some(expires),
        };
        SignedEnvelope::seal(keypair, DOMAIN, &PAYLOAD_TYPE, wire.encode_to_vec())
    }

    /// The voucher in `envelope`, if the relay that it names signed it.
    pub async fn open(envelope: &SignedEnvelope) -> Result<Self, VoucherError> {
        let payload = envelope.verify(DOMAIN, &PAYLOAD_TYPE).await?;
        let wire = Wire::decode(payload.clone()).map_err(|_| VoucherError::Malformed)?;
        let (Some(relay), Some(peer), Some(expires)) = (wire.relay, wire.peer, wire.expiration) else {
            return Err(VoucherError::Malformed);
        };
        let (relay, peer) = (PeerId::from_bytes(&relay)?, PeerId::from_bytes(&peer)?);
        let signer = envelope.public_key().peer_id();
        if relay != signer {
            return Err(VoucherError::WrongSigner { relay, signer });
        }
        Ok(Self { relay, peer, expires })
    }

    /// Whether it is what `relay` owes to `peer` for a reservation that ends at `reservation`. The two ends are compared with
    /// each other: our own clock may be wrong without harm.
    pub fn check(&self, relay: PeerId, peer: PeerId, reservation: u64) -> Result<(), VoucherError> {
        if self.relay != relay {
            return Err(VoucherError::WrongRelay { expected: relay, actual: self.relay });
        }
        if self.peer != peer {
            return Err(VoucherError::WrongPeer { expected: peer, actual: self.peer });
        }
        // A relay may have looked at its clock twice.
        if self.expires.saturating_add(1) < reservation {
            return Err(VoucherError::EndsEarly { voucher: self.expires, reservation });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keypair(seed: u8) -> Keypair {
        Keypair::from_seed([seed; 32])
    }

    #[tokio::test]
    async fn what_the_relay_signed_is_read_back() {
        let (relay, peer) = (keypair(1), keypair(2).peer_id());
        let sent = Voucher::seal(&relay, peer, 1_700_000_000).encode_protobuf();
        let voucher = Voucher::open(&SignedEnvelope::decode_protobuf(&sent).unwrap()).await.unwrap();
        assert_eq!(voucher, Voucher { relay: relay.peer_id(), peer, expires: 1_700_000_000 });
        assert_eq!(voucher.check(relay.peer_id(), peer, 1_700_000_001), Ok(()));
    }

    #[tokio::test]
    async fn a_voucher_that_another_peer_signed_is_refused() {
        let (relay, thief, peer) = (keypair(1), keypair(3), keypair(2).peer_id());
        let wire = Wire {
            relay: Some(relay.peer_id().to_bytes().into()),
            peer: Some(peer.to_bytes().into()),
            expiration: Some(1),
        };
        let forged = SignedEnvelope::seal(&thief, DOMAIN, &PAYLOAD_TYPE, wire.encode_to_vec());
        let expected = VoucherError::WrongSigner { relay: relay.peer_id(), signer: thief.peer_id() };
        assert_eq!(Voucher::open(&forged).await, Err(expected));
    }

    #[tokio::test]
    async fn an_envelope_for_another_purpose_is_refused() {
        let other = SignedEnvelope::seal(&keypair(1), "libp2p-peer-record", &[3, 1], Bytes::new());
        assert_eq!(Voucher::open(&other).await, Err(VoucherError::Envelope(EnvelopeError::PayloadType)));
        let wrong_domain =
            SignedEnvelope::seal(&keypair(1), "libp2p-peer-record", &PAYLOAD_TYPE, Bytes::new());
        assert!(matches!(Voucher::open(&wrong_domain).await, Err(VoucherError::Envelope(_))));
        let empty = SignedEnvelope::seal(&keypair(1), DOMAIN, &PAYLOAD_TYPE, Bytes::new());
        assert_eq!(Voucher::open(&empty).await, Err(VoucherError::Malformed));
    }

    #[test]
    fn a_voucher_of_or_for_somebody_else_or_too_short_is_refused() {
        let [relay, peer, other] = [1, 2, 3].map(|seed| keypair(seed).peer_id());
        let voucher = Voucher { relay, peer, expires: 100 };
        assert!(matches!(voucher.check(other, peer, 100), Err(VoucherError::WrongRelay { .. })));
        assert!(matches!(voucher.check(relay, other, 100), Err(VoucherError::WrongPeer { .. })));
        let early = VoucherError::EndsEarly { voucher: 100, reservation: 102 };
        assert_eq!(voucher.check(relay, peer, 102), Err(early));
    }

    proptest! {
        #[test]
        fn signed_garbage_never_panics(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let envelope = SignedEnvelope::seal(&keypair(1), DOMAIN, &PAYLOAD_TYPE, payload);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(Voucher::open(&envelope));
        }
    }
}
