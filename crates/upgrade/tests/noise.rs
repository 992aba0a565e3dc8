//! The handshake with honest, broken and hostile remotes.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use peerloom_core::{HandshakeError, Keypair, Multihash, ProtocolName};
use peerloom_upgrade::{
    Role,
    noise::{
        Handshake, MAX_HANDSHAKE_MESSAGE, NoiseError, NoiseExtensions, Randomness, RemoteIdentity,
        authenticate,
    },
    upgrade_inbound,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn extensions() -> NoiseExtensions {
    NoiseExtensions {
        webtransport_certhashes: vec![Multihash::sha2_256([1; 32]), Multihash::sha2_256([2; 32])],
        stream_muxers: vec![ProtocolName::from_static("/yamux/1.0.0")],
        webrtc_joined_lengths: true,
    }
}

fn handshake(role: Role, identity: &Keypair, prologue: &[u8]) -> Handshake {
    let seed = if role == Role::Initiator { 1 } else { 2 };
    let randomness = Randomness { static_key: [seed; 32], ephemeral_key: [seed + 10; 32] };
    Handshake::new(role, identity, prologue, &extensions(), randomness).unwrap()
}

/// Runs a whole handshake, with `tamper` in the middle: it gets each message's number and content, without the length.
async fn run(
    prologues: [&[u8]; 2],
    mut tamper: impl FnMut(usize, &mut Vec<u8>),
) -> Result<[RemoteIdentity; 2], NoiseError> {
    let identities = [Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32])];
    let mut initiator = handshake(Role::Initiator, &identities[0], prologues[0]);
    let mut responder = handshake(Role::Responder, &identities[1], prologues[1]);
    let mut found = Vec::new();
    for number in 0..3 {
        let (from, to) = match number {
            1 => (&mut responder, &mut initiator),
            _ => (&mut initiator, &mut responder),
        };
        let message = from.next_message()?.unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([message[0], message[1]])), message.len() - 2);
        let mut message = message[2..].to_vec();
        tamper(number, &mut message);
        if let Some(claim) = to.receive(&message)? {
            found.push(claim.verify().await?);
        }
    }
    let (mut sealing, _) = initiator.ciphers()?;
    let (_, mut opening) = responder.ciphers()?;
    let mut message = *b"first transport message                 ";
    sealing.seal_in_place(b"", &mut message)?;
    assert_eq!(opening.open(b"", &message)?, b"first transport message ");
    let [responder, initiator] = found.try_into().unwrap();
    Ok([initiator, responder])
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let [initiator, responder] = run([b"same"; 2], |_, _| {}).await.unwrap();
    assert_eq!(initiator.peer_id, Keypair::from_seed([1; 32]).peer_id());
    assert_eq!(responder.peer_id, Keypair::from_seed([2; 32]).peer_id());
    assert_eq!((&initiator.extensions, &responder.extensions), (&extensions(), &extensions()));
}

#[tokio::test]
async fn every_damaged_byte_of_every_message_ends_the_handshake() {
    for number in 0..3 {
        let mut length = 1;
        let mut position = 0;
        while position < length {
            let result = run([b""; 2], |current, message| {
                if current == number {
                    length = message.len();
                    message[position] ^= 0x41;
                }
            });
            assert!(result.await.is_err(), "message {number}, byte {position}");
            position += 1;
        }
        assert!(length >= 32);
    }
}

#[tokio::test]
async fn truncated_and_padded_messages_end_the_handshake() {
    for number in 0..3 {
        for cut in [1, 16, 17, 31, 32, 48, 49, 64, 80, 96, 97] {
            // The first message may be longer than its key: what follows is not secret, and ignored.
            let result = run([b""; 2], |current, message| {
                if current == number {
                    let length = message.len().saturating_sub(cut);
                    message.truncate(length);
                }
            });
            assert!(result.await.is_err(), "message {number} without its last {cut} bytes");
        }
        let padded = run([b""; 2], |current, message| {
            if current == number {
                message.push(0);
            }
        });
        assert!(padded.await.is_err(), "message {number} with one byte more");
    }
}

#[tokio::test]
async fn oversized_message_is_refused() {
    let result = run([b""; 2], |_, message| message.resize(MAX_HANDSHAKE_MESSAGE + 1, 0)).await;
    assert!(matches!(result, Err(NoiseError::TooLong { .. })));
}

#[tokio::test]
async fn another_prologue_ends_the_handshake() {
    assert!(matches!(run([b"one", b"two"], |_, _| {}).await, Err(NoiseError::Decrypt)));
}

#[tokio::test]
async fn authenticating_reads_nothing_beyond_its_messages() {
    let (mut ours, mut theirs) = tokio::io::duplex(4096);
    let (dialer, listener) = (Keypair::generate(), Keypair::generate());
    let initiator = async {
        let remote = authenticate(&mut ours, Role::Initiator, &dialer, b"p", NoiseExtensions::default())
            .await
            .unwrap();
        ours.write_all(b"from the initiator").await.unwrap();
        (remote, ours)
    };
    let responder = async {
        theirs.write_all(b"").await.unwrap();
        let remote = authenticate(&mut theirs, Role::Responder, &listener, b"p", extensions()).await.unwrap();
        theirs.write_all(b"from the responder").await.unwrap();
        (remote, theirs)
    };
    let ((responder, mut ours), (initiator, mut theirs)) = tokio::join!(initiator, responder);
    assert_eq!((responder.peer_id, initiator.peer_id), (listener.peer_id(), dialer.peer_id()));
    assert_eq!(responder.extensions, extensions());
    assert_eq!(initiator.extensions, NoiseExtensions::default());
    let mut text = [0; 18];
    ours.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"from the responder");
    theirs.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"from the initiator");
}

#[tokio::test]
async fn remote_that_goes_away_is_an_error_at_every_byte() {
    for count in 0..40 {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        let identity = Keypair::generate();
        let mut message = 32u16.to_be_bytes().to_vec();
        message.extend_from_slice(&[5; 40]);
        theirs.write_all(&message[..count]).await.unwrap();
        theirs.shutdown().await.unwrap();
        let result =
            authenticate(&mut ours, Role::Responder, &identity, b"", NoiseExtensions::default()).await;
        assert!(matches!(result, Err(HandshakeError::Lost { step: "noise", .. })), "{count}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn silent_remote_is_waited_for_until_the_caller_gives_up() {
    let (ours, _theirs) = tokio::io::duplex(4096);
    let identity = Keypair::generate();
    let upgrade = upgrade_inbound(ours, &identity, "/memory/1".parse().unwrap());
    assert!(tokio::time::timeout(Duration::from_secs(3600), upgrade).await.is_err());
}

#[tokio::test]
async fn oversized_message_is_refused_by_its_length() {
    let (mut ours, mut theirs) = tokio::io::duplex(4096);
    theirs.write_all(&u16::MAX.to_be_bytes()).await.unwrap();
    let identity = Keypair::generate();
    let result = authenticate(&mut ours, Role::Responder, &identity, b"", NoiseExtensions::default()).await;
    assert!(matches!(result, Err(HandshakeError::Invalid { step: "noise", .. })));
}
