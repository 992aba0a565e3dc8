//! A peer as storage has it: bytes that say what they are, and that are believed only if every part of them makes sense.

use std::time::Duration;

use bytes::Bytes;
use peerloom_core::{Multiaddr, PeerId, PublicKey, SignedEnvelope};
use prost::Message;

use super::{
    address::{PeerAddressSource, StoredAddress},
    moment::Moment,
    record::{
        MAX_ADDRESSES_PER_PEER, MAX_METADATA_LENGTH, MAX_METADATA_NAME_LENGTH, MAX_METADATA_PER_PEER, Record,
    },
};
use crate::identify::MAX_PROTOCOLS;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;
/// The most bytes of a peer in storage: more than what its bounds allow all together.
pub const MAX_STORED_BYTES: usize = 192 * 1024;
/// A clock that is behind by less is one that has been set right.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why bytes are no peer.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoredPeerError {
    #[error("{0} bytes, of which {MAX_STORED_BYTES} are allowed")]
    TooLong(usize),
    #[error("no record: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("of version {0}, of which nothing is known here")]
    Version(u32),
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Times are durations before `written`, which alone is the wall clock's: however wrong that is, they keep their sense among
/// each other.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    written: u64,
    #[prost(bytes = "bytes", tag = "3")]
    peer: Bytes,
    #[prost(message, repeated, tag = "4")]
    addresses: Vec<WireAddress>,
    #[prost(string, repeated, tag = "5")]
    protocols: Vec<String>,
    #[prost(string, optional, tag = "6")]
    agent_version: Option<String>,
    #[prost(string, optional, tag = "7")]
    protocol_version: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    public_key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    signed_record: Option<Bytes>,
    #[prost(uint64, optional, tag = "10")]
    record_sequence: Option<u64>,
    #[prost(message, repeated, tag = "11")]
    metadata: Vec<WireMetadata>,
}

/// Times in seconds.
#[derive(Clone, PartialEq, Message)]
struct WireAddress {
    #[prost(bytes = "bytes", tag = "1")]
    address: Bytes,
    #[prost(uint32, tag = "2")]
    source: u32,
    #[prost(bool, tag = "3")]
    certified: bool,
    #[prost(uint64, tag = "4")]
    expires_in: u64,
    #[prost(uint64, tag = "5")]
    seen_ago: u64,
    #[prost(uint64, optional, tag = "6")]
    success_ago: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    failure_ago: Option<u64>,
    #[prost(uint32, tag = "8")]
    failures: u32,
    #[prost(uint32, tag = "9")]
    revivals: u32,
}

#[derive(Clone, PartialEq, Message)]
struct WireMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// The bytes of a peer, `clock` being the wall clock in milliseconds since 1970.
pub(super) fn encode(peer: PeerId, record: &Record, clock: u64, now: Moment) -> Vec<u8> {
    let details = &record.details;
    let ago = |moment: Option<Moment>| moment.map(|moment| now.since(moment).as_secs());
    let wire = Wire {
        version: VERSION,
        written: clock,
        peer: peer.to_bytes().into(),
        addresses: record
            .addresses
            .iter()
            .map(|stored| WireAddress {
                address: Bytes::copy_from_slice(stored.address.as_bytes()),
                source: source_number(stored.source),
                certified: stored.certified,
                expires_in: stored.expires.since(now).as_secs(),
                seen_ago: now.since(stored.seen).as_secs(),
                success_ago: ago(stored.success),
                failure_ago: ago(stored.failure),
                failures: stored.failures,
                revivals: stored.revivals,
            })
            .collect(),
        protocols: details.protocols.iter().map(|protocol| protocol.as_str().to_owned()).collect(),
        agent_version: details.agent_version.clone(),
        protocol_version: details.protocol_version.clone(),
        public_key: details.public_key.as_ref().map(|key| key.encode_protobuf().into()),
        signed_record: details.signed_record.as_ref().map(|record| record.encode_protobuf().into()),
        record_sequence: details.record_sequence,
        metadata: record
            .metadata
            .iter()
            .map(|(name, value)| WireMetadata { name: name.clone().into(), value: value.clone() })
            .collect(),
    };
    wire.encode_to_vec()
}

/// What is left of a peer after the time in storage, and whether it is not what storage has any more. Its addresses may all be
/// gone.
pub(super) fn decode(
    peer: PeerId,
    bytes: &[u8],
    clock: u64,
    now: Moment,
) -> Result<(Record, bool), StoredPeerError> {
    if bytes.len() > MAX_STORED_BYTES {
        return Err(StoredPeerError::TooLong(bytes.len()));
    }
    let wire = Wire::decode(bytes)?;
    if wire.version == 0 {
        return Err(StoredPeerError::Malformed("without a version"));
    }
    if wire.version != VERSION {
        return Err(StoredPeerError::Version(wire.version));
    }
    if wire.peer != peer.as_bytes() {
        return Err(StoredPeerError::Malformed("another peer's"));
    }
    let too_many = wire.addresses.len() > MAX_ADDRESSES_PER_PEER
        || wire.protocols.len() > MAX_PROTOCOLS
        || wire.metadata.len() > MAX_METADATA_PER_PEER;
    if too_many {
        return Err(StoredPeerError::Malformed("more than there may be"));
    }

    let away = away(wire.written, clock);
    let mut record = Record::new(now.before(away.unwrap_or_default()));
    record.stamp = Some(wire.written);
    let mut changed = false;
    for address in wire.addresses {
        let expires_in = Duration::from_secs(address.expires_in);
        let mut stored = address.parse(away.unwrap_or_default(), now)?;
        let revivals = stored.revivals;
        let is_believed = stored.revive(expires_in, away, now);
        changed |= !is_believed || stored.revivals != revivals;
        if is_believed && record.address(&stored.address).is_none() {
            record.addresses.push(stored);
        }
    }
    for WireMetadata { name, value } in wire.metadata {
        if name.len() > MAX_METADATA_NAME_LENGTH || value.len() > MAX_METADATA_LENGTH {
            return Err(StoredPeerError::Malformed("metadata that is too long"));
        }
        // Otherwise it would keep all of the bytes that it came in.
        record.metadata.insert(name.into(), Bytes::copy_from_slice(&value));
    }
    let protocols = wire.protocols.iter().map(|name| name.parse());
    record.details.protocols =
        protocols.collect::<Result<_, _>>().map_err(|_| StoredPeerError::Malformed("protocol"))?;
    record.details.agent_version = wire.agent_version;
    record.details.protocol_version = wire.protocol_version;
    if let Some(key) = wire.public_key {
        let key = PublicKey::decode_protobuf(&key).map_err(|_| StoredPeerError::Malformed("key"))?;
        if key.peer_id() != peer {
            return Err(StoredPeerError::Malformed("another peer's key"));
        }
        record.details.public_key = Some(key);
    }
    if let Some(envelope) = wire.signed_record {
        let envelope = SignedEnvelope::decode_protobuf(&envelope)
            .map_err(|_| StoredPeerError::Malformed("signed record"))?;
        if envelope.public_key().peer_id() != peer {
            return Err(StoredPeerError::Malformed("another peer's signed record"));
        }
        record.details.signed_record = Some(envelope);
    }
    record.details.record_sequence = wire.record_sequence;
    record.bound_details();
    Ok((record, changed))
}

/// How long ago it was written. `None` if the clock says before it was: it was wrong then, or it is now.
fn away(written: u64, clock: u64) -> Option<Duration> {
    match clock.checked_sub(written) {
        Some(away) => Some(Duration::from_millis(away)),
        None if u128::from(written.saturating_sub(clock)) <= CLOCK_SKEW.as_millis() => Some(Duration::ZERO),
        None => None,
    }
}

impl WireAddress {
    /// As it was; when it expires is not set.
    fn parse(&self, away: Duration, now: Moment) -> Result<StoredAddress, StoredPeerError> {
        let address =
            Multiaddr::from_bytes(&self.address).map_err(|_| StoredPeerError::Malformed("address"))?;
        if address.is_empty() || address.peer_id().is_some() {
            return Err(StoredPeerError::Malformed("address"));
        }
        let source = source(self.source).ok_or(StoredPeerError::Malformed("source of an address"))?;
        let ago = |seconds| now.before(away).before(Duration::from_secs(seconds));
        Ok(StoredAddress {
            certified: self.certified,
            seen: ago(self.seen_ago),
            success: self.success_ago.map(ago),
            failure: self.failure_ago.map(ago),
            failures: self.failures,
            revivals: self.revivals,
            ..StoredAddress::new(address, source, now)
        })
    }
}

fn source_number(source: PeerAddressSource) -> u32 {
    match source {
        PeerAddressSource::Routing => 1,
        PeerAddressSource::Identify => 2,
        PeerAddressSource::Connection => 3,
        PeerAddressSource::Application => 4,
        PeerAddressSource::PeerRecord => 5,
    }
}

fn source(number: u32) -> Option<PeerAddressSource> {
    Some(match number {
        1 => PeerAddressSource::Routing,
        2 => PeerAddressSource::Identify,
        3 => PeerAddressSource::Connection,
        4 => PeerAddressSource::Application,
        5 => PeerAddressSource::PeerRecord,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use peerloom_core::{Keypair, PeerRecord};
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;
    const CLOCK: u64 = 20_000 * DAY;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment::START.after(Duration::from_secs(seconds))
    }

    /// A peer of which as much is known as there can be.
    fn full() -> (PeerId, Record) {
        let keypair = Keypair::from_seed([7; 32]);
        let mut record = Record::new(at(0));
        let signed: Vec<_> = (1..=20).map(address).collect();
        record.details.signed_record = Some(PeerRecord::seal(&keypair, 9, &signed));
        record.details.record_sequence = Some(9);
        record.certify(signed.into_iter(), at(100));
        record.succeeded(&address(1), at(200));
        record.name(address(100), PeerAddressSource::Application, at(200));
        record.address(&address(100)).unwrap().failed(true, at(300));
        record.details.protocols =
            (0..MAX_PROTOCOLS).map(|n| format!("/{n}/1.0.0").parse().unwrap()).collect();
        record.details.agent_version = Some("agent".to_owned());
        record.details.public_key = Some(keypair.public().clone());
        for number in 0..MAX_METADATA_PER_PEER {
            let name = format!("{number:0>width$}", width = MAX_METADATA_NAME_LENGTH);
            record.metadata.insert(name.into(), vec![7; MAX_METADATA_LENGTH].into());
        }
        (keypair.peer_id(), record)
    }

    #[test]
    fn what_is_written_is_read_and_ages_are_kept() {
        let (peer, record) = full();
        let bytes = encode(peer, &record, CLOCK, at(1000));
        // Another process, an hour later.
        let (read, changed) = decode(peer, &bytes, CLOCK + 3_600_000, at(0)).unwrap();
        assert!(!changed);
        assert_eq!((read.stamp, read.metadata.clone()), (Some(CLOCK), record.metadata));
        assert_eq!(read.details.protocols, record.details.protocols);
        assert_eq!(read.details.public_key, record.details.public_key);
        assert_eq!(read.details.record_sequence, Some(9));
        assert!(read.details.signed_record.is_some());
        assert_eq!(read.addresses.len(), record.addresses.len());
        for (was, is) in record.addresses.iter().zip(&read.addresses) {
            assert_eq!((&was.address, was.source, was.certified), (&is.address, is.source, is.certified));
            let shift = Duration::from_secs(3600 + 1000);
            assert_eq!(is.success, was.success.map(|success| success.before(shift)));
            assert_eq!(is.expires, was.expires.before(shift));
        }
    }

    #[test]
    fn a_clock_that_jumps_neither_ends_nor_prolongs_everything() {
        let (peer, record) = full();
        let bytes = encode(peer, &record, CLOCK, at(1000));
        for clock in [0, CLOCK - DAY, CLOCK + 10_000 * DAY, u64::MAX] {
            let (read, changed) = decode(peer, &bytes, clock, at(0)).unwrap();
            assert_eq!(read.addresses.len(), record.addresses.len(), "{clock}");
            assert!(changed && read.addresses.iter().all(|stored| stored.expires <= at(3600)), "{clock}");
        }
        // A clock that is wrong at each start.
        let mut bytes = bytes;
        let mut starts = 0;
        loop {
            let (read, _) = decode(peer, &bytes, 0, at(0)).unwrap();
            if read.addresses.is_empty() {
                break;
            }
            starts += 1;
            bytes = encode(peer, &read, CLOCK, at(0));
        }
        assert_eq!(starts, 3);
    }

    #[test]
    fn what_makes_no_sense_is_refused_as_a_whole() {
        let (peer, record) = full();
        let other = Keypair::generate();
        let good = Wire::decode(&*encode(peer, &record, CLOCK, at(0))).unwrap();
        let refused = |change: &dyn Fn(&mut Wire)| {
            let mut wire = good.clone();
            change(&mut wire);
            decode(peer, &wire.encode_to_vec(), CLOCK, at(0)).is_err()
        };
        assert!(!refused(&|_| {}));
        assert!(refused(&|wire| wire.version = 2));
        assert!(refused(&|wire| wire.version = 0));
        assert!(refused(&|wire| wire.peer = other.peer_id().to_bytes().into()));
        assert!(refused(&|wire| wire.public_key = Some(other.public().encode_protobuf().into())));
        let foreign = PeerRecord::seal(&other, 1, &[]).encode_protobuf();
        assert!(refused(&|wire| wire.signed_record = Some(foreign.clone().into())));
        assert!(refused(&|wire| wire.addresses[0].address = Bytes::from_static(b"\xff\xff")));
        assert!(refused(&|wire| wire.addresses[0].address = Bytes::new()));
        assert!(refused(&|wire| wire.addresses[0].source = 77));
        assert!(refused(&|wire| wire.addresses = vec![wire.addresses[0].clone(); 1000]));
        assert!(refused(&|wire| wire.protocols[0] = "no slash".to_owned()));
        assert!(refused(&|wire| wire.metadata[0].value = vec![0; MAX_METADATA_LENGTH + 1].into()));
        assert!(decode(peer, &vec![0; MAX_STORED_BYTES + 1], CLOCK, at(0)).is_err());
        assert!(decode(peer, &[], CLOCK, at(0)).is_err());
    }

    #[test]
    fn as_much_as_there_can_be_fits() {
        let (peer, mut record) = full();
        let long = format!("/dns4/{}", "x".repeat(250)).repeat(7);
        record.addresses.clear();
        for port in 0..40_u16 {
            let address = format!("{long}/tcp/{port}").parse().unwrap();
            record.name(address, PeerAddressSource::Application, at(0));
        }
        assert_eq!(record.addresses.len(), MAX_ADDRESSES_PER_PEER);
        let bytes = encode(peer, &record, CLOCK, at(0));
        assert!(bytes.len() < MAX_STORED_BYTES * 2 / 3, "{}", bytes.len());
        assert!(decode(peer, &bytes, CLOCK, at(0)).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512), clock: u64) {
            let _ = decode(full().0, &bytes, clock, at(0));
        }

        #[test]
        fn damaged_bytes_are_refused_or_within_bounds(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut: prop::sample::Index,
            clock: u64,
        ) {
            let (peer, record) = full();
            let mut bytes = encode(peer, &record, CLOCK, at(1000));
            for (at, byte) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                if let Ok((read, _)) = decode(peer, bytes, clock, at(0)) {
                    prop_assert!(read.addresses.len() <= MAX_ADDRESSES_PER_PEER);
                    let month = at(30 * 24 * 3600);
                    prop_assert!(read.addresses.iter().all(|stored| stored.expires <= month));
                    prop_assert!(encode(peer, &read, clock, at(0)).len() <= MAX_STORED_BYTES);
                }
            }
        }
    }
}
