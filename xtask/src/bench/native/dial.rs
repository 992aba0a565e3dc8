//! `cargo xtask bench dial`: the time to a connection that carries something, over sets of addresses of which some lead nowhere.
//!
//! The listener is a few milliseconds away and has several addresses, one of them by a detour; others are closed ports, or hosts
//! that nobody is. Each dial is made by a node that knows nothing of earlier ones, and ends with the first byte that was there
//! and back on a stream. What the listener has accepted meanwhile is counted, too.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use super::namespace::{Link, Quality};
use super::process::Pair;
use super::{Programs, Samples, Subject};
use crate::bench::row::{Against, Bound, Row};
use crate::bench::samples;
use crate::bench::statistics::Summary;
use crate::tools::announce;

/// Dials of each set and subject.
const ROUNDS: usize = 5;

/// Half of a round trip to the listener, and the same by the detour.
const ONE_WAY: Duration = Duration::from_millis(10);
const DETOUR: Duration = Duration::from_millis(400);
const DETOUR_ENDS: [&str; 2] = ["10.78.0.1", "10.78.0.2"];

/// Public addresses, so that everybody dials them as such; they exist in the bench's namespaces only.
const FAST: [&str; 3] = ["11.0.1.1", "11.0.1.2", "11.0.1.3"];
const SLOW: &str = "11.0.2.1";
/// A network that is routed to where the listener is, and of which nobody has an address: packets vanish. It comes first in the
/// order of addresses, in which go-libp2p takes those that are alike.
const NOBODY: &str = "11.0.0.";

/// Until a loser's handshake would have reached the listener, by the detour too.
const AFTERMATH: Duration = Duration::from_millis(1000);

/// "One stagger": what RFC 8305 calls the connection attempt delay.
const STAGGER: f64 = 250.0;

const AIMS: [(&str, Against, Bound); 2] = [
    ("beyond the best address alone", Against::Nothing, Bound::AtMost(STAGGER)),
    ("connections accepted", Against::Nothing, Bound::AtMost(1.0)),
];

/// What a peer's addresses lead to, and which of them is the best.
struct Set {
    name: &'static str,
    addresses: fn(&Peer) -> Vec<String>,
    best: fn(&Peer) -> String,
}

const SETS: [Set; 8] = [
    Set {
        name: "all work",
        addresses: |peer| vec![peer.quic(FAST[0]), peer.tcp(FAST[0]), peer.quic(FAST[1]), peer.tcp(FAST[1])],
        best: |peer| peer.quic(FAST[0]),
    },
    Set {
        name: "closed ports first",
        addresses: |peer| vec![peer.closed_tcp(1), peer.closed_tcp(2), peer.tcp(FAST[0])],
        best: |peer| peer.tcp(FAST[0]),
    },
    Set {
        name: "UDP is swallowed",
        addresses: |peer| vec![peer.dead_quic(1), peer.tcp(FAST[0])],
        best: |peer| peer.tcp(FAST[0]),
    },
    Set {
        name: "a dead host first",
        addresses: |peer| vec![peer.dead_quic(1), peer.dead_tcp(1), peer.quic(FAST[0]), peer.tcp(FAST[0])],
        best: |peer| peer.quic(FAST[0]),
    },
    Set {
        name: "half of eight are dead",
        addresses: |peer| {
            let dead = [peer.dead_quic(1), peer.dead_quic(2), peer.dead_tcp(1), peer.dead_tcp(2)];
            let alive = [peer.quic(FAST[0]), peer.quic(FAST[1]), peer.tcp(FAST[0]), peer.tcp(FAST[1])];
            dead.into_iter().chain(alive).collect()
        },
        best: |peer| peer.quic(FAST[0]),
    },
    Set {
        name: "six dead, TCP works",
        addresses: |peer| {
            let dead = (1..=3).flat_map(|host| [peer.dead_quic(host), peer.dead_tcp(host)]);
            dead.chain([peer.tcp(FAST[0])]).collect()
        },
        best: |peer| peer.tcp(FAST[0]),
    },
    Set {
        name: "QUIC is slow",
        addresses: |peer| vec![peer.quic(SLOW), peer.tcp(FAST[0])],
        best: |peer| peer.tcp(FAST[0]),
    },
    Set {
        name: "slow, dead and closed",
        addresses: |peer| {
            vec![
                peer.quic(SLOW),
                peer.dead_quic(1),
                peer.closed_tcp(1),
                peer.tcp(SLOW),
                peer.quic(FAST[2]),
                peer.tcp(FAST[2]),
            ]
        },
        best: |peer| peer.quic(FAST[2]),
    },
];

/// A listener, as addresses name it.
struct Peer {
    port: u16,
    id: String,
}

impl Peer {
    fn quic(&self, ip: &str) -> String {
        format!("/ip4/{ip}/udp/{}/quic-v1/p2p/{}", self.port, self.id)
    }

    fn tcp(&self, ip: &str) -> String {
        format!("/ip4/{ip}/tcp/{}/p2p/{}", self.port, self.id)
    }

    /// At a port, below the listener's, on which nobody listens.
    fn closed_tcp(&self, number: u16) -> String {
        Self { port: number, id: self.id.clone() }.tcp(FAST[0])
    }

    fn dead_quic(&self, host: u8) -> String {
        self.quic(&format!("{NOBODY}{host}"))
    }

    fn dead_tcp(&self, host: u8) -> String {
        self.tcp(&format!("{NOBODY}{host}"))
    }
}

/// `filter`: only the sets whose name contains this.
pub(in crate::bench) fn run(shell: &Shell, filter: &str) -> Result<Vec<Row>> {
    let sets: Vec<&Set> = SETS.iter().filter(|set| set.name.contains(filter)).collect();
    ensure!(!sets.is_empty(), "no set of addresses is called {filter}");
    let programs = Programs::build(shell, &["bench-link", "bench-rust-libp2p"])?;
    let link = network(&programs)?;
    let smart = Subject { name: "rust-libp2p, smart", program: programs.rust_libp2p.program.clone() };
    let mut subjects = vec![(&programs.ours, "all"), (&programs.rust_libp2p, "all"), (&smart, "all-smart")];
    subjects.extend(programs.go_libp2p.as_ref().map(|go| (go, "all")));
    let mut pairs = Vec::new();
    for (port, (subject, transport)) in (4001..).zip(subjects) {
        let ip = format!("0.0.0.0:{port}");
        let pair = Pair::start(&subject.program, transport, (&link.far, &ip), &link.near)?;
        let (_, id) = pair.address().rsplit_once("/p2p/").context("the listener names no peer")?;
        let peer = Peer { port, id: id.to_owned() };
        pairs.push((subject, pair, peer));
    }

    let mut all = Samples::default();
    for set in sets {
        announce(&format!("Dialing: {}", set.name));
        measure(set, &mut pairs, &mut all)?;
    }
    samples::rows(&all.0, &AIMS)
}

fn measure(set: &Set, pairs: &mut [(&Subject, Pair, Peer)], all: &mut Samples) -> Result<()> {
    // Per subject: of the best alone, of the whole set, and the connections accepted.
    let mut measured = vec![(Vec::new(), Vec::new(), Vec::new()); pairs.len()];
    for round in 0..=ROUNDS {
        for ((subject, pair, peer), (alone, whole, accepted)) in pairs.iter_mut().zip(&mut measured) {
            let best = race(pair, &[(set.best)(peer)]).context(subject.name)?;
            // What came of the dial before, too, is over by now.
            std::thread::sleep(AFTERMATH);
            let before = pair.accepted()?;
            let took = race(pair, &(set.addresses)(peer)).context(subject.name)?;
            std::thread::sleep(AFTERMATH);
            let after = pair.accepted()?;
            // The first is for the programs to get going.
            if round > 0 {
                alone.push(best);
                whole.push(took);
                accepted.push(after - before);
            }
        }
    }
    for ((subject, ..), (alone, whole, accepted)) in pairs.iter().zip(&measured) {
        let best = Summary::of(alone).context("no rounds")?.median;
        for ((alone, whole), accepted) in alone.iter().zip(whole).zip(accepted) {
            let name = |quantity: &str| format!("{quantity}: {}", set.name);
            if subject.name == "ours" {
                let limit = Subject { name: "limit", program: subject.program.clone() };
                all.add(name("time to an echo"), "ms", &limit, *alone);
            }
            all.add(name("time to an echo"), "ms", subject, *whole);
            all.add(name("beyond the best address alone"), "ms", subject, whole - best);
            all.add(name("connections accepted"), "", subject, *accepted);
        }
    }
    Ok(())
}

/// Milliseconds.
fn race(pair: &mut Pair, addresses: &[String]) -> Result<f64> {
    Ok(pair.run(&format!("race {}", addresses.join(",")))?.number("seconds")? * 1e3)
}

/// The listener's side is far, with all its addresses.
fn network(programs: &Programs) -> Result<Link> {
    let quality = |delay| Quality { delay, lost_per_million: 0, seed: 0 };
    let mut link = Link::new(&programs.link, quality(ONE_WAY))?;
    let detour = link.add(&programs.link, quality(DETOUR), DETOUR_ENDS)?;
    for ip in FAST.iter().chain([&SLOW]) {
        link.far.ip(&["address", "add", &format!("{ip}/32"), "dev", "lo"])?;
    }
    let dead = format!("{NOBODY}0/24");
    for network in ["11.0.1.0/24", dead.as_str()] {
        link.near.ip(&["route", "add", network, "dev", "near0"])?;
    }
    link.near.ip(&["route", "add", "11.0.2.0/24", "dev", &detour])?;
    Ok(link)
}
