//! The XX pattern: Noise spec, "The HandshakeState object", unrolled for the one pattern that libp2p uses.
//!
//! ```text
//! -> e
//! <- e, ee, s, es
//! -> s, se
//! ```

use super::{cipher::CipherState, error::NoiseError, primitives::KeyPair, symmetric::SymmetricState};
use crate::Role;

/// Which message of the pattern comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    First,
    Second,
    Third,
    Done,
}

/// A handshake in progress, without what libp2p puts into its payloads.
pub(super) struct Xx {
    role: Role,
    next: Next,
    symmetric: SymmetricState,
    static_key: KeyPair,
    ephemeral_key: KeyPair,
    remote_static: [u8; 32],
    remote_ephemeral: [u8; 32],
}

impl Xx {
    pub(super) fn new(role: Role, prologue: &[u8], static_key: KeyPair, ephemeral_key: KeyPair) -> Self {
        Self {
            role,
            next: Next::First,
            symmetric: SymmetricState::new(prologue),
            static_key,
            ephemeral_key,
            remote_static: [0; 32],
            remote_ephemeral: [0; 32],
        }
    }

    /// The message that comes next and whether it is ours to write.
    pub(super) fn turn(&self) -> (Next, bool) {
        let ours = match self.next {
            Next::First | Next::Third => self.role == Role::Initiator,
            Next::Second => self.role == Role::Responder,
            Next::Done => false,
        };
        (self.next, ours)
    }

    /// Appends the next message to `message`.
    pub(super) fn write(&mut self, payload: &[u8], message: &mut Vec<u8>) -> Result<(), NoiseError> {
        match self.turn() {
            (Next::First, true) => {
                self.write_ephemeral(message);
                self.next = Next::Second;
            }
            (Next::Second, true) => {
                self.write_ephemeral(message);
                self.mix_agreement(Agreement::EphemeralEphemeral)?;
                self.symmetric.encrypt_and_hash(self.static_key.public(), message)?;
                self.mix_agreement(Agreement::ResponderStatic)?;
                self.next = Next::Third;
            }
            (Next::Third, true) => {
                self.symmetric.encrypt_and_hash(self.static_key.public(), message)?;
                self.mix_agreement(Agreement::InitiatorStatic)?;
                self.next = Next::Done;
            }
            _ => return Err(NoiseError::OutOfTurn),
        }
        self.symmetric.encrypt_and_hash(payload, message)
    }

    /// Reads the remote's next message and returns its payload. After an error the handshake is of no more use.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut rest = message;
        match self.turn() {
            (Next::First, false) => {
                self.read_ephemeral(&mut rest)?;
                self.next = Next::Second;
            }
            (Next::Second, false) => {
                self.read_ephemeral(&mut rest)?;
                self.mix_agreement(Agreement::EphemeralEphemeral)?;
                self.read_static(&mut rest)?;
                self.mix_agreement(Agreement::ResponderStatic)?;
                self.next = Next::Third;
            }
            (Next::Third, false) => {
                self.read_static(&mut rest)?;
                self.mix_agreement(Agreement::InitiatorStatic)?;
                self.next = Next::Done;
            }
            _ => return Err(NoiseError::OutOfTurn),
        }
        self.symmetric.decrypt_and_hash(rest)
    }

    /// The remote's static key; zero before the message that carries it was read.
    pub(super) fn remote_static(&self) -> &[u8; 32] {
        &self.remote_static
    }

    /// The ciphers for sending and receiving, once all three messages have passed.
    pub(super) fn split(&self) -> Result<(CipherState, CipherState), NoiseError> {
        if self.next != Next::Done {
            return Err(NoiseError::OutOfTurn);
        }
        let (initiator, responder) = self.symmetric.split()?;
        Ok(match self.role {
            Role::Initiator => (initiator, responder),
            Role::Responder => (responder, initiator),
        })
    }

    fn write_ephemeral(&mut self, message: &mut Vec<u8>) {
        message.extend_from_slice(self.ephemeral_key.public());
        self.symmetric.mix_hash(self.ephemeral_key.public());
    }

    fn read_ephemeral(&mut self, message: &mut &[u8]) -> Result<(), NoiseError> {
        let (key, rest) = message.split_first_chunk::<32>().ok_or(NoiseError::Truncated)?;
        self.remote_ephemeral = *key;
        self.symmetric.mix_hash(key);
        *message = rest;
        Ok(())
    }

    fn read_static(&mut self, message: &mut &[u8]) -> Result<(), NoiseError> {
        let (sealed, rest) =
            message.split_at_checked(self.symmetric.sealed_length(32)).ok_or(NoiseError::Truncated)?;
        let key = self.symmetric.decrypt_and_hash(sealed)?;
        self.remote_static = key.try_into().map_err(|_| NoiseError::Truncated)?;
        *message = rest;
        Ok(())
    }

    fn mix_agreement(&mut self, agreement: Agreement) -> Result<(), NoiseError> {
        let secret = match (agreement, self.role) {
            (Agreement::EphemeralEphemeral, _) => self.ephemeral_key.agree(&self.remote_ephemeral),
            (Agreement::ResponderStatic, Role::Initiator) | (Agreement::InitiatorStatic, Role::Responder) => {
                self.ephemeral_key.agree(&self.remote_static)
            }
            (Agreement::ResponderStatic, Role::Responder) | (Agreement::InitiatorStatic, Role::Initiator) => {
                self.static_key.agree(&self.remote_ephemeral)
            }
        }?;
        self.symmetric.mix_key(&secret)
    }
}

/// The tokens `ee`, `es` and `se`.
#[derive(Clone, Copy)]
enum Agreement {
    EphemeralEphemeral,
    /// Of the initiator's ephemeral and the responder's static key.
    ResponderStatic,
    /// Of the initiator's static and the responder's ephemeral key.
    InitiatorStatic,
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.as_bytes()).unwrap()
    }

    fn key(hex: &str) -> KeyPair {
        KeyPair::from_secret(bytes(hex).try_into().unwrap()).unwrap()
    }

    /// The cacophony project's vector for Noise_XX_25519_ChaChaPoly_SHA256: (payload, message) in turns.
    const MESSAGES: [(&str, &str); 6] = [
        (
            "4c756477696720766f6e204d69736573",
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573",
        ),
        (
            "4d757272617920526f746862617264",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884381cbad1f276e038c48378ffce2b65285e08d6\
             b68aaa3629a5a8639392490e5b9bd5269c2f1e4f488ed8831161f19b7815528f8982ffe09be9b5c412f8a0db50f8814c7194e83\
             f23dbd8d162c9326ad",
        ),
        (
            "462e20412e20486179656b",
            "c7195ffacac1307ff99046f219750fc47693e23c3cb08b89c2af808b444850a80ae475b9df0f169ae80a89be0865b57f58c9f\
             ea0d4ec82a286427402f113e4b6ae769a1d95941d49b25030",
        ),
        ("4361726c204d656e676572", "96763ed773f8e47bb3712f0e29b3060ffc956ffc146cee53d5e1df"),
        (
            "4a65616e2d426170746973746520536179",
            "3e40f15f6f3a46ae446b253bf8b1d9ffb6ed9b174d272328ff91a7e2e5c79c07f5",
        ),
        (
            "457567656e2042f6686d20766f6e2042617765726b",
            "eb3f3515110702e047a6c9da4478b6ead94873c11c0f2d710ddb3f09fce024b3a58502ae3f",
        ),
    ];

    #[test]
    fn handshake_and_transport_equal_the_published_vector() {
        let prologue = bytes("4a6f686e2047616c74");
        let mut initiator = Xx::new(
            Role::Initiator,
            &prologue,
            key("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"),
            key("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
        );
        let mut responder = Xx::new(
            Role::Responder,
            &prologue,
            key("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"),
            key("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
        );
        for (index, (payload, expected)) in MESSAGES.iter().take(3).enumerate() {
            let (writer, reader) = if index % 2 == 0 {
                (&mut initiator, &mut responder)
            } else {
                (&mut responder, &mut initiator)
            };
            let mut message = Vec::new();
            writer.write(&bytes(payload), &mut message).unwrap();
            assert_eq!(HEXLOWER.encode(&message), *expected);
            assert_eq!(reader.read(&message).unwrap(), bytes(payload));
        }
        let hash = "c8e5f64e846193be2a834104c2a009868d6c9f3bd3c186299888b488b2f1f58e";
        assert_eq!(HEXLOWER.encode(&initiator.symmetric.handshake_hash()), hash);
        assert_eq!(HEXLOWER.encode(&responder.symmetric.handshake_hash()), hash);
        let (mut initiator_sends, mut initiator_receives) = initiator.split().unwrap();
        let (mut responder_sends, mut responder_receives) = responder.split().unwrap();
        for (index, (payload, expected)) in MESSAGES.iter().enumerate().skip(3) {
            let (sender, receiver) = if index % 2 == 0 {
                (&mut initiator_sends, &mut responder_receives)
            } else {
                (&mut responder_sends, &mut initiator_receives)
            };
            let mut message = bytes(payload);
            message.extend_from_slice(&[0; 16]);
            sender.seal_in_place(b"", &mut message).unwrap();
            assert_eq!(HEXLOWER.encode(&message), *expected);
            assert_eq!(receiver.open(b"", &message).unwrap(), bytes(payload));
        }
    }

    #[test]
    fn ephemeral_key_of_small_order_is_refused() {
        let mut responder = Xx::new(
            Role::Responder,
            b"",
            KeyPair::from_secret([1; 32]).unwrap(),
            KeyPair::from_secret([2; 32]).unwrap(),
        );
        responder.read(&[0; 32]).unwrap();
        assert!(matches!(responder.write(b"", &mut Vec::new()), Err(NoiseError::BadKey)));
    }

    #[test]
    fn message_out_of_turn_is_refused() {
        let mut initiator = Xx::new(
            Role::Initiator,
            b"",
            KeyPair::from_secret([1; 32]).unwrap(),
            KeyPair::from_secret([2; 32]).unwrap(),
        );
        assert!(matches!(initiator.read(&[9; 32]), Err(NoiseError::OutOfTurn)));
        assert!(matches!(initiator.split().map(|_| ()), Err(NoiseError::OutOfTurn)));
    }
}
