use bytes::{Bytes, BytesMut};

use crate::{
    dcep,
    halves::{Halves, ReadOutcome},
    ice::candidate::Candidate,
    limits,
    sdp::{Description, candidate_from_json, candidate_to_json},
    ufrag::Credentials,
};

/// Descriptions, candidates and user names: what is read can be written, and is read as the same.
pub fn webrtc_sdp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(description) = Description::parse(text) {
        assert!(text.len() <= limits::MAX_DESCRIPTION);
        let written = description.write();
        assert_eq!(Description::parse(&written).as_ref(), Ok(&description), "{written}");
    }
    let candidates = [Candidate::parse(text), candidate_from_json(text, None)];
    for candidate in candidates.into_iter().flatten().flatten() {
        assert_eq!(Candidate::parse(&candidate.to_string()), Ok(Some(candidate)));
        let Some(credentials) = Credentials::parse("libp2p+webrtc+v1/0123456789:0123456789012345678901")
        else {
            panic!("a user name of version 1");
        };
        let json = candidate_to_json(&candidate, "0", &credentials.client_ufrag);
        assert_eq!(candidate_from_json(&json, Some(&credentials.client_ufrag)), Ok(Some(candidate)));
        assert_eq!(candidate_from_json(&json, Some(&credentials.server)), Ok(None), "of another session");
    }
    if let Some(credentials) = Credentials::parse(text) {
        let username = format!("{}:{}", credentials.server.as_str(), credentials.client_ufrag.as_str());
        assert_eq!(username, text);
        assert!(credentials.client_password.as_str().len() >= 22);
    }
}

/// What arrives on a data channel: the protocol that opens it, and the messages of a stream. The first byte of each says
/// how long it is, and what the application does after it.
pub fn webrtc_channel(data: &[u8]) {
    let _ = dcep::Message::parse(data);
    let mut halves = Halves::default();
    let (mut arrived, mut read) = (0, 0);
    let mut rest = data;
    while let Some((first, after)) = rest.split_first() {
        let (message, after) = after.split_at(after.len().min(usize::from(first & 31)));
        rest = after;
        arrived += message.len();
        if halves.receive(BytesMut::from(message)).is_err() {
            return;
        }
        match first >> 5 {
            0 => halves.finish(),
            1 => halves.reset((*first).into()),
            2 => halves.drop_handle(),
            3 => halves.channel_closing(),
            4 => halves.channel_closed(),
            5 => drop(halves.encode(&mut Bytes::copy_from_slice(message))),
            _ => {}
        }
        while let ReadOutcome::Chunk(chunk) = halves.read() {
            assert!(!chunk.is_empty());
            read += chunk.len();
        }
        assert!(read + halves.unread_bytes() <= arrived, "a stream makes up no bytes");
        let flags = std::iter::from_fn(|| halves.pop_flag()).take(8).count();
        assert!(flags < 8, "a message is answered with a few flags at most");
        let _ = (halves.is_done(), halves.discards(), halves.write_state(), halves.is_reset_by_us());
    }
}
