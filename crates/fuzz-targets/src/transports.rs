//! What transports make of addresses, names and certificates.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use arbitrary::{Arbitrary, Unstructured};
use peerloom_core::{Keypair, MAX_MULTIADDR_BYTES, Multiaddr, Transport, runtime::BoxFuture};
use peerloom_dns::{LookupError, MAX_ADDRESSES, MAX_NAMES, ResolutionError, Resolver, resolve};
use peerloom_quic::{
    QuicConfig, QuicTransport, WebTransportConfig, WebTransportTransport, certificate::Certificate,
};
use peerloom_tcp::TcpTransport;
use peerloom_webrtc::{WebRtcDirectConfig, WebRtcDirectTransport};
use peerloom_websocket::WebSocketTransport;
use rustls::pki_types::CertificateDer;

static TRANSPORTS: LazyLock<Vec<Box<dyn Transport>>> = LazyLock::new(|| {
    let identity = Keypair::from_seed([3; 32]);
    vec![
        Box::new(TcpTransport::new(identity.clone())),
        Box::new(WebSocketTransport::new(identity.clone())),
        Box::new(QuicTransport::new(identity.clone(), QuicConfig::default()).expect("an identity for TLS")),
        Box::new(WebTransportTransport::new(identity.clone(), WebTransportConfig::default())),
        Box::new(
            WebRtcDirectTransport::new(identity.clone(), WebRtcDirectConfig::default())
                .expect("a certificate"),
        ),
    ]
});

/// Every transport against any address: at most one of them dials it, and what it dials has the same end for all.
pub fn transport_addresses(data: &[u8]) {
    let binary = Multiaddr::from_bytes(data).ok();
    let text = std::str::from_utf8(data).ok().and_then(|text| text.parse().ok());
    for address in binary.into_iter().chain(text) {
        let address: Multiaddr = address;
        let dialers = TRANSPORTS.iter().filter(|transport| transport.can_dial(&address)).count();
        assert!(dialers <= 1, "{dialers} transports dial {address}");
        let listeners = TRANSPORTS.iter().filter(|transport| transport.can_listen(&address)).count();
        assert!(listeners <= 1, "{listeners} transports listen on {address}");
    }
}

/// Certificates that are accepted by their hash.
pub fn webtransport_certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::parse(CertificateDer::from(data.to_vec())) else { return };
    let validity = certificate.not_after().duration_since(certificate.not_before());
    assert!(validity.is_ok_and(|validity| validity.as_secs() <= 14 * 24 * 3600));
    assert_eq!(certificate.hash(), peerloom_core::Multihash::sha2_256_of(data));
}

/// What DNS answers: in turns, to whatever is asked.
#[derive(Debug, Arbitrary)]
enum Answer {
    Addresses(Vec<u8>),
    Texts(Vec<Text>),
    Failure,
}

#[derive(Debug, Arbitrary)]
enum Text {
    /// Another name, of a few.
    Name(u8),
    /// An address that ends with a peer.
    Address(u8),
    Entry(String),
    Other(String),
}

/// Names that DNS resolves to anything: the number of questions, that of addresses and the length of each have bounds.
pub fn dns_resolution(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(start) = input.arbitrary::<&str>() else { return };
    let address: Multiaddr = match start.parse() {
        Ok(address) => address,
        Err(_) => "/dnsaddr/start.example".parse().expect("an address"),
    };
    let Ok(answers) = Vec::arbitrary_take_rest(input) else { return };
    let resolver = Answers(Arc::new(Mutex::new(State { answers, next: 0, asked: 0 })));
    let state = resolver.0.clone();
    thread_local! {
        static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
        );
    }
    let outcome = RUNTIME.with_borrow(|runtime| runtime.block_on(resolve(&resolver, &address)));
    let asked = state.lock().unwrap_or_else(PoisonError::into_inner).asked;
    assert!(asked <= MAX_NAMES, "{asked} questions");
    match outcome {
        Ok(addresses) => {
            assert!((1..=MAX_ADDRESSES).contains(&addresses.len()));
            for resolved in addresses {
                assert!(
                    resolved.as_bytes().len() <= MAX_MULTIADDR_BYTES,
                    "{resolved} is longer than an address may be"
                );
                assert_eq!(Multiaddr::from_bytes(resolved.as_bytes()).as_ref(), Ok(&resolved));
            }
        }
        Err(error) => assert_ne!(error, ResolutionError::TimedOut, "nobody waits"),
    }
}

struct Answers(Arc<Mutex<State>>);

struct State {
    answers: Vec<Answer>,
    next: usize,
    asked: usize,
}

impl State {
    fn answer(&mut self) -> Option<&Answer> {
        self.asked += 1;
        let index = self.next;
        self.next += 1;
        self.answers.get(index.checked_rem(self.answers.len())?)
    }
}

impl Resolver for Answers {
    fn addresses(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, LookupError>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match state.answer() {
            Some(Answer::Addresses(bytes)) => Ok(bytes
                .iter()
                .map(|byte| match byte & 1 {
                    0 => Ipv4Addr::new(192, 0, 2, *byte).into(),
                    _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, (*byte).into()).into(),
                })
                .collect()),
            _ => Err(LookupError::NotFound { name }),
        };
        Box::pin(async { answer })
    }

    fn texts(&self, name: String) -> BoxFuture<'static, Result<Vec<String>, LookupError>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match state.answer() {
            Some(Answer::Texts(texts)) => Ok(texts.iter().map(Text::record).collect()),
            _ => Err(LookupError::NotFound { name }),
        };
        Box::pin(async { answer })
    }
}

impl Text {
    fn record(&self) -> String {
        match self {
            Self::Name(number) => format!("dnsaddr=/dnsaddr/name{number}.example"),
            Self::Address(number) => {
                let peer = Keypair::from_seed([*number; 32]).peer_id();
                format!("dnsaddr=/ip4/192.0.2.{number}/tcp/4001/p2p/{peer}")
            }
            Self::Entry(entry) => format!("dnsaddr={entry}"),
            Self::Other(text) => text.clone(),
        }
    }
}
