use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

fn key(byte: u8) -> PreSharedKey {
    PreSharedKey::from_bytes([byte; KEY_LENGTH])
}

fn pipes(capacity: usize) -> (PrivatePipe<DuplexStream>, PrivatePipe<DuplexStream>) {
    let (ours, theirs) = duplex(capacity);
    (PrivatePipe::new(ours, &key(1), [2; NONCE_LENGTH]), PrivatePipe::new(theirs, &key(1), [3; NONCE_LENGTH]))
}

/// NaCl's tests/stream3.c, whose cipher the spec's is.
#[tokio::test]
async fn bytes_on_the_wire_are_the_nonce_and_the_published_key_stream() {
    let hex = |hex: &str| HEXLOWER.decode(hex.as_bytes()).unwrap();
    let secret = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
    let nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
    let stream = hex("eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880");
    let (ours, mut wire) = duplex(1024);
    let secret = PreSharedKey::from_bytes(secret.try_into().unwrap());
    let mut pipe = PrivatePipe::new(ours, &secret, nonce.clone().try_into().unwrap());
    pipe.write_all(&[0; 32]).await.unwrap();
    let mut sent = [0; NONCE_LENGTH + 32];
    wire.read_exact(&mut sent).await.unwrap();
    assert_eq!(sent[..NONCE_LENGTH], nonce);
    assert_eq!(sent[NONCE_LENGTH..], stream);
}

#[test]
fn key_files_in_every_encoding_are_one_key() {
    let bytes: [u8; 32] = std::array::from_fn(|index| index as u8 + 200);
    let expected = PreSharedKey::from_bytes(bytes);
    let hex = HEXLOWER.encode(&bytes);
    let base64 = BASE64.encode(&bytes);
    let mut files: Vec<Vec<u8>> = [
        format!("/key/swarm/psk/1.0.0/\n/base16/\n{hex}"),
        format!("/key/swarm/psk/1.0.0/\r\n/base16/\r\n{}\r\n", hex.to_uppercase()),
        format!("/key/swarm/psk/1.0.0/\n/base64/\n{base64}\n"),
        format!("/key/swarm/psk/1.0.0/\n/base64/\n{}", base64.trim_end_matches('=')),
        expected.to_key_file().to_string(),
    ]
    .map(String::into_bytes)
    .into();
    files.push([&b"/key/swarm/psk/1.0.0/\n/bin/\n"[..], &bytes].concat());
    files.push([&b"/key/swarm/psk/1.0.0/\n/bin/\n"[..], &bytes, b"\n"].concat());
    for file in files {
        assert_eq!(PreSharedKey::from_key_file(&file), Ok(expected.clone()));
    }
}

#[test]
fn what_is_no_key_file_is_refused_with_the_reason() {
    use KeyFileError::*;
    let (hex, short, odd) = ("ab".repeat(32), "ab".repeat(31), "ab".repeat(31) + "a");
    for (file, error) in [
        (String::new(), Codec),
        ("/key/swarm/psk/2.0.0/\n/base16/\n".to_owned() + &hex, Codec),
        ("/key/swarm/psk/1.0.0/".to_owned(), Encoding),
        ("/key/swarm/psk/1.0.0/\n/base32/\n".to_owned() + &hex, Encoding),
        ("/key/swarm/psk/1.0.0/\n/base16/\n".to_owned() + &short, Length { length: 31 }),
        ("/key/swarm/psk/1.0.0/\n/base16/\nab".to_owned() + &hex, Length { length: 33 }),
        ("/key/swarm/psk/1.0.0/\n/base16/\n".to_owned() + &odd, Malformed),
        ("/key/swarm/psk/1.0.0/\n/base16/\nxy".to_owned() + &short, Malformed),
        ("/key/swarm/psk/1.0.0/\n/base64/\n%".to_owned(), Malformed),
        ("/key/swarm/psk/1.0.0/\n/bin/\nabc".to_owned(), Length { length: 3 }),
    ] {
        assert_eq!(PreSharedKey::from_key_file(file.as_bytes()), Err(error), "{file}");
    }
}

#[test]
fn the_key_is_not_printed() {
    assert_eq!(format!("{:?}", key(0xab)), "PreSharedKey");
}

/// As rust-libp2p's dialers do: nothing but the nonce is sent before the other side's nonce has come.
#[tokio::test]
async fn side_that_only_reads_sends_its_nonce() {
    let (ours, mut wire) = duplex(1024);
    let mut pipe = PrivatePipe::new(ours, &key(1), [9; NONCE_LENGTH]);
    let mut nonce = [0; NONCE_LENGTH];
    tokio::select! {
        _ = pipe.read_u8() => panic!("nothing was sent"),
        read = wire.read_exact(&mut nonce) => drop(read.unwrap()),
    }
    assert_eq!(nonce, [9; NONCE_LENGTH]);
}

#[tokio::test]
async fn truncated_nonce_is_an_end_in_the_middle() {
    let (ours, mut wire) = duplex(1024);
    let mut pipe = PrivatePipe::new(ours, &key(1), [9; NONCE_LENGTH]);
    wire.write_all(&[1; NONCE_LENGTH - 1]).await.unwrap();
    drop(wire);
    assert_eq!(pipe.read_u8().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let (ours, mut wire) = duplex(1024);
    let mut pipe = PrivatePipe::new(ours, &key(1), [9; NONCE_LENGTH]);
    wire.write_all(&[1; NONCE_LENGTH - 1]).await.unwrap();
    wire.shutdown().await.unwrap();
    assert_eq!(pipe.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn remote_without_a_key_is_told_by_its_first_bytes() {
    let (ours, mut wire) = duplex(1024);
    let mut pipe = PrivatePipe::new(ours, &key(1), [9; NONCE_LENGTH]);
    wire.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n").await.unwrap();
    let error = pipe.read_u8().await.unwrap_err();
    assert_eq!(error.to_string(), "the remote is in no private network");
}

proptest! {
    /// In writes and reads of any size, over pipes that take any number of bytes at a time.
    #[test]
    fn bytes_come_through_both_ways(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..20),
        capacity in 1usize..200,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = pipes(capacity);
            let sent = chunks.concat();
            let write = async {
                for chunk in &chunks {
                    ours.write_all(chunk).await.unwrap();
                }
                ours.shutdown().await.unwrap();
                let mut back = Vec::new();
                ours.read_to_end(&mut back).await.unwrap();
                back
            };
            let echo = async {
                let mut received = Vec::new();
                theirs.read_to_end(&mut received).await.unwrap();
                theirs.write_all(&received).await.unwrap();
                theirs.shutdown().await.unwrap();
                received
            };
            let (back, received) = tokio::join!(write, echo);
            assert_eq!(received, sent);
            assert_eq!(back, sent);
        });
    }
}
