//! Certificates with one thing wrong with each, shown over TCP by dialers and by listeners.

// The whole file is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use peerloom_core::{
    Connection, DialError, HandshakeError, Keypair, ListenerEvent, Multiaddr, Protocol, StreamExt as _,
    Transport as _, multistream_select::dial_pipe,
};
use peerloom_tcp::TcpTransport;
use peerloom_transport_suite::certificates::{FAULTS, certified};
use peerloom_upgrade::tls::{ALPN, KeyExchange, PeerVerifier, TlsIdentity};
use rustls::sign::CertifiedKey;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const APPLICATION_PROTOCOLS: [&[u8]; 2] = [b"/yamux/1.0.0", ALPN];

fn identity() -> TlsIdentity {
    TlsIdentity::new(&Keypair::generate(), KeyExchange::Classical).unwrap()
}

/// What a dialer makes of a listener that shows this. Nothing of the connection may be left open.
async fn dialer_says(shown: Arc<dyn rustls::server::ResolvesServerCert>) -> DialError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}/tls", listener.local_addr().unwrap().port());
    let mut tls = identity().server(&APPLICATION_PROTOCOLS);
    tls.cert_resolver = shown;
    let accepting = async {
        let (socket, _) = listener.accept().await.unwrap();
        let told = TlsAcceptor::from(Arc::new(tls)).accept(socket).await.err().unwrap();
        assert!(told.to_string().contains("alert"), "{told}");
    };
    let transport = TcpTransport::new(Keypair::generate());
    let (dialed, ()) = tokio::join!(transport.dial(address.parse().unwrap()), accepting);
    dialed.err().unwrap()
}

/// What a listener makes of a dialer that shows this, and still serves others.
async fn listener_says(
    shown: Arc<dyn rustls::client::ResolvesClientCert>,
    negotiated: bool,
) -> HandshakeError {
    let keypair = Keypair::generate();
    let transport = TcpTransport::new(keypair.clone());
    let mut listener = transport.listen("/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap();
    let address: Multiaddr = listener.addresses().remove(0);
    let port = |protocol| match protocol {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    };
    let port = address.protocols().find_map(port).unwrap();
    let mut tls = identity().client(&APPLICATION_PROTOCOLS, Arc::new(PeerVerifier::new(None)));
    tls.client_auth_cert_resolver = shown;
    let dialing = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        if negotiated {
            dial_pipe(&mut socket, &["/tls/1.0.0".parse().unwrap()]).await.unwrap();
        }
        let connector = TlsConnector::from(Arc::new(tls));
        // The dialer is done before the listener has seen its certificate; then it is told.
        let mut stream = connector.connect("libp2p".try_into().unwrap(), socket).await.unwrap();
        let told = stream.read_u8().await.unwrap_err();
        let alert = told.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        assert!(matches!(alert, Some(rustls::Error::AlertReceived(_))), "{told}");
    };
    let accepting = async {
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        incoming.handshake.await.err().unwrap()
    };
    let (refusal, ()) = tokio::join!(accepting, dialing);
    let honest = TcpTransport::new(Keypair::generate());
    let accepting = async {
        let ListenerEvent::Incoming(incoming) = listener.next().await.unwrap() else { panic!() };
        incoming.handshake.await.unwrap()
    };
    let address: Multiaddr = format!("{address}/tls/p2p/{}", keypair.peer_id()).parse().unwrap();
    let (dialed, accepted) = tokio::join!(honest.dial(address), accepting);
    assert_talks(&*dialed.unwrap(), &*accepted).await;
    refusal
}

async fn assert_talks(one: &dyn Connection, other: &dyn Connection) {
    let mut stream = one.open_stream().await.unwrap();
    stream.write_all("hello".into()).await.unwrap();
    let mut accepted = other.accept_stream().await.unwrap();
    assert_eq!(accepted.read_chunk().await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn a_listener_with_a_faulty_certificate_is_refused_and_told() {
    for (fault, words) in FAULTS {
        match dialer_says(certified(fault)).await {
            DialError::Handshake { source: HandshakeError::Invalid { step: "tls", reason }, .. } => {
                assert!(reason.contains(words), "{fault:?}: {reason}");
            }
            other => panic!("{fault:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_dialer_with_a_faulty_certificate_is_refused_and_told() {
    for negotiated in [false, true] {
        for (fault, words) in FAULTS {
            match listener_says(certified(fault), negotiated).await {
                HandshakeError::Invalid { step: "tls", reason } => {
                    assert!(reason.contains(words), "{fault:?}: {reason}");
                }
                other => panic!("{fault:?}: {other:?}"),
            }
        }
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_dialer_without_a_certificate_is_refused_and_told() {
    let refusal = listener_says(Arc::new(NoCertificate), false).await;
    assert!(matches!(&refusal, HandshakeError::Invalid { step: "tls", .. }), "{refusal:?}");
}
