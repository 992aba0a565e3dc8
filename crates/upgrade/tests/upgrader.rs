//! Noise and TLS, negotiated or named, in private networks or not.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{Connection, DialError, HandshakeError, Keypair, Multiaddr, StreamExt as _};
use peerloom_upgrade::{
    Security, Upgrader,
    pnet::PreSharedKey,
    tls::{self, KeyExchange, PeerVerifier, TlsIdentity},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_rustls::TlsConnector;

const PIPE: usize = 64 * 1024;
/// On a paused clock: reached only if nothing else happens any more.
const STUCK: Duration = Duration::from_secs(60);

type Outcome = (Result<Box<dyn Connection>, DialError>, Result<Box<dyn Connection>, HandshakeError>);

fn address(named: &str) -> Multiaddr {
    format!("/memory/1{named}").parse().unwrap()
}

/// Dials `listener` at `address`; the last pipe that was dialed is accepted.
async fn meet(dialer: &Upgrader, listener: &Upgrader, remote: Multiaddr) -> Outcome {
    let (accepted, mut pipes) = mpsc::channel(4);
    let connect = || async {
        let (ours, theirs) = duplex(PIPE);
        accepted.send(theirs).await.map_err(io::Error::other)?;
        Ok(ours)
    };
    let dial = timeout(STUCK, dialer.dial(remote, connect));
    let accept = timeout(STUCK, async {
        let mut last = listener.accept(pipes.recv().await.unwrap(), address("")).await;
        while last.is_err()
            && let Ok(Some(pipe)) = timeout(Duration::from_secs(1), pipes.recv()).await
        {
            last = listener.accept(pipe, address("")).await;
        }
        last
    });
    let (dialed, accepted) = tokio::join!(dial, accept);
    (dialed.unwrap(), accepted.unwrap())
}

async fn assert_works(outcome: Outcome) {
    let (dialed, accepted) = (outcome.0.unwrap(), outcome.1.unwrap());
    let mut stream = dialed.open_stream().await.unwrap();
    let sent = Bytes::from((0..300_000u32).map(|n| n as u8).collect::<Vec<_>>());
    let write = async {
        stream.write_all(sent.clone()).await.unwrap();
        stream.close_write().await.unwrap();
    };
    let read = async {
        let mut stream = accepted.accept_stream().await.unwrap();
        let mut received = Vec::new();
        while let Some(chunk) = stream.read_chunk().await.unwrap() {
            received.extend_from_slice(&chunk);
        }
        stream.write_all("back".into()).await.unwrap();
        stream.close_write().await.unwrap();
        received
    };
    let ((), received) = tokio::join!(write, read);
    assert_eq!(received, sent);
    assert_eq!(stream.read_chunk().await.unwrap().unwrap(), "back");
    dialed.close().await;
    assert_eq!(accepted.closed().await.to_string(), "closed by the remote");
}

fn handshake_error(error: Result<Box<dyn Connection>, DialError>) -> HandshakeError {
    match error.map(|_| ()) {
        Err(DialError::Handshake { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_with_and_without_a_named_security_are_dialed() {
    let (dialer, keypair) = (Upgrader::new(Keypair::generate()), Keypair::generate());
    let listener = Upgrader::new(keypair.clone());
    for named in ["", "/noise", "/tls"] {
        let remote = address(named).with_peer_id(keypair.peer_id());
        let outcome = meet(&dialer, &listener, remote).await;
        assert_eq!(outcome.0.as_ref().unwrap().remote_peer(), keypair.peer_id());
        assert_eq!(outcome.0.as_ref().unwrap().remote_address(), &address(named));
        assert_works(outcome).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_speaks_one_security_protocol_only_meets_whoever_speaks_that() {
    let both = || Upgrader::new(Keypair::generate());
    let (noise, tls) = (|| both().with_security(Security::Noise), || both().with_security(Security::Tls));
    for (dialer, listener, named) in [
        (noise(), both(), ""),
        (tls(), both(), ""),
        (both(), noise(), ""),
        (both(), tls(), ""),
        (noise(), noise(), "/noise"),
        (tls(), tls(), "/tls"),
    ] {
        assert_works(meet(&dialer, &listener, address(named)).await).await;
    }
    for (dialer, listener, named) in
        [(noise(), tls(), ""), (tls(), noise(), ""), (both(), noise(), "/tls"), (both(), tls(), "/noise")]
    {
        let (dialed, accepted) = meet(&dialer, &listener, address(named)).await;
        assert!(dialed.is_err() && accepted.is_err());
    }
    let nowhere = || async { Err::<DuplexStream, _>(io::Error::other("dialed in vain")) };
    let refused = handshake_error(tls().dial(address("/noise"), nowhere).await);
    assert!(matches!(refused, HandshakeError::NoCommonProtocol { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn another_peer_than_expected_is_refused_and_does_not_learn_who_we_are() {
    let (dialer, keypair) = (Upgrader::new(Keypair::generate()), Keypair::generate());
    let listener = Upgrader::new(keypair.clone());
    let other = Keypair::generate().peer_id();
    for named in ["", "/noise", "/tls"] {
        let (dialed, accepted) = meet(&dialer, &listener, address(named).with_peer_id(other)).await;
        let HandshakeError::WrongPeer { expected, actual } = handshake_error(dialed) else {
            panic!("{named}: not the wrong peer")
        };
        assert_eq!((expected, actual), (other, keypair.peer_id()));
        assert!(accepted.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_and_truncated_beginnings_are_refused() {
    let listener = Upgrader::new(Keypair::generate());
    for (sent, error) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "first bytes are neither"),
        (b"\xff", "first bytes are neither"),
        (b"", "end of file"),
        (b"\x13", "end of file"),
        (b"\x13/multistream", "connection lost"),
        (b"\x13/multistream/2.0.0\n", "version"),
        (b"\x00\x20abc", "noise: connection lost"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "tls: connection lost"),
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", "tls: "),
        (b"\x16\x03\x01\xff\xff", "tls: "),
    ] {
        let (ours, mut theirs) = duplex(PIPE);
        theirs.write_all(sent).await.unwrap();
        theirs.shutdown().await.unwrap();
        let accepted = timeout(STUCK, listener.accept(ours, address(""))).await.unwrap();
        let actual = accepted.map(|_| ()).unwrap_err().to_string();
        assert!(actual.contains(error), "{sent:?}: {actual}");
    }
}

/// Remotes that are made by hand with rustls alone.
mod handmade {
    use super::*;

    const YAMUX: &[u8] = b"/yamux/1.0.0";

    /// Does TLS as `config` says towards `listener`, after asking for it.
    async fn connect(
        listener: &Upgrader,
        config: rustls::ClientConfig,
    ) -> (
        io::Result<tokio_rustls::client::TlsStream<DuplexStream>>,
        Result<Box<dyn Connection>, HandshakeError>,
    ) {
        let (mut ours, theirs) = duplex(PIPE);
        let client = async {
            ours.write_all(b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n").await.unwrap();
            let mut answer = [0; 32];
            ours.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n");
            let name = ServerName::try_from("anything").unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, ours).await
        };
        timeout(STUCK, async { tokio::join!(client, listener.accept(theirs, address(""))) }).await.unwrap()
    }

    fn identity() -> TlsIdentity {
        TlsIdentity::new(&Keypair::generate(), KeyExchange::Classical).unwrap()
    }

    fn anybody() -> Arc<PeerVerifier> {
        Arc::new(PeerVerifier::new(None))
    }

    /// A client whose certificate, if it has one, is none of libp2p's.
    fn client(certificate: Option<rcgen::CertifiedKey<rcgen::KeyPair>>) -> rustls::ClientConfig {
        let provider = Arc::new(tls::cryptography(KeyExchange::Classical));
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(anybody());
        let mut config = match certificate {
            Some(certificate) => builder
                .with_client_auth_cert(
                    vec![certificate.cert.der().clone()],
                    certificate.signing_key.serialize_der().try_into().unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![tls::ALPN.to_vec()];
        config
    }

    #[tokio::test(start_paused = true)]
    async fn client_without_a_certificate_is_refused() {
        let listener = Upgrader::new(Keypair::generate());
        let (_, accepted) = connect(&listener, client(None)).await;
        let error = accepted.map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("tls: ") && error.contains("no certificates"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn client_whose_certificate_lacks_the_extension_is_refused() {
        let listener = Upgrader::new(Keypair::generate());
        let certificate = rcgen::generate_simple_self_signed(vec![]).unwrap();
        let (_, accepted) = connect(&listener, client(Some(certificate))).await;
        let error = accepted.map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "tls: the certificate has no libp2p public key extension");
    }

    #[tokio::test(start_paused = true)]
    async fn client_without_a_common_application_protocol_is_refused() {
        let listener = Upgrader::new(Keypair::generate());
        for alpn in [&[b"h3" as &[u8]][..], &[]] {
            let (_, accepted) = connect(&listener, identity().client(alpn, anybody())).await;
            assert!(matches!(accepted.map(|_| ()), Err(HandshakeError::NoCommonProtocol { step: "tls" })));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn muxer_is_negotiated_early_or_inside_of_tls() {
        let listener = Upgrader::new(Keypair::generate());
        let (stream, accepted) = connect(&listener, identity().client(&[YAMUX, tls::ALPN], anybody())).await;
        assert_eq!(stream.unwrap().get_ref().1.alpn_protocol(), Some(YAMUX));
        accepted.unwrap();

        let (mut ours, theirs) = duplex(PIPE);
        let client = async {
            ours.write_all(b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n").await.unwrap();
            ours.read_exact(&mut [0; 32]).await.unwrap();
            let config = Arc::new(identity().client(&[tls::ALPN], anybody()));
            let name = ServerName::try_from("anything").unwrap();
            let mut stream = TlsConnector::from(config).connect(name, ours).await.unwrap();
            stream.write_all(b"\x13/multistream/1.0.0\n\x0d/yamux/1.0.0\n").await.unwrap();
            let mut answer = [0; 34];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"\x13/multistream/1.0.0\n\x0d/yamux/1.0.0\n");
            stream
        };
        let (_stream, accepted) = tokio::join!(client, listener.accept(theirs, address("")));
        accepted.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn listener_that_has_only_tls_is_asked_for_it_on_a_second_pipe() {
        let (dialer, keypair) = (Upgrader::new(Keypair::generate()), Keypair::generate());
        let server = TlsIdentity::new(&keypair, KeyExchange::Classical).unwrap();
        let pipes = Mutex::new(Vec::new());
        let connect = || async {
            let (ours, theirs) = duplex(PIPE);
            pipes.lock().await.push(theirs);
            Ok(ours)
        };
        let listener = async {
            // As go-libp2p: what follows the refused proposal is no message of the negotiation's.
            let mut first = take(&pipes).await;
            let mut proposal = [0; 28];
            first.read_exact(&mut proposal).await.unwrap();
            assert_eq!(&proposal, b"\x13/multistream/1.0.0\n\x07/noise\n");
            first.write_all(b"\x13/multistream/1.0.0\n\x03na\n").await.unwrap();
            drop(first);
            let mut second = take(&pipes).await;
            let mut proposal = [0; 32];
            second.read_exact(&mut proposal).await.unwrap();
            assert_eq!(&proposal, b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n");
            second.write_all(&proposal).await.unwrap();
            let config = Arc::new(server.server(&[YAMUX, tls::ALPN]));
            tokio_rustls::TlsAcceptor::from(config).accept(second).await.unwrap()
        };
        let remote = address("").with_peer_id(keypair.peer_id());
        let (connection, _stream) = tokio::join!(dialer.dial(remote, connect), listener);
        assert_eq!(connection.unwrap().remote_peer(), keypair.peer_id());
    }

    async fn take(pipes: &Mutex<Vec<DuplexStream>>) -> DuplexStream {
        loop {
            if let Some(pipe) = pipes.lock().await.pop() {
                return pipe;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn remote_that_ends_in_the_middle_of_tls_is_lost() {
        let dialer = Upgrader::new(Keypair::generate());
        let pipes = Mutex::new(Vec::new());
        for answer in
            [&b""[..], b"\x16\x03\x03\x00\x7a\x02\x00", b"\x15\x03\x03\x00\x02\x02\x28", b"HTTP/1.1 400"]
        {
            let connect = || async {
                let (ours, mut theirs) = duplex(PIPE);
                theirs.write_all(answer).await?;
                theirs.shutdown().await?;
                // Takes the ClientHello.
                pipes.lock().await.push(theirs);
                Ok(ours)
            };
            let dialed = timeout(STUCK, dialer.dial(address("/tls"), connect)).await.unwrap();
            let error = handshake_error(dialed).to_string();
            assert!(error.starts_with("tls: "), "{error}");
        }
    }
}

mod private_networks {
    use super::*;

    fn member(key: u8) -> Upgrader {
        Upgrader::new(Keypair::generate()).with_private_network(PreSharedKey::from_bytes([key; 32]))
    }

    #[tokio::test(start_paused = true)]
    async fn members_of_one_network_connect() {
        for named in ["", "/noise", "/tls"] {
            assert_works(meet(&member(1), &member(1), address(named)).await).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_of_different_networks_do_not_and_say_why() {
        for named in ["", "/noise", "/tls"] {
            let (dialed, accepted) = meet(&member(1), &member(2), address(named)).await;
            for error in [handshake_error(dialed), accepted.map(|_| ()).unwrap_err()] {
                let error = error.to_string();
                assert!(error.starts_with("pnet: the remote seems to have another key, or none"), "{error}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_and_an_outsider_do_not_connect_whoever_dials() {
        let outsider = Upgrader::new(Keypair::generate());
        for named in ["", "/noise", "/tls"] {
            let (dialed, accepted) = meet(&member(1), &outsider, address(named)).await;
            assert!(handshake_error(dialed).to_string().starts_with("pnet: "));
            assert!(accepted.is_err());
            let (dialed, accepted) = meet(&outsider, &member(1), address(named)).await;
            handshake_error(dialed);
            let error = accepted.map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with("pnet: "), "{error}");
            if named.is_empty() {
                assert!(error.contains("the remote is in no private network"), "{error}");
            }
        }
    }
}
