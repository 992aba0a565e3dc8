//! What holds of every dial, whatever becomes of the addresses: on the simulated internet, with addresses drawn at random.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use peerloom_core::{
    Connection, DialError, Keypair, ListenError, Listener, Multiaddr, Transport, runtime::BoxFuture,
};
use peerloom_node::{ConnectError, Limits, Node};
use peerloom_sim::{Host, HostConfig, Internet, InternetTransport, LinkConfig};
use proptest::{prelude::*, test_runner::TestCaseError};
use tokio::time::{Instant, sleep};

/// "Connection Attempt Delay" of RFC 8305.
const STAGGER: Duration = Duration::from_millis(250);
/// Timers go in steps of that.
const TICK: Duration = Duration::from_millis(2);

const KINDS: [&str; 5] = [
    "udp/4001/quic-v1",
    "udp/4001/quic-v1/webtransport",
    "tcp/4001",
    "tcp/4001/ws",
    "udp/4001/webrtc-direct",
];

/// What is at an address.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// The peer, so many milliseconds away.
    Peer(u64),
    /// A host on which nobody listens: TCP is refused, UDP ignored.
    NobodyListens(u64),
    /// No host at all.
    Nothing,
    /// Somebody else.
    Other(u64),
}

/// An address: where, how (an index into `KINDS`), and what is there.
#[derive(Debug, Clone)]
struct Place {
    is_private: bool,
    kind: usize,
    fate: Fate,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        (1_u64..150).prop_map(Fate::Peer),
        (1_u64..150).prop_map(Fate::NobodyListens),
        Just(Fate::Nothing),
        (1_u64..150).prop_map(Fate::Other),
    ]
}

fn places(most: usize) -> impl Strategy<Value = Vec<Place>> {
    let place = (any::<bool>(), 0..KINDS.len(), fate());
    prop::collection::vec(
        place.prop_map(|(is_private, kind, fate)| Place { is_private, kind, fate }),
        1..=most,
    )
}

/// Every address is a host of its own, so that each has a distance of its own; those of the peer have the same key.
struct World {
    internet: Internet,
    client: Node,
    transport: Counting,
    servers: Vec<Node>,
    peer: Keypair,
    addresses: Vec<Multiaddr>,
}

impl World {
    async fn new(places: &[Place], limits: Limits) -> Self {
        let internet = Internet::new(9);
        let dialer = internet.host(HostConfig::new());
        let (peer, mut servers, mut addresses) = (Keypair::generate(), Vec::new(), Vec::new());
        for (at, place) in places.iter().enumerate() {
            let ip = match place.is_private {
                true => Ipv4Addr::new(192, 168, 0, at as u8 + 1),
                false => Ipv4Addr::new(20, 1, 0, at as u8 + 1),
            };
            let listen: Multiaddr = format!("/ip4/{ip}/{}", KINDS[place.kind]).parse().unwrap();
            let host = |millis| {
                let host = internet.host(HostConfig::new().address(IpAddr::from(ip)));
                internet.link(&dialer, &host, LinkConfig::new(Duration::from_millis(millis)));
                host
            };
            match place.fate {
                Fate::Peer(millis) => servers.push(listening(&host(millis), peer.clone(), &listen).await),
                Fate::Other(millis) => {
                    servers.push(listening(&host(millis), Keypair::generate(), &listen).await)
                }
                Fate::NobodyListens(millis) => drop(host(millis)),
                Fate::Nothing => {}
            }
            addresses.push(listen);
        }
        let keypair = dialer.keypair();
        let transport = Counting { inner: dialer.transport(keypair.clone()), counts: Arc::default() };
        let client = Node::builder(keypair).transport(transport.clone()).limits(limits).build();
        Self { internet, client, transport, servers, peer, addresses }
    }

    async fn dial(&self) -> (Result<(), Arc<ConnectError>>, Duration) {
        let named = self.addresses.iter().map(|address| address.with_peer_id(self.peer.peer_id()));
        let start = Instant::now();
        let dialed = self.client.dial(named.collect::<Vec<_>>()).await;
        (dialed.map(drop), start.elapsed())
    }

    /// Connections at the other end, whoever that is.
    fn at_remotes(&self) -> usize {
        self.servers.iter().map(|server| server.connections().len()).sum()
    }
}

async fn listening(host: &Host, keypair: Keypair, address: &Multiaddr) -> Node {
    let node = Node::builder(keypair.clone()).transport(host.transport(keypair)).build();
    node.listen(address.clone()).await.unwrap();
    node
}

#[derive(Clone)]
struct Counting {
    inner: InternetTransport,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    under_way: AtomicUsize,
    most: AtomicUsize,
    web_transport: AtomicUsize,
    most_web_transport: AtomicUsize,
}

impl Transport for Counting {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        self.inner.can_dial(address)
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        self.inner.can_listen(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let under_way = UnderWay::new(self.counts.clone(), address.to_string().contains("webtransport"));
        let dialing = self.inner.dial(address);
        Box::pin(async move {
            let _under_way = under_way;
            dialing.await
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        self.inner.listen(address)
    }
}

struct UnderWay(Arc<Counts>, bool);

impl UnderWay {
    fn new(counts: Arc<Counts>, is_web_transport: bool) -> Self {
        let now = counts.under_way.fetch_add(1, Relaxed) + 1;
        counts.most.fetch_max(now, Relaxed);
        if is_web_transport {
            let now = counts.web_transport.fetch_add(1, Relaxed) + 1;
            counts.most_web_transport.fetch_max(now, Relaxed);
        }
        Self(counts, is_web_transport)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
        self.0.web_transport.fetch_sub(usize::from(self.1), Relaxed);
    }
}

/// What the quickest address takes when nothing else is dialed; `None` if none leads to the peer.
async fn best_alone(places: &[Place]) -> Option<Duration> {
    let mut best = None;
    for place in places.iter().filter(|place| matches!(place.fate, Fate::Peer(_))) {
        let world = World::new(std::slice::from_ref(place), Limits::default()).await;
        let (dialed, took) = world.dial().await;
        dialed.unwrap();
        best = Some(best.map_or(took, |best: Duration| best.min(took)));
    }
    best
}

/// Runs one case on a clock of its own.
fn simulate<F: Future<Output = Result<(), TestCaseError>>>(case: F) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(case)
}

/// Longer than anything that was given up lingers.
const A_WHILE: Duration = Duration::from_secs(120);

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_dial_takes_at_most_one_stagger_more_than_the_best_address_alone(places in places(8)) {
        // Of WebTransport there are never more than a few under way, and so others may have to wait.
        let web_transport = places.iter().filter(|place| place.kind == 1).count();
        prop_assume!(web_transport <= 3);
        simulate(async {
            let best = best_alone(&places).await;
            let world = World::new(&places, Limits::default()).await;
            let (dialed, took) = world.dial().await;
            match best {
                Some(best) => {
                    prop_assert!(dialed.is_ok(), "{dialed:?}");
                    prop_assert!(took <= best + STAGGER + TICK, "{took:?} instead of {best:?}");
                }
                None => prop_assert!(dialed.is_err()),
            }
            Ok(())
        })?;
    }

    #[test]
    fn one_connection_is_kept_and_nothing_is_left_of_the_other_attempts(places in places(16)) {
        simulate(async {
            let reachable = places.iter().any(|place| matches!(place.fate, Fate::Peer(_)));
            let world = World::new(&places, Limits::default()).await;
            let (dialed, _) = world.dial().await;
            prop_assert_eq!(dialed.is_ok(), reachable);
            prop_assert_eq!(world.transport.counts.under_way.load(Relaxed), 0, "cancelled at once");
            sleep(A_WHILE).await;
            let kept = usize::from(reachable);
            prop_assert_eq!(world.internet.connections(), kept, "half-open ones included");
            prop_assert_eq!((world.client.connections().len(), world.at_remotes()), (kept, kept));
            world.client.close().await;
            for server in &world.servers {
                server.close().await;
            }
            prop_assert_eq!(world.servers.iter().map(Node::running_tasks).sum::<usize>(), 0);
            sleep(A_WHILE).await;
            prop_assert_eq!(world.internet.connections(), 0);
            Ok(())
        })?;
    }

    #[test]
    fn an_error_accounts_for_every_address(places in places(16)) {
        let hopeless: Vec<Place> =
            places.into_iter().filter(|place| !matches!(place.fate, Fate::Peer(_))).collect();
        prop_assume!(!hopeless.is_empty());
        simulate(async {
            let world = World::new(&hopeless, Limits::default()).await;
            let (dialed, _) = world.dial().await;
            let text = dialed.unwrap_err().to_string();
            for address in &world.addresses {
                prop_assert!(text.contains(&address.to_string()), "{address} is not in: {text}");
            }
            Ok(())
        })?;
    }

    #[test]
    fn the_budgets_hold(places in places(16), of_all in 1_usize..20, of_one in 1_usize..10) {
        simulate(async {
            let mut limits = Limits::default();
            (limits.concurrent_dials, limits.dials_per_peer) = (of_all, of_one);
            let world = World::new(&places, limits).await;
            let reachable = places.iter().any(|place| matches!(place.fate, Fate::Peer(_)));
            let (dialed, _) = world.dial().await;
            prop_assert_eq!(dialed.is_ok(), reachable, "late, perhaps, but found");
            prop_assert!(world.transport.counts.most.load(Relaxed) <= of_all.min(of_one));
            prop_assert!(world.transport.counts.most_web_transport.load(Relaxed) <= 3);
            Ok(())
        })?;
    }
}
