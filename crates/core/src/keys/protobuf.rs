//! The messages `PublicKey` and `PrivateKey` (peer-ids spec, "Keys"). The encoding must be deterministic, because peer ids
//! are hashes of it: both fields, in order, nothing else, varints minimal. So they are read and written by hand.

#![warn(clippy::arithmetic_side_effects)]

use super::KeyError;
use crate::varint;

pub(super) const RSA: u64 = 0;
pub(super) const ED25519: u64 = 1;
pub(super) const SECP256K1: u64 = 2;
pub(super) const ECDSA: u64 = 3;

/// Field 1, a varint.
const TYPE_TAG: u8 = 0x08;
/// Field 2, bytes.
const DATA_TAG: u8 = 0x12;

pub(super) fn encode(key_type: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len().saturating_add(8));
    bytes.push(TYPE_TAG);
    varint::encode(key_type, &mut bytes);
    bytes.push(DATA_TAG);
    varint::encode_prefixed(data, &mut bytes);
    bytes
}

pub(super) fn decode(bytes: &[u8], max: usize) -> Result<(u64, &[u8]), KeyError> {
    if bytes.len() > max {
        return Err(KeyError::TooLong(bytes.len()));
    }
    let rest = bytes.strip_prefix(&[TYPE_TAG]).ok_or(KeyError::Protobuf)?;
    let (key_type, rest) = varint::decode(rest).map_err(|_| KeyError::Protobuf)?;
    let rest = rest.strip_prefix(&[DATA_TAG]).ok_or(KeyError::Protobuf)?;
    match varint::decode_prefixed(rest) {
        Ok((data, [])) => Ok((key_type, data)),
        _ => Err(KeyError::Protobuf),
    }
}
