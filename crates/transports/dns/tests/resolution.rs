//! Names and what they stand for, with answers of every kind, on a paused clock.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use peerloom_core::{
    Keypair, Multiaddr,
    runtime::{BoxFuture, Instant, sleep},
};
use peerloom_dns::{
    LookupError, MAX_ADDRESSES, MAX_NAMES, MAX_RECURSION, RESOLUTION_TIMEOUT, ResolutionError, Resolver,
    resolve,
};

/// Answers from memory.
#[derive(Default, Clone)]
struct Answers {
    addresses: HashMap<String, Vec<IpAddr>>,
    texts: HashMap<String, Vec<String>>,
    delay: Duration,
    asked: Arc<AtomicUsize>,
}

impl Answers {
    fn host(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.addresses.insert(name.to_owned(), addresses);
        self
    }

    fn dnsaddr(mut self, name: &str, entries: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let entries = entries.into_iter().map(|entry| format!("dnsaddr={}", entry.as_ref())).collect();
        self.texts.insert(format!("_dnsaddr.{name}"), entries);
        self
    }

    fn find<T: Send + 'static>(
        &self,
        name: String,
        answer: Option<T>,
    ) -> BoxFuture<'static, Result<T, LookupError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let delay = sleep(self.delay);
        Box::pin(async move {
            delay.await;
            answer.ok_or(LookupError::NotFound { name })
        })
    }
}

impl Resolver for Answers {
    fn addresses(&self, name: String) -> BoxFuture<'static, Result<Vec<IpAddr>, LookupError>> {
        let answer = self.addresses.get(&name).cloned();
        self.find(name, answer)
    }

    fn texts(&self, name: String) -> BoxFuture<'static, Result<Vec<String>, LookupError>> {
        let answer = self.texts.get(&name).cloned();
        self.find(name, answer)
    }
}

async fn resolved(answers: &Answers, address: &str) -> Result<Vec<String>, ResolutionError> {
    let address: Multiaddr = address.parse().unwrap();
    Ok(resolve(answers, &address).await?.iter().map(Multiaddr::to_string).collect())
}

#[tokio::test(start_paused = true)]
async fn a_host_stands_for_its_addresses_of_the_family_asked_for() {
    let answers = Answers::default().host("example.org", &["192.0.2.1", "2001:db8::1"]);
    for (address, expected) in [
        ("/dns/example.org/tcp/1", &["/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1"][..]),
        ("/dns4/example.org/udp/1/quic-v1", &["/ip4/192.0.2.1/udp/1/quic-v1"]),
        ("/dns6/example.org/tcp/1/ws", &["/ip6/2001:db8::1/tcp/1/ws"]),
    ] {
        assert_eq!(resolved(&answers, address).await.unwrap(), expected, "{address}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_name_stays_where_a_certificate_is_compared_with_it() {
    let answers = Answers::default().host("example.org", &["192.0.2.1"]);
    for (address, expected) in [
        ("/dns/example.org/tcp/443/wss", "/ip4/192.0.2.1/tcp/443/tls/sni/example.org/ws"),
        ("/dns4/example.org/tcp/443/tls/ws", "/ip4/192.0.2.1/tcp/443/tls/sni/example.org/ws"),
        ("/dns4/example.org/tcp/443/tls/sni/other.org/ws", "/ip4/192.0.2.1/tcp/443/tls/sni/other.org/ws"),
        ("/dns4/example.org/tcp/443/tls", "/ip4/192.0.2.1/tcp/443/tls"),
        ("/dns4/example.org/tcp/443/ws/noise", "/ip4/192.0.2.1/tcp/443/ws/noise"),
    ] {
        assert_eq!(resolved(&answers, address).await.unwrap(), [expected], "{address}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dnsaddr_stands_for_all_its_entries_in_their_order() {
    let answers = Answers::default()
        .dnsaddr(
            "example.org",
            ["/ip4/192.0.2.1/tcp/1", "/dnsaddr/a.example.org", "/dns4/b.example.org/tcp/2"],
        )
        .dnsaddr("a.example.org", ["/ip6/2001:db8::1/udp/3/quic-v1", "/ip4/192.0.2.1/tcp/1"])
        .host("b.example.org", &["192.0.2.2"]);
    let expected = ["/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/udp/3/quic-v1", "/ip4/192.0.2.2/tcp/2"];
    assert_eq!(resolved(&answers, "/dnsaddr/example.org").await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn entries_of_other_peers_and_entries_that_are_no_addresses_are_left_out() {
    let (wanted, other) = (Keypair::generate().peer_id(), Keypair::generate().peer_id());
    let mut answers = Answers::default().dnsaddr(
        "example.org",
        [
            format!("/ip4/192.0.2.1/tcp/1/p2p/{wanted}"),
            format!("/ip4/192.0.2.2/tcp/1/p2p/{other}"),
            "/ip4/192.0.2.3/tcp/1".to_owned(),
            "/ip4/1/tcp/1".to_owned(),
            format!("/dnsaddr/a.example.org/p2p/{wanted}"),
        ],
    );
    answers = answers.dnsaddr(
        "a.example.org",
        [format!("/ip4/192.0.2.4/tcp/1/p2p/{wanted}"), format!("/ip4/192.0.2.5/tcp/1/p2p/{other}")],
    );
    answers.texts.get_mut("_dnsaddr.example.org").unwrap().push("v=spf1 -all".to_owned());
    let found = resolved(&answers, &format!("/dnsaddr/example.org/p2p/{wanted}")).await.unwrap();
    assert_eq!(found, ["1", "4"].map(|host| format!("/ip4/192.0.2.{host}/tcp/1/p2p/{wanted}")));
}

#[tokio::test(start_paused = true)]
async fn dnsaddrs_stand_for_each_other_only_so_often() {
    let chain = |length: usize| {
        let mut answers = Answers::default().host("end", &["192.0.2.1"]);
        for step in 0..length {
            answers = answers.dnsaddr(&format!("s{step}"), [format!("/dnsaddr/s{}", step + 1)]);
        }
        answers.dnsaddr(&format!("s{length}"), ["/dns4/end/tcp/1"])
    };
    let reached = resolved(&chain(MAX_RECURSION), "/dnsaddr/s0").await;
    assert_eq!(reached.unwrap(), ["/ip4/192.0.2.1/tcp/1"]);
    let too_deep = resolved(&chain(MAX_RECURSION + 1), "/dnsaddr/s0").await.unwrap_err();
    assert_eq!(too_deep, ResolutionError::TooDeep { name: format!("s{}", MAX_RECURSION + 1) });
}

#[tokio::test(start_paused = true)]
async fn a_circle_of_names_is_walked_once() {
    let answers = Answers::default()
        .dnsaddr("a", ["/dnsaddr/b", "/dnsaddr/a"])
        .dnsaddr("b", ["/dnsaddr/a", "/ip4/192.0.2.1/tcp/1"]);
    assert_eq!(resolved(&answers, "/dnsaddr/a").await.unwrap(), ["/ip4/192.0.2.1/tcp/1"]);
    assert_eq!(answers.asked.load(Ordering::Relaxed), 2);
    let nothing = Answers::default().dnsaddr("a", ["/dnsaddr/a"]);
    assert!(matches!(resolved(&nothing, "/dnsaddr/a").await, Err(ResolutionError::Nothing { .. })));
}

#[tokio::test(start_paused = true)]
async fn answers_beyond_the_bounds_are_not_followed() {
    let addresses = (0..1000).map(|port| format!("/ip4/192.0.2.1/tcp/{port}"));
    let answers = Answers::default().dnsaddr("many", addresses);
    assert_eq!(resolved(&answers, "/dnsaddr/many").await.unwrap().len(), MAX_ADDRESSES);

    // A tree in which every name stands for a hundred others.
    let mut answers = Answers::default();
    let children = |name: &str| (0..100).map(|child| format!("/dnsaddr/{name}-{child}")).collect::<Vec<_>>();
    answers = answers.dnsaddr("t", children("t"));
    for child in 0..100 {
        let name = format!("t-{child}");
        answers = answers.dnsaddr(&name, children(&name));
    }
    assert!(resolved(&answers, "/dnsaddr/t").await.is_err());
    assert!(answers.asked.load(Ordering::Relaxed) <= MAX_NAMES);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_a_long_name_makes_too_long_is_none() {
    let name = ["abcdefghi"; 20].join(".");
    let answers = Answers::default().host(&name, &["192.0.2.1"]);
    let address = format!("/dns4/{name}/tcp/443{}", "/wss".repeat(40));
    let error = resolved(&answers, &address).await.unwrap_err();
    assert!(matches!(error, ResolutionError::Nothing { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_does_not_answer_is_not_waited_for_long() {
    let mut answers = Answers::default().host("example.org", &["192.0.2.1"]);
    answers.delay = Duration::from_secs(3600);
    let start = Instant::now();
    assert_eq!(resolved(&answers, "/dns/example.org/tcp/1").await, Err(ResolutionError::TimedOut));
    assert!(start.elapsed() < RESOLUTION_TIMEOUT + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn names_without_an_answer_are_told_by_name() {
    let answers = Answers::default().host("six", &["2001:db8::1"]).dnsaddr("empty", [""; 0]);
    for (address, error) in [
        ("/dns/absent/tcp/1", "DNS knows nothing of absent"),
        ("/dnsaddr/absent", "DNS knows nothing of _dnsaddr.absent"),
        ("/dns4/six/tcp/1", "six stands for no such address"),
        ("/dnsaddr/empty", "empty stands for no such address"),
    ] {
        assert_eq!(resolved(&answers, address).await.unwrap_err().to_string(), error);
    }
    // One name without an answer does not take the others with it.
    let answers = answers.dnsaddr("some", ["/dns/absent/tcp/1", "/dns6/six/tcp/1"]);
    assert_eq!(resolved(&answers, "/dnsaddr/some").await.unwrap(), ["/ip6/2001:db8::1/tcp/1"]);
}
