//! What the fuzzer runs of what is private here: see `fuzz/` and CONTRIBUTING.md. There only in tests, which replay the
//! corpora, and under the fuzzer.
#![allow(clippy::expect_used, clippy::panic, reason = "a target reports by panicking")]

use bytes::BytesMut;
use peerloom_core::Keypair;

use super::{Handshake, NoiseExtensions, Randomness, payload};
use crate::{Role, plaintexts::Plaintexts, protection::Protection};

/// What a remote says under the protection of the handshake.
pub fn noise_payload(data: &[u8]) {
    let Ok(decoded) = payload::decode(data) else { return };
    let ours = Keypair::from_seed([1; 32]);
    let again = payload::encode(&ours, &[2; 32], &decoded.extensions);
    let again = payload::decode(&again).expect("our own form is accepted");
    assert_eq!(again.extensions, decoded.extensions);
    assert_eq!(&again.public_key, ours.public());
}

/// Frames after the handshake, in pieces and with changes: what is read is the beginning of what was sent. Of each byte, a
/// half says how long the next message is, and the other where the pipe is cut or changed.
pub fn noise_frames(data: &[u8]) {
    let (mut sender, mut receiver) = ends();
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    let mut wire = Vec::new();
    let mut input = BytesMut::new();
    let mut plaintexts = Plaintexts::default();
    for (index, byte) in data.iter().enumerate() {
        let message = vec![*byte; usize::from(byte & 15) * 7];
        let sealed = sender.seal(&mut wire, |output| output.extend_from_slice(&message));
        assert_eq!(sealed.ok(), Some(!message.is_empty()), "nothing is sent of nothing");
        sent.extend_from_slice(&message);
        let honest = byte >> 4 != 15;
        if !honest && let Some(last) = wire.last_mut() {
            *last ^= byte | 1;
        }
        let cut =
            if index + 1 == data.len() { wire.len() } else { wire.len().min(usize::from(byte >> 4) * 9) };
        input.extend(wire.drain(..cut));
        loop {
            let missing = receiver.missing(&input);
            match receiver.open(&mut input, &mut plaintexts) {
                Ok(Some(plaintext)) => {
                    assert_eq!(missing, 0);
                    received.extend_from_slice(&plaintext);
                }
                Ok(None) => break,
                Err(_) => {
                    assert!(
                        data.iter().take(index + 1).any(|byte| byte >> 4 == 15),
                        "an honest frame is refused"
                    );
                    assert!(sent.starts_with(&received));
                    return;
                }
            }
        }
        assert!(sent.starts_with(&received));
    }
    let changed = data.iter().any(|byte| byte >> 4 == 15);
    assert!(changed || sent == received, "bytes are lost");
}

fn ends() -> (Protection, Protection) {
    let identity = Keypair::from_seed([1; 32]);
    let [mut initiator, mut responder] = [Role::Initiator, Role::Responder].map(|role| {
        let randomness = Randomness { static_key: [role as u8 + 3; 32], ephemeral_key: [role as u8 + 5; 32] };
        Handshake::new(role, &identity, b"", &NoiseExtensions::default(), randomness)
            .expect("a handshake begins")
    });
    for turn in 0..3 {
        let (from, to) =
            if turn == 1 { (&mut responder, &mut initiator) } else { (&mut initiator, &mut responder) };
        let message = from.next_message().ok().flatten().expect("it is this side's turn");
        to.receive(message.get(2..).unwrap_or_default()).map(drop).expect("an honest message");
    }
    let [initiator, responder] = [initiator, responder].map(|handshake| {
        let (sealing, opening) = handshake.ciphers().expect("the handshake is over");
        Protection::Noise { sealing, opening }
    });
    (initiator, responder)
}

#[cfg(test)]
mod tests {
    use peerloom_fuzz_corpus::replay;

    #[test]
    fn corpora_are_replayed() {
        replay("noise_payload", super::noise_payload);
        replay("noise_frames", super::noise_frames);
    }
}
