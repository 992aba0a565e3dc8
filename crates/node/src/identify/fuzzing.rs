//! What the fuzzer runs of what is private here: see `fuzz/` and CONTRIBUTING.md. There only in tests, which replay the
//! corpora, and under the fuzzer.
#![allow(clippy::expect_used, clippy::panic, reason = "a target reports by panicking")]

use super::{
    Identification, MAX_ADDRESSES, MAX_MESSAGE_LENGTH, MAX_MESSAGES, MAX_PROTOCOLS, MAX_VERSION_LENGTH,
};

/// What a peer tells of itself, in one message or several.
pub fn identify_message(data: &[u8]) {
    let Ok(told) = Identification::decode(data.into()) else { return };
    assert!(told.listen_addresses.len() <= MAX_ADDRESSES && told.protocols.len() <= MAX_PROTOCOLS);
    for version in [&told.protocol_version, &told.agent_version].into_iter().flatten() {
        assert!(version.len() <= MAX_VERSION_LENGTH);
    }
    let messages = told.encode();
    assert!(messages.len() <= MAX_MESSAGES);
    // Of our own there are never so many protocols that they do not fit; a remote's are not told to others.
    assert!(
        data.len() > MAX_MESSAGE_LENGTH || messages.iter().all(|message| message.len() <= MAX_MESSAGE_LENGTH)
    );
    let again =
        Identification::decode(messages.concat().as_slice().into()).expect("our own form is accepted");
    let parts = |told: &Identification| {
        let record = told.signed_record.as_ref().map(|record| record.encode_protobuf());
        let versions = (told.protocol_version.clone(), told.agent_version.clone());
        (
            told.public_key.clone(),
            told.listen_addresses.clone(),
            told.observed_address.clone(),
            versions,
            record,
        )
    };
    assert_eq!(parts(&again), parts(&told));
    assert_eq!(again.protocols, told.protocols);
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        peerloom_fuzz_corpus::replay("identify_message", super::identify_message);
    }
}
