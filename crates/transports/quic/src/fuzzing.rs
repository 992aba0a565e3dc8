//! What the fuzzer runs of this crate: see `fuzz/` and CONTRIBUTING.md. There only in tests, which replay the corpora, and
//! under the fuzzer.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target reports by panicking"
)]

use bytes::Bytes;

use crate::{
    client_hello::{Beginning, beginning, offered_protocols},
    h3::{
        capsule::{self, CapsuleReader, SessionClosed},
        connect,
        field_section::PseudoHeader,
        frame::{self, Splitter},
        settings::Settings,
        varint,
    },
};

/// What a QUIC client offers, which chooses who serves it.
pub fn quic_client_hello(data: &[u8]) {
    let _ = offered_protocols(data);
    let whole = beginning(data);
    // What is known once stays so, however much more arrives.
    for length in 0..data.len().min(8) {
        match beginning(&data[..length]) {
            Beginning::Incomplete => {}
            Beginning::Other => assert_eq!(whole, Beginning::Other),
            Beginning::ClientHello(body) => assert_eq!(whole, Beginning::ClientHello(body)),
        }
    }
    if let Beginning::ClientHello(body) = whole {
        for name in offered_protocols(body) {
            assert!(name.len() <= 255 && body.windows(name.len().max(1)).any(|part| part.starts_with(name)));
        }
    }
}

/// What WebTransport reads of HTTP/3; the first byte says of what, and where the rest is cut.
pub fn webtransport_h3(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let cut = data.len().min(usize::from(first >> 3));
    match first & 7 {
        0 => {
            let mut rest = data;
            if let Some(value) = varint::decode(&mut rest) {
                let mut encoded = Vec::new();
                varint::encode(value, &mut encoded);
                assert_eq!(varint::decode(&mut encoded.as_slice()), Some(value));
                assert!(encoded.len() <= data.len() - rest.len(), "ours is the shortest form");
            }
        }
        1 => {
            let _ = Settings::decode(data);
        }
        2 => {
            let fields = PseudoHeader::decode(data);
            assert_eq!(connect::answer_request(data).is_ok(), fields.is_ok());
            let status = connect::decode_response(data);
            assert!(status.is_ok() == fields.is_ok());
            if let Ok(Some(status)) = status {
                let response = split(&[Bytes::from(connect::encode_response(status))]);
                assert_eq!(connect::decode_response(&response[0].1), Ok(Some(status)));
            }
            if let Some(authority) = fields.ok().and_then(|fields| String::from_utf8(fields.authority?).ok())
            {
                let request = split(&[Bytes::from(connect::encode_request(&authority))]);
                assert_eq!(connect::answer_request(&request[0].1), Ok(connect::OK));
            }
        }
        3 => {
            let pieces = [Bytes::copy_from_slice(&data[..cut]), Bytes::copy_from_slice(&data[cut..])];
            assert_eq!(split(&pieces), split(&[Bytes::copy_from_slice(data)]));
        }
        _ => {
            let pieces = [Bytes::copy_from_slice(&data[..cut]), Bytes::copy_from_slice(&data[cut..])];
            let outcome = capsules(&pieces);
            assert_eq!(outcome, capsules(&[Bytes::copy_from_slice(data)]));
            if let Some(Some(SessionClosed { code })) = outcome {
                let again = capsules(&[capsule::encode_close(code).into()]);
                assert_eq!(again, Some(Some(SessionClosed { code })));
            }
        }
    }
}

/// Types and values, those that have not ended included.
fn split(pieces: &[Bytes]) -> Vec<(u64, Vec<u8>, u64)> {
    let mut splitter = Splitter::default();
    let mut values: Vec<(u64, Vec<u8>, u64)> = Vec::new();
    let mut goes_on = false;
    for piece in pieces {
        let mut piece = piece.clone();
        while let Some(part) = splitter.next(&mut piece) {
            match values.last_mut().filter(|_| goes_on) {
                Some((kind, value, to_come)) => {
                    assert_eq!((*kind, *to_come), (part.kind, part.to_come + part.bytes.len() as u64));
                    value.extend_from_slice(&part.bytes);
                    *to_come = part.to_come;
                }
                None => values.push((part.kind, part.bytes.to_vec(), part.to_come)),
            }
            goes_on = part.to_come > 0;
        }
        assert!(piece.is_empty());
    }
    for (kind, value, to_come) in &values {
        if *to_come == 0 {
            let mut encoded = Vec::new();
            frame::encode(*kind, value, &mut encoded);
            let mut encoded = Bytes::from(encoded);
            let again = Splitter::default().next(&mut encoded).expect("we read our own frames");
            assert_eq!((again.kind, again.bytes.as_ref(), again.to_come), (*kind, value.as_slice(), 0));
        }
    }
    values
}

/// `None` for an error, else whether the remote has closed the session.
fn capsules(pieces: &[Bytes]) -> Option<Option<SessionClosed>> {
    let mut reader = CapsuleReader::new(Splitter::default());
    for piece in pieces {
        match reader.read(piece.clone()) {
            Ok(None) => {}
            Ok(Some(closed)) => return Some(Some(closed)),
            Err(_) => return None,
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use peerloom_fuzz_corpus::replay;

    #[test]
    fn corpora_are_replayed() {
        replay("quic_client_hello", super::quic_client_hello);
        replay("webtransport_h3", super::webtransport_h3);
    }
}
