//! The vocabulary: addresses, names, keys, envelopes, framing, and the negotiation of protocols.

use bytes::{Bytes, BytesMut};
use peerloom_core::{
    Keypair, MAX_ENCODED_KEY_BYTES, MAX_ENVELOPE_BYTES, MAX_MULTIADDR_BYTES, MAX_MULTIADDR_COMPONENTS,
    Multiaddr, Multihash, PeerId, PeerRecord, ProtocolName, PublicKey, SignedEnvelope,
    framing::{self, FramingError, MessageDecoder},
    multihash::MAX_DIGEST_BYTES,
    multistream_select::{self, Dialer, Listener, MAX_MESSAGE_BYTES, MAX_PROPOSALS},
    varint,
    webrtc_stream::{Half, WebRtcStream},
};

use crate::input::{cut, now};

/// The text form of addresses.
pub fn multiaddr_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<Multiaddr>() {
        check_multiaddr(&address);
    }
}

/// The binary form of addresses.
pub fn multiaddr_binary(data: &[u8]) {
    if let Ok(address) = Multiaddr::from_bytes(data) {
        assert_eq!(address.as_bytes(), data, "an address has one binary form");
        check_multiaddr(&address);
    }
}

fn check_multiaddr(address: &Multiaddr) {
    assert!(address.as_bytes().len() <= MAX_MULTIADDR_BYTES);
    assert!(address.protocols().count() <= MAX_MULTIADDR_COMPONENTS);
    assert_eq!(Multiaddr::from_bytes(address.as_bytes()).as_ref(), Ok(address));
    assert_eq!(&Multiaddr::from_protocols(address.protocols()), address);
    let text = address.to_string();
    // An address with a component that has no text form is written so that a person can read it, and not a program.
    if let Ok(again) = text.parse::<Multiaddr>() {
        assert_eq!(&again, address, "{text}");
    }
    match address.peer_id() {
        Some(peer) => assert_eq!(&address.with_peer_id(peer), address),
        None => assert_eq!(&address.without_peer_id(), address),
    }
    let _ = address.is_relayed();
}

/// Names of peers, as text and as bytes.
pub fn peer_id(data: &[u8]) {
    let texts = std::str::from_utf8(data).ok();
    let peers = [PeerId::from_bytes(data).ok(), texts.and_then(|text| text.parse().ok())];
    for peer in peers.into_iter().flatten() {
        assert_eq!(PeerId::from_bytes(&peer.to_bytes()), Ok(peer));
        assert_eq!(peer.to_string().parse(), Ok(peer));
        assert_eq!(peer.to_cid_string().parse(), Ok(peer));
        if let Some(key) = peer.public_key() {
            assert_eq!(key.peer_id(), peer, "the key in a name is the one that has it");
        }
    }
}

/// Hashes that say how they were made.
pub fn multihash(data: &[u8]) {
    if let Ok(hash) = Multihash::from_bytes(data) {
        assert_eq!(hash.as_bytes(), data);
        assert!(hash.digest().len() <= MAX_DIGEST_BYTES);
        assert!(data.ends_with(hash.digest()));
    }
}

/// Numbers of varying length.
pub fn unsigned_varint(data: &[u8]) {
    if let Ok((value, rest)) = varint::decode(data) {
        let mut again = Vec::new();
        varint::encode(value, &mut again);
        assert_eq!(again.len(), varint::encoded_len(value));
        assert!(value <= varint::MAX && again.len() <= varint::MAX_BYTES);
        again.extend_from_slice(rest);
        assert_eq!(again, data, "a number has one form");
    }
    if let Ok((content, rest)) = varint::decode_prefixed(data) {
        let mut again = Vec::new();
        varint::encode_prefixed(content, &mut again);
        again.extend_from_slice(rest);
        assert_eq!(again, data);
    }
}

/// Messages with their length before them, in pieces of any size: the same messages as in one piece.
pub fn message_framing(data: &[u8]) {
    const MAX: usize = 600;
    let pieces = cut(data);
    let whole: BytesMut = pieces.iter().flatten().copied().collect();
    let (in_pieces, in_one) = (decode_messages(&pieces, MAX), decode_messages(&[whole.freeze()], MAX));
    assert_eq!(in_pieces, in_one);
    for message in in_one.0 {
        assert!(message.len() <= MAX);
        let framed = framing::encode(&message, MAX).expect("what was decoded is short enough");
        assert_eq!(decode_messages(&[framed], MAX), (vec![message], Some(true)));
    }
}

/// The messages up to the first error, and whether the last byte was the last of a message if there is no error.
fn decode_messages(pieces: &[Bytes], max: usize) -> (Vec<Bytes>, Option<bool>) {
    let mut decoder = MessageDecoder::new(max);
    let mut messages = Vec::new();
    for piece in pieces {
        let mut piece = piece.clone();
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(FramingError::TooLong { .. } | FramingError::Length(_)) => return (messages, None),
                Err(error) => panic!("bytes cannot be the reason of {error}"),
            }
        }
        assert!(piece.is_empty(), "a decoder without a message has used everything up");
    }
    (messages, Some(decoder.is_between_messages()))
}

/// Public and private keys, and signatures that nobody has made. The first two bytes say where the key ends.
pub fn keys(data: &[u8]) {
    if let Ok(pair) = Keypair::decode_protobuf(data) {
        let again = Keypair::decode_protobuf(&pair.encode_protobuf()).expect("our own form is accepted");
        assert_eq!(again.peer_id(), pair.peer_id());
        pair.public().verify_blocking(b"message", &pair.sign(b"message")).expect("a key verifies itself");
    }
    if let Ok(key) = PublicKey::decode_protobuf(data) {
        check_public_key(&key, data);
    }
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (encoded, signature) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
    if let Ok(key) = PublicKey::decode_protobuf(encoded) {
        check_public_key(&key, encoded);
        let _ = key.verify_blocking(b"nobody has signed this", signature);
    }
}

fn check_public_key(key: &PublicKey, encoded: &[u8]) {
    assert!(encoded.len() <= MAX_ENCODED_KEY_BYTES);
    assert_eq!(key.encode_protobuf(), encoded, "names are hashes of it, so there is one form");
    assert_eq!(PeerId::from_bytes(&key.peer_id().to_bytes()), Ok(key.peer_id()));
    if let Some(inside) = key.peer_id().public_key() {
        assert_eq!(&inside, key);
    }
}

/// Envelopes as they arrive.
pub fn signed_envelope(data: &[u8]) {
    let Ok(envelope) = SignedEnvelope::decode_protobuf(data) else { return };
    assert!(data.len() <= MAX_ENVELOPE_BYTES);
    let again =
        SignedEnvelope::decode_protobuf(&envelope.encode_protobuf()).expect("our own form is accepted");
    assert_eq!(again.encode_protobuf(), envelope.encode_protobuf());
    assert_eq!((again.public_key(), again.payload_type()), (envelope.public_key(), envelope.payload_type()));
    if now(envelope.verify("libp2p-peer-record", envelope.payload_type())).is_ok() {
        now(envelope.verify("another-domain", envelope.payload_type()))
            .expect_err("a signature is for one domain");
    }
    if let Ok(record) = now(PeerRecord::open(&envelope)) {
        assert_eq!(record.peer_id, envelope.public_key().peer_id());
    }
}

/// What peers say of themselves, signed by the right one: the bytes are the payload.
pub fn peer_record(data: &[u8]) {
    let keypair = Keypair::from_seed([7; 32]);
    // RFC 0003: the domain and the type of peer records.
    let envelope = SignedEnvelope::seal(&keypair, "libp2p-peer-record", &[0x03, 0x01], data.to_vec());
    let Ok(record) = now(PeerRecord::open(&envelope)) else { return };
    assert_eq!(record.peer_id, keypair.peer_id(), "nobody speaks for another");
    assert!(record.addresses.len() <= PeerRecord::MAX_ADDRESSES);
    let again = PeerRecord::seal(&keypair, record.sequence, &record.addresses);
    let again = now(PeerRecord::open(&again)).expect("our own form is accepted");
    assert_eq!((again.sequence, &again.addresses), (record.sequence, &record.addresses));
}

/// The side that proposes protocols, in pieces of any size.
pub fn multistream_dialer(data: &[u8]) {
    let protocols = ["/first/1.0.0", "/second/1.0.0", "/third/1.0.0"].map(ProtocolName::from_static);
    let pieces = cut(data);
    let whole: BytesMut = pieces.iter().flatten().copied().collect();
    let run = |pieces: &[Bytes]| {
        let mut dialer = Dialer::new(&protocols);
        let mut sent = dialer.take_outgoing().to_vec();
        let mut rest = BytesMut::new();
        let mut outcome = None;
        for piece in pieces {
            let mut piece = piece.clone();
            if outcome.is_none() {
                assert!((1..=MAX_MESSAGE_BYTES).contains(&dialer.wants()));
                match dialer.receive(&mut piece) {
                    Ok(None) => assert!(piece.is_empty(), "the negotiation takes all that belongs to it"),
                    Ok(Some(protocol)) => outcome = Some(Ok(protocol)),
                    Err(error) => outcome = Some(Err(error.to_string())),
                }
                sent.extend_from_slice(&dialer.take_outgoing());
            }
            rest.extend_from_slice(&piece);
        }
        // What is behind an error is nobody's.
        if !matches!(outcome, Some(Ok(_))) {
            rest.clear();
        }
        (outcome, sent, rest)
    };
    let outcome = run(&pieces);
    assert_eq!(outcome, run(&[whole.freeze()]));
    if let Some(Ok(protocol)) = &outcome.0 {
        assert!(protocols.contains(protocol), "only what was proposed is agreed on");
    }
    assert!(outcome.1.len() <= 100, "{} bytes to propose three protocols", outcome.1.len());
}

/// The side that accepts one, in pieces of any size; and a dialer takes its answer.
pub fn multistream_listener(data: &[u8]) {
    let pieces = cut(data);
    let whole: BytesMut = pieces.iter().flatten().copied().collect();
    let supports = |name: &str| name.ends_with("/ok").then(|| name.parse().ok()).flatten();
    let run = |pieces: &[Bytes]| {
        let mut listener = Listener::new();
        let mut sent = Vec::new();
        let mut rest = BytesMut::new();
        let mut outcome = None;
        for piece in pieces {
            let mut piece = piece.clone();
            if outcome.is_none() {
                assert!((1..=MAX_MESSAGE_BYTES).contains(&listener.wants()));
                match listener.receive(&mut piece, supports) {
                    Ok(None) => assert!(piece.is_empty(), "the negotiation takes all that belongs to it"),
                    Ok(Some(protocol)) => outcome = Some(Ok(protocol)),
                    Err(error) => outcome = Some(Err(error.to_string())),
                }
                sent.extend_from_slice(&listener.take_outgoing());
            }
            rest.extend_from_slice(&piece);
        }
        if !matches!(outcome, Some(Ok(_))) {
            rest.clear();
            let _ = listener.ended();
        }
        (outcome, sent, rest)
    };
    let once = run(&pieces);
    assert_eq!(once, run(&[whole.freeze()]));
    let (outcome, sent, _) = once;
    // The header, refusals, and one answer.
    assert!(sent.len() <= 20 + 4 * MAX_PROPOSALS + MAX_MESSAGE_BYTES + 2);
    if let Some(Ok(protocol)) = outcome {
        let mut dialer = Dialer::new(std::slice::from_ref(&protocol));
        let mut answer = Bytes::from(sent);
        // Only a dialer with this one proposal expects no refusals.
        match dialer.receive(&mut answer) {
            Ok(accepted) => assert_eq!(accepted, Some(protocol)),
            Err(multistream_select::NegotiationError::NoCommonProtocol) => {}
            Err(error) => panic!("a dialer does not understand our answer: {error}"),
        }
    }
}

/// The framing of streams on WebRTC's data channels: messages of any content, and a second stream that takes what the
/// first one answers.
pub fn webrtc_stream(data: &[u8]) {
    let mut stream = WebRtcStream::default();
    let mut other = WebRtcStream::default();
    let mut answers = Vec::new();
    let (mut arrived, mut received) = (0, 0);
    for (index, piece) in cut(data).into_iter().enumerate() {
        arrived += piece.len();
        let result = stream.receive(piece.clone(), |payload| received += payload.len());
        assert!(received <= arrived, "no byte is there twice");
        if result.is_err() {
            break;
        }
        match index % 5 {
            0 => answers.extend(stream.finish()),
            1 => answers.extend(stream.stop(3)),
            2 => answers.extend(stream.reset(4)),
            3 if stream.write_half() == Half::Open => {
                let mut payload = piece;
                answers.push(stream.data(&mut payload));
            }
            _ => {}
        }
        answers.extend(stream.acknowledgement());
        let _ = (stream.read_half(), stream.write_half(), stream.is_write_acknowledged(), stream.is_done());
    }
    for answer in answers {
        other.receive(answer.into(), |_| {}).expect("we understand ourselves");
    }
}
