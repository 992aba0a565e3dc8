//! [`PeerId`]: the name of a peer, made from its public key.

use std::{fmt, str::FromStr};

use crate::{
    keys::PublicKey,
    multibase,
    multihash::{self, IDENTITY, MultihashError, SHA2_256, sha2_256},
};

/// Keys whose encoding is not longer than this stand in the peer id themselves (peer-ids spec, "Peer Ids").
pub(crate) const MAX_INLINE_KEY_BYTES: usize = 42;
/// Code and length of the multihash, each a single byte, and the longest digest.
const MAX_BYTES: usize = 2 + MAX_INLINE_KEY_BYTES;
/// CIDv1 (0x01) of a libp2p key (0x72).
const CID_PREFIX: [u8; 2] = [0x01, 0x72];
/// Longer text is no peer id in any base that we read.
const MAX_TEXT_BYTES: usize = 128;

/// The name of a peer: the multihash of its public key, or the key itself if that is short.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    /// Filled up with zeros, so that the derived comparisons are those of the multihashes.
    bytes: [u8; MAX_BYTES],
    length: u8,
}

/// Why text or bytes are not a [`PeerId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// It is not a multihash.
    #[error("peer id: {0}")]
    Multihash(#[from] MultihashError),
    /// The multihash is neither SHA2-256 of 32 bytes nor an identity of 1 to 42 bytes.
    #[error("peer id: multihash {code:#x} of {digest_bytes} bytes names no peer")]
    UnsupportedMultihash {
        /// The multicodec of its hash function.
        code: u64,
        /// The length of its digest.
        digest_bytes: usize,
    },
    /// The text is neither base58btc nor a multibase that we read.
    #[error("peer id: neither base58 nor a CID")]
    Text,
    /// The CID is not a version 1 CID of a libp2p key.
    #[error("peer id: not a CIDv1 of a libp2p key")]
    Cid,
}

impl PeerId {
    /// Parses the binary form, a multihash.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PeerIdError> {
        let (code, digest_bytes) = multihash::check(bytes)?;
        let digest_bytes = usize::from(digest_bytes);
        match (code, digest_bytes) {
            (SHA2_256, 32) | (IDENTITY, 1..=MAX_INLINE_KEY_BYTES) => {
                let digest = bytes.get(bytes.len().saturating_sub(digest_bytes)..).unwrap_or_default();
                Ok(Self::new(code as u8, digest))
            }
            _ => Err(PeerIdError::UnsupportedMultihash { code, digest_bytes }),
        }
    }

    /// The binary form, a multihash.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    /// The binary form, a multihash.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or(&self.bytes)
    }

    /// The text form as a CIDv1 in base32, `bafz…`.
    pub fn to_cid_string(&self) -> String {
        multibase::base32(&[&CID_PREFIX, self.as_bytes()].concat())
    }

    /// The public key, if the peer id carries it itself, as those of Ed25519 and secp256k1 keys do.
    pub fn public_key(&self) -> Option<PublicKey> {
        match self.as_bytes() {
            [0, _, key @ ..] => PublicKey::decode_protobuf(key).ok(),
            _ => None,
        }
    }

    /// The peer id of a public key in its protobuf encoding.
    pub(crate) fn of_encoded_key(key: &[u8]) -> Self {
        if key.len() <= MAX_INLINE_KEY_BYTES {
            Self::new(IDENTITY as u8, key)
        } else {
            Self::new(SHA2_256 as u8, &sha2_256(key))
        }
    }

    /// `digest` is at most [`MAX_INLINE_KEY_BYTES`] long.
    fn new(code: u8, digest: &[u8]) -> Self {
        let multihash = [code, digest.len() as u8].into_iter().chain(digest.iter().copied());
        let mut bytes = [0; MAX_BYTES];
        let mut length = 0u8;
        for (to, from) in bytes.iter_mut().zip(multihash) {
            *to = from;
            length = length.saturating_add(1);
        }
        Self { bytes, length }
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    // peer-ids spec, "Decoding".
    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(PeerIdError::Text);
        }
        if text.starts_with('1') || text.starts_with("Qm") {
            let bytes = bs58::decode(text).into_vec().map_err(|_| PeerIdError::Text)?;
            return Self::from_bytes(&bytes);
        }
        let cid = multibase::decode(text).ok_or(PeerIdError::Text)?;
        Self::from_bytes(cid.strip_prefix(&CID_PREFIX).ok_or(PeerIdError::Cid)?)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bs58::encode(self.as_bytes()).into_string())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl From<&PublicKey> for PeerId {
    fn from(key: &PublicKey) -> Self {
        key.peer_id()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_text_forms_of_the_spec_name_the_same_peer() {
        let cid = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe";
        let base58 = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        let peer: PeerId = cid.parse().unwrap();
        assert_eq!(peer, base58.parse().unwrap());
        assert_eq!(peer.to_string(), base58);
        assert_eq!(peer.to_cid_string(), cid);
        assert_eq!(peer.public_key(), None);
    }

    #[test]
    fn an_ed25519_peer_id_carries_its_key() {
        let text = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let peer: PeerId = text.parse().unwrap();
        assert_eq!(peer.to_string(), text);
        assert_eq!(peer.public_key().unwrap().peer_id(), peer);
        assert_eq!(peer.to_cid_string().parse(), Ok(peer));
    }

    #[test]
    fn a_cid_in_other_bases_is_read() {
        let peer: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
        let cid = [&CID_PREFIX, peer.as_bytes()].concat();
        let base58 = format!("z{}", bs58::encode(&cid).into_string());
        assert_eq!(base58.parse(), Ok(peer));
        let hex = format!("f{}", data_encoding::HEXLOWER.encode(&cid));
        assert_eq!(hex.parse(), Ok(peer));
        // The form that IPNS names take.
        let ipns = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
        let ipns_peer: PeerId = ipns.parse().unwrap();
        assert_eq!(ipns_peer.to_cid_string().parse(), Ok(ipns_peer));
    }

    #[test]
    fn what_names_no_peer_is_refused() {
        use PeerIdError as E;
        assert_eq!("".parse::<PeerId>(), Err(E::Text));
        assert_eq!("1".repeat(4000).parse::<PeerId>(), Err(E::Text));
        assert_eq!("Qm0".parse::<PeerId>(), Err(E::Text));
        // A CID of something that is no key.
        let dag_pb = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
        assert_eq!(dag_pb.parse::<PeerId>(), Err(E::Cid));
        assert!(matches!(PeerId::from_bytes(&[0, 0]), Err(E::UnsupportedMultihash { .. })));
        assert!(matches!(PeerId::from_bytes(&[0x12, 1, 0]), Err(E::UnsupportedMultihash { .. })));
        assert!(matches!(PeerId::from_bytes(&[0x13, 1, 0]), Err(E::UnsupportedMultihash { .. })));
        let long = [&[0, 43][..], &[0; 43]].concat();
        assert!(matches!(PeerId::from_bytes(&long), Err(E::UnsupportedMultihash { .. })));
        assert!(matches!(PeerId::from_bytes(&[]), Err(E::Multihash(_))));
    }

    proptest! {
        #[test]
        fn bytes_and_both_text_forms_round_trip(key in prop::collection::vec(any::<u8>(), 1..80)) {
            let peer = PeerId::of_encoded_key(&key);
            prop_assert_eq!(PeerId::from_bytes(&peer.to_bytes()), Ok(peer));
            prop_assert_eq!(peer.to_cid_string().parse(), Ok(peer));
            prop_assert_eq!(peer.to_string().parse(), Ok(peer));
        }

        #[test]
        fn no_bytes_and_no_text_panic(bytes: Vec<u8>, text: String) {
            let _ = PeerId::from_bytes(&bytes);
            let _ = text.parse::<PeerId>();
        }
    }
}
