//! `cargo xtask bench native`: ours as programs, beside rust-libp2p and go-libp2p and beside bare TCP and bare QUIC.
//!
//! benches/native holds the subjects. Each is two processes, so that the processor time of both sides can be counted, in
//! a network namespace that is made for them. What is compared is measured in turns, so that noise hits all alike.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use xshell::{Shell, cmd};

use self::namespace::{FAR, Link, Namespace, Quality};
use self::process::Pair;
use super::row::{Against, Bound, Row};
use super::samples::{self, Sample};
use crate::npm;
use crate::tools::announce;

pub(super) mod dial;
mod namespace;
mod process;

const PROGRAMS: &str = "benches/native";

/// A transport, and whether it is one that the others are measured with, too.
struct Transport {
    /// As rows call it, and as the programs do.
    names: (&'static str, &'static str),
    rust_libp2p: bool,
    raw: bool,
    /// Everything is measured, not just what one stream carries.
    whole: bool,
}

const TRANSPORTS: [Transport; 5] = [
    Transport { names: ("quic", "quic"), rust_libp2p: true, raw: true, whole: true },
    Transport { names: ("tcp", "tcp"), rust_libp2p: true, raw: true, whole: true },
    Transport { names: ("tls", "tls"), rust_libp2p: true, raw: false, whole: false },
    Transport { names: ("websocket", "ws"), rust_libp2p: true, raw: false, whole: false },
    Transport { names: ("webrtc", "webrtc"), rust_libp2p: false, raw: false, whole: false },
];

/// Samples of each quantity and subject.
const ROUNDS: u64 = 5;
/// How long bytes are moved for one, in milliseconds.
const TRANSFER: u64 = 1200;
/// The same over the link, where losses make a sample of few a matter of luck.
const LINK_TRANSFER: u64 = 20_000;
/// Dials of one sample, one after the other, and several at once.
const DIALS: (u64, u64) = (50, 400);
const AT_ONCE: u64 = 16;
/// Streams opened for one sample.
const STREAMS: u64 = 500;
/// Connections that are held, and how many are made before that, so that what is there once for all is there.
const HELD: u64 = 5000;
const HELD_BEFORE: u64 = 100;
/// Until idle connections have given back what they need not have.
const IDLE: Duration = Duration::from_secs(8);
/// Half of the link's round trip.
const ONE_WAY: Duration = Duration::from_millis(30);
const LOST_PER_MILLION: u32 = 1000;

/// What we want, by the beginning of a row's name.
const AIMS: [(&str, Against, Bound); 12] = [
    ("quic throughput", Against::Peer, Bound::AtLeast(1.7)),
    ("quic throughput", Against::Limit, Bound::AtLeast(0.95)),
    ("tcp throughput", Against::Peer, Bound::AtLeast(1.6)),
    ("quic processor time of a dial", Against::Peer, Bound::AtMost(0.5)),
    ("tcp processor time of a dial", Against::Peer, Bound::AtMost(0.5)),
    ("quic idle memory", Against::Nothing, Bound::AtMost(50.0)),
    ("tcp idle memory", Against::Nothing, Bound::AtMost(20.0)),
    ("webrtc idle memory", Against::Nothing, Bound::AtMost(120.0)),
    ("quic link: stream", Against::Nothing, Bound::AtMost(1.1)),
    ("tcp link: stream", Against::Nothing, Bound::AtMost(1.1)),
    ("quic link: throughput", Against::Peer, Bound::AtLeast(1.0)),
    ("tcp link: throughput", Against::Peer, Bound::AtLeast(1.0)),
];

/// `filter`: only the groups of rows whose name, such as `quic throughput` or `tcp link`, contains this.
pub(crate) fn run(shell: &Shell, filter: &str) -> Result<Vec<Row>> {
    raise_file_limit()?;
    let programs = Programs::build(shell, &["bench-link", "bench-raw", "bench-rust-libp2p"])?;
    let mut all = Samples::default();
    for transport in &TRANSPORTS {
        let wanted = |what: &str| format!("{} {what}", transport.names.0).contains(filter);
        if wanted("throughput") {
            throughput(&programs, transport, &mut all)?;
        }
        if transport.whole && wanted("dials") {
            dials(&programs, transport, &mut all)?;
        }
        if (transport.whole || transport.names.0 == "webrtc") && wanted("memory") {
            memory(&programs, transport, &mut all)?;
        }
        if transport.whole && wanted("link") {
            link(&programs, transport, &mut all)?;
        }
    }
    ensure!(!all.0.is_empty(), "nothing is called {filter}");
    samples::rows(&all.0, &AIMS)
}

/// One implementation.
#[derive(Clone)]
struct Subject {
    /// As rows call it: `ours`, `limit`, or a peer's name.
    name: &'static str,
    program: PathBuf,
}

struct Programs {
    ours: Subject,
    rust_libp2p: Subject,
    raw: Subject,
    /// If there is Go on this machine.
    go_libp2p: Option<Subject>,
    /// Carries packets.
    link: PathBuf,
}

impl Programs {
    /// `packages` of benches/native, beside ours and go-libp2p.
    fn build(shell: &Shell, packages: &[&str]) -> Result<Self> {
        announce("Compiling what is measured, as it is released");
        cmd!(shell, "cargo build --locked --release --package bench-peerloom").run()?;
        let ours = npm::target_folder(shell)?.join("release/bench-peerloom");
        let folder = shell.current_dir().join(PROGRAMS);
        let built = folder.join("target/release");
        let go = {
            let _in = shell.push_dir(&folder);
            // One by one: built together, each would have the features that any of them asks of what they share.
            for package in packages {
                cmd!(shell, "cargo build --locked --release --package {package}").run()?;
            }
            let _in = shell.push_dir("go");
            let go = folder.join("target/bench-go-libp2p");
            match go_compiler() {
                Some(compiler) => cmd!(shell, "{compiler} build -o {go} .").run().map(|()| Some(go))?,
                None => {
                    announce("Without go-libp2p: there is no go on this machine");
                    None
                }
            }
        };
        Ok(Self {
            ours: Subject { name: "ours", program: ours },
            rust_libp2p: Subject { name: "rust-libp2p", program: built.join("bench-rust-libp2p") },
            raw: Subject { name: "limit", program: built.join("bench-raw") },
            go_libp2p: go.map(|program| Subject { name: "go-libp2p", program }),
            link: built.join("bench-link"),
        })
    }

    fn subjects(&self, transport: &Transport) -> Vec<&Subject> {
        let peer = transport.rust_libp2p.then_some(&self.rust_libp2p);
        let raw = transport.raw.then_some(&self.raw);
        [Some(&self.ours), peer, raw].into_iter().flatten().collect()
    }

    /// Those with connections that carry streams, which a bare socket has not.
    fn with_streams(&self, transport: &Transport) -> Vec<&Subject> {
        let mut subjects = self.subjects(transport);
        subjects.retain(|subject| transport.names.1 != "tcp" || subject.name != self.raw.name);
        subjects
    }
}

fn go_compiler() -> Option<PathBuf> {
    crate::tools::on_path(&["go"])
        .or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()))
}

/// Every connection that is held is a file of the process.
fn raise_file_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(most > HELD + HELD_BEFORE + 100, "a process may open only {most} files (ulimit -Hn)");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn add(&mut self, name: String, unit: &str, subject: &Subject, value: f64) {
        self.0.push(Sample { name, unit: unit.to_owned(), subject: subject.name.to_owned(), value });
    }
}

/// What a connection carries, and what that costs.
fn throughput(programs: &Programs, transport: &Transport, all: &mut Samples) -> Result<()> {
    let (name, argument) = transport.names;
    announce(&format!("Moving bytes: {name}"));
    let namespace = Namespace::new()?;
    let mut pairs = Vec::new();
    for subject in programs.subjects(transport) {
        let mut pair = Pair::on_loopback(&namespace, &subject.program, argument)?;
        pair.run("connect").context(subject.name)?;
        pairs.push((subject, pair));
    }
    let streams: &[u64] = if transport.whole { &[1, 8] } else { &[1] };
    for round in 0..=ROUNDS {
        for way in ["up", "down"] {
            for streams in streams {
                for (subject, pair) in &mut pairs {
                    let outcome = pair.run(&format!("{way} {streams} {TRANSFER}")).context(subject.name)?;
                    // The first is for windows and buffers to become as large as they will.
                    if round == 0 {
                        continue;
                    }
                    let bytes = outcome.number("bytes")?;
                    let what =
                        if *streams == 1 { way.to_owned() } else { format!("{way}, {streams} streams") };
                    let speed = bytes / outcome.number("seconds")? / 1024.0 / 1024.0;
                    all.add(format!("{name} throughput {what}"), "MiB/s", subject, speed);
                    let cost = outcome.cpu.as_secs_f64() / bytes * 1e9;
                    all.add(format!("{name} processor time of 1 GB {what}"), "s", subject, cost);
                }
            }
        }
    }
    Ok(())
}

/// What it takes to connect, and to open a stream.
fn dials(programs: &Programs, transport: &Transport, all: &mut Samples) -> Result<()> {
    let (name, argument) = transport.names;
    announce(&format!("Dialing: {name}"));
    let namespace = Namespace::new()?;
    let mut pairs = Vec::new();
    for subject in programs.with_streams(transport) {
        pairs.push((subject, Pair::on_loopback(&namespace, &subject.program, argument)?));
    }
    let (alone, many) = DIALS;
    for round in 0..=ROUNDS {
        for (subject, pair) in &mut pairs {
            let one_by_one = pair.run(&format!("dials {alone} 1")).context(subject.name)?;
            let at_once = pair.run(&format!("dials {many} {AT_ONCE}")).context(subject.name)?;
            if round == 0 {
                continue;
            }
            all.add(format!("{name} dial"), "ms", subject, one_by_one.typical()? * 1e3);
            let per_second = many as f64 / at_once.number("seconds")?;
            all.add(format!("{name} dials, {AT_ONCE} at once"), "1/s", subject, per_second);
            let cost = at_once.cpu.as_secs_f64() / many as f64;
            all.add(format!("{name} processor time of a dial"), "ms", subject, cost * 1e3);
        }
    }
    for (subject, pair) in &mut pairs {
        pair.run("connect").context(subject.name)?;
    }
    for round in 0..=ROUNDS {
        for (subject, pair) in &mut pairs {
            let streams = pair.run(&format!("streams {STREAMS}")).context(subject.name)?;
            if round > 0 {
                all.add(
                    format!("{name} stream, a byte there and back"),
                    "us",
                    subject,
                    streams.typical()? * 1e6,
                );
            }
        }
    }
    Ok(())
}

/// What an idle connection costs its listener.
fn memory(programs: &Programs, transport: &Transport, all: &mut Samples) -> Result<()> {
    let (name, argument) = transport.names;
    announce(&format!("Holding {HELD} idle connections: {name}"));
    for subject in programs.with_streams(transport) {
        let namespace = Namespace::new()?;
        let mut pair = Pair::on_loopback(&namespace, &subject.program, argument)?;
        pair.run(&format!("hold {HELD_BEFORE} {AT_ONCE}")).context(subject.name)?;
        std::thread::sleep(IDLE / 2);
        let before = pair.memory()?;
        pair.run(&format!("hold {HELD} {AT_ONCE}")).context(subject.name)?;
        std::thread::sleep(IDLE);
        let each = (pair.memory()? - before) / HELD as f64 / 1000.0;
        all.add(format!("{name} idle memory of a connection"), "KB", subject, each);
    }
    Ok(())
}

/// What distance and losses make of it. Round trips are counted on a link that loses nothing.
fn link(programs: &Programs, transport: &Transport, all: &mut Samples) -> Result<()> {
    let (name, argument) = transport.names;
    let round_trip = ONE_WAY * 2;
    announce(&format!("Over a link with a round trip of {} ms: {name}", round_trip.as_millis()));
    let lossless = Quality { delay: ONE_WAY, lost_per_million: 0, seed: 0 };
    for subject in programs.with_streams(transport).into_iter().chain(&programs.go_libp2p) {
        let link = Link::new(&programs.link, lossless)?;
        let mut pair = Pair::start(&subject.program, argument, (&link.far, FAR), &link.near)?;
        for _ in 0..3 {
            let trips =
                pair.run("connect").context(subject.name)?.number("seconds")? / round_trip.as_secs_f64();
            all.add(format!("{name} link: dial"), "round trips", subject, trips);
        }
        let trips = pair.run("streams 10").context(subject.name)?.typical()? / round_trip.as_secs_f64();
        all.add(format!("{name} link: stream, a byte there and back"), "round trips", subject, trips);
    }
    let subjects: Vec<&Subject> =
        programs.subjects(transport).into_iter().chain(&programs.go_libp2p).collect();
    for seed in 1..=ROUNDS {
        let quality = Quality { lost_per_million: LOST_PER_MILLION, seed, ..lossless };
        // All at once, each on a link of its own: most of the time they wait.
        let speeds: Vec<Result<f64>> = std::thread::scope(|scope| {
            let start = |subject| scope.spawn(move || over_link(programs, subject, argument, quality));
            let running: Vec<_> = subjects.iter().map(|subject| start(*subject)).collect();
            let done = running.into_iter().map(|thread| thread.join());
            done.map(|speed| speed.unwrap_or_else(|_| bail!("a thread panicked"))).collect()
        });
        for (subject, speed) in subjects.iter().zip(speeds) {
            all.add(format!("{name} link: throughput, 0.1 % lost"), "MiB/s", subject, speed?);
        }
    }
    Ok(())
}

/// MiB per second.
fn over_link(programs: &Programs, subject: &Subject, argument: &str, quality: Quality) -> Result<f64> {
    let link = Link::new(&programs.link, quality)?;
    let mut pair = Pair::start(&subject.program, argument, (&link.far, FAR), &link.near)?;
    pair.run("connect").context(subject.name)?;
    let outcome = pair.run(&format!("cut 1 {LINK_TRANSFER}")).context(subject.name)?;
    Ok(outcome.number("bytes")? / outcome.number("seconds")? / 1024.0 / 1024.0)
}
