//! A network interface that disappears, in two network namespaces that the test makes and removes. Needs root.
//!
//! ```text
//! server  10.77.1.1 ── first  ── 10.77.1.2   client
//!         10.77.2.1 ── second ── 10.77.2.2
//!         10.77.9.1, to which both ways lead, the first preferred
//! ```

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use peerloom_core::{ConnectionError, Keypair};
use peerloom_node::{Node, NodeEvent};
use peerloom_quic::{QuicConfig, QuicTransport, WebTransportConfig, WebTransportTransport};
use peerloom_webrtc::{WebRtcDirectConfig, WebRtcDirectTransport};

use crate::{
    common::{PEERLOOM, Server, status_page},
    honest::{Regulars, assert_open_to_newcomers, dial, echo},
};

const PORT: &str = "4001";
/// How the client's half of the test is told where the server is.
const ADDRESSES: &str = "PEERLOOM_FAULTS_ADDRESSES";
const CLIENT_HALF: &str = "interfaces::the_half_of_the_test_that_runs_in_the_clients_namespace";
/// The clients' own, so that the test does not take half a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Two namespaces, removed when dropped.
struct Namespaces {
    server: String,
    client: String,
}

impl Namespaces {
    /// `None` where this may not be done.
    fn new() -> Option<Self> {
        let name = |side: &str| format!("peerloom-{side}-{}", std::process::id());
        let namespaces = Self { server: name("server"), client: name("client") };
        let made = ip(&["netns", "add", &namespaces.server]) && ip(&["netns", "add", &namespaces.client]);
        made.then_some(namespaces)
    }

    fn connect(&self) {
        for (link, net) in [("first", "10.77.1"), ("second", "10.77.2")] {
            let peer = ["type", "veth", "peer", "name", link, "netns", &self.client];
            assert!(ip(&[&["-n", &self.server, "link", "add", link][..], &peer].concat()));
            for (namespace, host) in [(&self.server, 1), (&self.client, 2)] {
                assert!(ip(&["-n", namespace, "address", "add", &format!("{net}.{host}/24"), "dev", link]));
                assert!(ip(&["-n", namespace, "link", "set", link, "up"]));
                assert!(ip(&["-n", namespace, "link", "set", "lo", "up"]));
            }
        }
        assert!(ip(&["-n", &self.server, "address", "add", "10.77.9.1/32", "dev", "lo"]));
        for (via, metric) in [("10.77.1.1", "10"), ("10.77.2.1", "20")] {
            let route = ["-n", &self.client, "route", "add", "10.77.9.1", "via", via, "metric", metric];
            assert!(ip(&route));
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.server]);
        ip(&["netns", "del", &self.client]);
    }
}

/// Whether `ip` has done what it was told.
fn ip(arguments: &[&str]) -> bool {
    let done = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// A server in a namespace. As [`Server`], but its status port is out of reach.
fn serve(namespace: &str, data_dir: &Path) -> Server {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, PEERLOOM, "run", "--port", PORT]);
    Server::spawn(command, data_dir)
}

#[test]
fn an_interface_that_disappears_takes_only_its_own_connections() {
    let Some(namespaces) = Namespaces::new() else {
        println!("skipped: an interface that disappears: no network namespaces on this machine, or no root");
        return;
    };
    namespaces.connect();
    let directory = tempfile::tempdir().unwrap();
    let server = serve(&namespaces.server, directory.path());
    let mut client: Child = Command::new("ip")
        .args(["netns", "exec", &namespaces.client])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", CLIENT_HALF, "--ignored", "--nocapture"])
        .env(ADDRESSES, server.addresses.join(" "))
        .spawn()
        .unwrap();
    assert!(client.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the test above runs it where it belongs"]
async fn the_half_of_the_test_that_runs_in_the_clients_namespace() {
    let all = std::env::var(ADDRESSES).unwrap();
    let at = |host: &str| -> Vec<String> {
        let prefix = format!("/ip4/{host}/");
        let of_host: Vec<_> = all.split(' ').filter(|address| address.starts_with(&prefix)).collect();
        assert_eq!(of_host.len(), 5, "{all}");
        of_host.into_iter().map(str::to_owned).collect()
    };
    let (first, second, either) = (at("10.77.1.1"), at("10.77.2.1"), at("10.77.9.1"));
    let is_udp = |address: &&String| address.contains("/udp/");
    let is_quic = |address: &&String| address.contains("/quic-v1");

    let regulars = Regulars::connect(&second).await;
    let client = impatient_node();
    let mut events = client.events();
    let mut doomed = Vec::new();
    for address in first.iter().filter(is_udp) {
        doomed.push(dial(&client, address).await);
    }
    let mut moving = Vec::new();
    for address in either.iter().filter(is_quic) {
        moving.push(dial(&client, address).await);
    }

    let start = Instant::now();
    assert!(ip(&["link", "delete", "first"]));
    // Those that can reach the server another way go on, from another address.
    for connection in &moving {
        let asked = Instant::now();
        echo(&client, connection).await.unwrap_or_else(|error| panic!("did not migrate: {error}"));
        println!("  {}: migrated, echo in {:.2?}", connection.remote_address, asked.elapsed());
    }
    // Those that cannot end by their time-outs.
    let mut left: Vec<_> = doomed.iter().map(|connection| connection.id).collect();
    while !left.is_empty() {
        let event = tokio::time::timeout(IDLE_TIMEOUT * 4, events.next()).await;
        let event = event.unwrap_or_else(|_| panic!("{left:?} live on")).unwrap();
        let NodeEvent::ConnectionClosed { connection, reason, .. } = event else { continue };
        assert!(left.contains(&connection.id), "{} ended: {reason}", connection.remote_address);
        assert!(matches!(*reason, ConnectionError::TimedOut), "{}: {reason}", connection.remote_address);
        println!("  {}: given up after {:.1?}", connection.remote_address, start.elapsed());
        left.retain(|id| *id != connection.id);
    }
    regulars.assert_served().await;
    assert_open_to_newcomers(&second).await;
    for connection in &moving {
        echo(&client, connection).await.unwrap();
    }

    // A client that gets another address, as on another network.
    assert!(ip(&["address", "add", "10.77.2.3/24", "dev", "second"]));
    assert!(ip(&["address", "delete", "10.77.2.2/24", "dev", "second"]));
    ip(&["address", "add", "10.77.2.3/24", "dev", "second"]);
    assert!(ip(&["route", "replace", "10.77.9.1", "via", "10.77.2.1"]));
    for connection in &moving {
        let asked = Instant::now();
        echo(&client, connection).await.unwrap_or_else(|error| panic!("did not migrate: {error}"));
        println!("  {}: migrated again, echo in {:.2?}", connection.remote_address, asked.elapsed());
    }
    assert_open_to_newcomers(&either).await;
}

/// A node that gives up soon, so that a test can wait for it.
fn impatient_node() -> Node {
    let keypair = Keypair::generate();
    let quic = QuicConfig::default().with_idle_timeout(IDLE_TIMEOUT);
    let web_transport = WebTransportConfig::default().with_idle_timeout(IDLE_TIMEOUT);
    let mut web_rtc = WebRtcDirectConfig::default();
    web_rtc.idle_timeout = IDLE_TIMEOUT;
    Node::builder(keypair.clone())
        .transport(QuicTransport::new(keypair.clone(), quic).unwrap())
        .transport(WebTransportTransport::new(keypair.clone(), web_transport))
        .transport(WebRtcDirectTransport::new(keypair, web_rtc).unwrap())
        .build()
}

const STATUS: &str = "PEERLOOM_FAULTS_STATUS";
const NEIGHBOUR: &str = "interfaces::what_the_server_says_of_itself_while_its_addresses_change";

#[test]
fn a_server_tells_the_addresses_that_its_machine_has_now() {
    let name = format!("peerloom-addresses-{}", std::process::id());
    if !ip(&["netns", "add", &name]) {
        println!("skipped: addresses that come and go: no network namespaces on this machine, or no root");
        return;
    }
    let namespace = Namespace(name);
    for arguments in [&["link", "set", "lo", "up"][..], &["address", "add", "10.77.1.1/24", "dev", "lo"]] {
        assert!(ip(&[&["-n", &namespace.0], arguments].concat()));
    }
    let directory = tempfile::tempdir().unwrap();
    let server = serve(&namespace.0, directory.path());
    assert!(server.addresses.iter().any(|address| address.contains("/10.77.1.1/")));
    let neighbour = Command::new("ip")
        .args(["netns", "exec", &namespace.0])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NEIGHBOUR, "--ignored", "--nocapture"])
        .env(STATUS, &server.status)
        .status();
    assert!(neighbour.unwrap().success());
}

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

#[test]
#[ignore = "the test above runs it where it belongs"]
fn what_the_server_says_of_itself_while_its_addresses_change() {
    let url = std::env::var(STATUS).unwrap();
    let tells = |address: &str| status_page(&url, "/health").contains(&format!("/{address}/"));
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("  {what} after {:.1?}", start.elapsed());
    };
    assert!(tells("10.77.1.1") && !tells("10.77.2.2"));
    assert!(ip(&["address", "add", "10.77.2.2/24", "dev", "lo"]));
    until("a new address is told", &|| tells("10.77.2.2"));
    assert!(ip(&["address", "delete", "10.77.1.1/24", "dev", "lo"]));
    until("one that is gone is not", &|| !tells("10.77.1.1"));
    assert!(tells("10.77.2.2") && tells("127.0.0.1"));
}
