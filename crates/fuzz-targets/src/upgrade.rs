//! Noise, private networks and libp2p's TLS certificates.

use std::time::Duration;

use futures_util::FutureExt as _;
use peerloom_core::{Keypair, Multihash};
use peerloom_upgrade::{
    Role,
    noise::{Handshake, MAX_HANDSHAKE_MESSAGE, NoiseExtensions, Randomness},
    pnet::{NONCE_LENGTH, PreSharedKey, PrivatePipe},
    tls::{PeerCertificate, remote_public_key},
};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use crate::input::{cut, now};

/// A handshake in which somebody changes a message. The first byte says which message (0 to 2) and how; a 3 leaves all
/// as they are. With another message in its place, or with one that differs in a bit, both sides never agree.
pub fn noise_handshake(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let (which, replaces) = (how & 3, how & 4 != 0);
    let (mut initiator, mut responder) = (handshake(Role::Initiator), handshake(Role::Responder));
    let mut changed = false;
    let mut claims = Vec::new();
    for turn in 0..3 {
        let (writer, reader) =
            if turn == 1 { (&mut responder, &mut initiator) } else { (&mut initiator, &mut responder) };
        assert!(matches!(reader.next_message(), Ok(None)), "it is the other side's turn");
        // The first message is not protected: what changes it shows in the second.
        let Ok(message) = writer.next_message() else {
            assert!(changed, "an honest handshake does not fail");
            return;
        };
        let honest = message.expect("it is this side's turn").split_off(2);
        let mut message = honest.clone();
        if turn == which && replaces {
            message = data.to_vec();
        } else if turn == which {
            // The rest is what to add to the message, from its beginning; what is more makes it longer.
            message.resize(message.len().max(data.len()), 0);
            message.iter_mut().zip(data).for_each(|(byte, difference)| *byte ^= difference);
        }
        changed |= message != honest;
        match reader.receive(&message) {
            Ok(claim) => {
                assert!(message.len() <= MAX_HANDSHAKE_MESSAGE);
                assert!(!changed || turn == 0, "a handshake that was tampered with goes on");
                claims.extend(claim);
            }
            Err(_) => {
                assert!(changed, "an honest handshake does not fail");
                return;
            }
        }
    }
    let (mut sending, _) = initiator.ciphers().expect("the handshake is over");
    let (_, mut receiving) = responder.ciphers().expect("the handshake is over");
    let mut sealed = [b"hello".as_slice(), &[0; 16]].concat();
    sending.seal_in_place(b"", &mut sealed).expect("there is a key");
    assert_eq!(receiving.open(b"", &sealed).expect("both have the same key"), b"hello");
    // In the order of the messages: the responder's comes first.
    let peers: Vec<_> =
        claims.into_iter().map(|claim| now(claim.verify()).expect("an honest claim").peer_id).collect();
    assert_eq!(peers, [Role::Responder, Role::Initiator].map(|role| identity(role).peer_id()));
}

fn handshake(role: Role) -> Handshake {
    let seed = seed(role);
    let randomness = Randomness { static_key: [seed + 2; 32], ephemeral_key: [seed + 4; 32] };
    let extensions = NoiseExtensions {
        webtransport_certhashes: vec![Multihash::sha2_256([seed; 32])],
        stream_muxers: vec!["/yamux/1.0.0".parse().expect("a protocol's name")],
        ..NoiseExtensions::default()
    };
    Handshake::new(role, &identity(role), b"prologue", &extensions, randomness).expect("a handshake begins")
}

fn identity(role: Role) -> Keypair {
    Keypair::from_seed([seed(role); 32])
}

fn seed(role: Role) -> u8 {
    match role {
        Role::Initiator => 1,
        Role::Responder => 2,
    }
}

/// Files with the key of a private network.
pub fn pnet_key_file(data: &[u8]) {
    if let Ok(key) = PreSharedKey::from_key_file(data) {
        assert_eq!(PreSharedKey::from_key_file(key.to_key_file().as_bytes()), Ok(key));
    }
}

/// A pipe in a private network: what one side writes in pieces the other reads, and any bytes are read as something.
pub fn pnet_pipe(data: &[u8]) {
    let key = PreSharedKey::from_bytes([9; 32]);
    let room = data.len() + 2 * NONCE_LENGTH;
    let (ours, theirs) = duplex(room);
    let mut writer = PrivatePipe::new(ours, &key, [1; NONCE_LENGTH]);
    let mut written = Vec::new();
    for piece in cut(data) {
        writer.write_all(&piece).now_or_never().expect("there is room").expect("the pipe is open");
        written.extend_from_slice(&piece);
    }
    writer.flush().now_or_never().expect("there is room").expect("the pipe is open");
    let mut reader = PrivatePipe::new(theirs, &key, [2; NONCE_LENGTH]);
    let mut read = vec![0; written.len()];
    if !read.is_empty() {
        reader.read_exact(&mut read).now_or_never().expect("it has arrived").expect("the pipe is open");
    }
    assert_eq!(read, written);

    let (ours, mut theirs) = duplex(room);
    theirs.write_all(data).now_or_never().expect("there is room").expect("the pipe is open");
    theirs.shutdown().now_or_never().expect("there is room").expect("the pipe is open");
    let mut reader = PrivatePipe::new(ours, &key, [3; NONCE_LENGTH]);
    let mut read = Vec::new();
    let outcome = reader.read_to_end(&mut read).now_or_never().expect("the remote has ended");
    if outcome.is_ok() {
        assert_eq!(read.len() + NONCE_LENGTH, data.len());
    }
}

/// Certificates of remotes. One that is accepted proves a peer, and none does of which the signed part differs from it in a bit.
pub fn tls_certificate(data: &[u8]) {
    let der = CertificateDer::from(data);
    let today = UnixTime::since_unix_epoch(Duration::from_secs(1_795_000_000));
    let Ok(certificate) = PeerCertificate::parse(&der) else {
        assert!(remote_public_key(&[der]).is_err());
        return;
    };
    let key = certificate.public_key().clone();
    assert_eq!(remote_public_key(std::slice::from_ref(&der)).as_ref(), Ok(&key));
    assert!(remote_public_key(&[der.clone(), der.clone()]).is_err(), "a remote has one certificate");
    if certificate.verify(today).is_err() {
        return;
    }
    // The signed part, which has a length of two bytes as the whole has; what follows names the algorithm once more.
    let signed = 4..8 + usize::from(u16::from_be_bytes([data[6], data[7]]));
    for at in signed.step_by(11) {
        let mut changed = data.to_vec();
        changed[at] ^= 1 << (at % 8);
        let changed = CertificateDer::from(changed);
        if let Ok(certificate) = PeerCertificate::parse(&changed) {
            assert!(certificate.verify(today).is_err(), "byte {at} of a certificate means nothing");
        }
    }
}
