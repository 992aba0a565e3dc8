//! `cargo xtask soak`: connections come and go from pages of Chromium, and everything returns to where it began.
//!
//! One page dials, talks and closes over WebTransport and WebRTC for the whole time; tabs beside it are closed or crash in
//! the middle of a connection. xtask/browser/soak.mjs drives both.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use xshell::{Shell, TempDir, cmd};

use crate::background::{self, Background};
use crate::npm;
use crate::peerloom_server::{self, PeerloomServer};
use crate::static_server::StaticServer;
use crate::tools::{announce, debian, node};

/// The server forgets a peer that went without goodbye after its idle timeouts, of 30 s for WebTransport and 40 s for
/// WebRTC; the rest is for a machine that is busy.
const SETTLE_LIMIT: Duration = Duration::from_secs(70);

/// What the server's memory may have grown since the warm-up, in bytes: an allocator keeps some of what it was given back,
/// and the store of peers keeps what it knows of tabs that are gone. Leaking a kilobyte per connection passes it in minutes.
const SERVER_MEMORY_GROWTH: i64 = 12 * 1024 * 1024;

/// What the page's JavaScript heap may have grown since the warm-up, in bytes, after a collection of garbage.
const HEAP_GROWTH: i64 = 2 * 1024 * 1024;

/// What the page's Wasm memory may have grown since the warm-up, in bytes: it never shrinks, and grows by steps.
const WASM_GROWTH: i64 = 1024 * 1024;

/// Longer than the page waits for anything by itself.
const PHASE_GRACE: Duration = Duration::from_secs(90);

/// Churns for so many minutes, prints what was seen, and fails if a check does.
pub(crate) fn run(shell: &Shell, minutes: f64) -> Result<()> {
    background::end_with_xtask()?;
    let duration = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes must be positive")?;
    let binary = peerloom_server::build(shell)?;
    let checks = churn(shell, &binary, duration)?;
    let failed = checks.iter().filter(|check| !check.passed).count();
    println!("{} passed, {failed} failed", checks.len() - failed);
    ensure!(failed == 0, "the soak failed");
    Ok(())
}

/// One thing that must hold.
pub(crate) struct Check {
    pub(crate) passed: bool,
}

/// Churns against a server of `binary` for `duration` after a warm-up, and prints the table of what was checked.
pub(crate) fn churn(shell: &Shell, binary: &Path, duration: Duration) -> Result<Vec<Check>> {
    npm::package(shell)?;
    let chromium = debian::chromium(shell)?;
    let node = node::node(shell)?;
    node::npm_packages(shell, &shell.current_dir())?;
    let folder = pages(shell)?;
    let site = StaticServer::start(0, Some(folder.path().to_owned()), Box::new(|_, _| None))?;
    let server = PeerloomServer::start(binary)?;
    let addresses = addresses(&server)?;
    let warm_up = (duration / 4).clamp(Duration::from_secs(6), Duration::from_secs(60));

    let began = at_rest(&server)?;
    announce(&format!("Warming up for {} s, churning for {} s", warm_up.as_secs(), duration.as_secs()));
    let mut command = Command::new(node);
    command
        .arg(shell.current_dir().join("xtask/browser/soak.mjs"))
        .args([chromium.as_os_str(), site.url().as_ref()])
        .args([duration, warm_up].map(|time| time.as_secs().to_string()))
        .args(addresses)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut browser = Background::spawn(&mut command)?;
    let mut input = browser.child().stdin.take().context("stdin is piped")?;
    let mut phases = Phases::of(browser.child().stdout.take().context("stdout is piped")?);

    let warm = phases.next("warm-up", warm_up + PHASE_GRACE)?;
    let after_warm_up = settled(&server, &began)?;
    writeln!(input, "go on")?;
    let churned = phases.next("churn", duration + PHASE_GRACE)?;
    drop(browser);
    announce("Waiting until the server has forgotten everybody");
    let start = Instant::now();
    let end = settled(&server, &began)?;
    let took = start.elapsed();

    let checks = checks(&Seen { began, after_warm_up, end, warm, churned });
    println!("the server settled {:.1} s after the last page had gone", took.as_secs_f64());
    Ok(checks)
}

/// The page, and the package as it is published beside it.
fn pages(shell: &Shell) -> Result<TempDir> {
    let folder = shell.create_temp_dir()?;
    let path = folder.path();
    shell.create_dir(path.join("npm"))?;
    cmd!(shell, "cp -r xtask/browser/soak/. {path}").run()?;
    cmd!(shell, "cp -r npm/dist {path}/npm/").run()?;
    Ok(folder)
}

/// Where a page on this machine dials: WebTransport and WebRTC, which have state on both sides that may be left behind.
fn addresses(server: &PeerloomServer) -> Result<Vec<String>> {
    let description = server.describe();
    let all = description.get("addresses").and_then(|all| all.as_array()).context("addresses")?;
    let all: Vec<&str> = all.iter().filter_map(|address| address.as_str()).collect();
    let of = |transport: &str| {
        let fitting = all.iter().find(|a| a.starts_with("/ip4/127.0.0.1/") && a.contains(transport));
        fitting.map(|address| (*address).to_owned()).with_context(|| format!("no {transport} on loopback"))
    };
    Ok(vec![of("/webtransport/")?, of("/webrtc-direct/")?])
}

/// What the server tells of itself.
#[derive(Clone, Copy)]
struct Metrics {
    connections: i64,
    tasks: i64,
    open_files: i64,
    memory: i64,
}

impl Metrics {
    fn of(server: &PeerloomServer) -> Result<Self> {
        let description = server.describe();
        let url = description.get("status").and_then(|url| url.as_str()).context("status")?;
        let host = url.strip_prefix("http://").context("the status port speaks HTTP")?.trim_end_matches('/');
        let mut stream = TcpStream::connect(host).with_context(|| format!("cannot ask {url}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let values: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        let value = |name: &str| -> Result<i64> {
            let value = values.get(name).with_context(|| format!("{url}/metrics has no {name}"))?;
            value.trim().parse().with_context(|| format!("{name} is {value}"))
        };
        Ok(Self {
            connections: value("peerloom_connections")?,
            tasks: value("peerloom_tasks")?,
            open_files: value("peerloom_open_files")?,
            memory: value("peerloom_resident_memory_bytes")?,
        })
    }

    fn is_back_at(&self, other: &Self) -> bool {
        self.connections <= other.connections
            && self.tasks <= other.tasks
            && self.open_files <= other.open_files
    }
}

/// What a server holds that nobody has met yet, once what it does at its start is done.
fn at_rest(server: &PeerloomServer) -> Result<Metrics> {
    let mut last = Metrics::of(server)?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = Metrics::of(server)?;
        if now.is_back_at(&last) && last.is_back_at(&now) {
            return Ok(now);
        }
        last = now;
    }
}

/// Waits until the server holds no more than it `began` with; returns what it holds when the limit is over if it never does.
fn settled(server: &PeerloomServer, began: &Metrics) -> Result<Metrics> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        let now = Metrics::of(server)?;
        if now.is_back_at(began) || Instant::now() > deadline {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// What soak.mjs tells of a phase.
#[derive(Deserialize)]
struct Phase {
    phase: String,
    #[serde(flatten)]
    dials: Dials,
    closes: u64,
    left: u64,
    heap: i64,
    wasm: i64,
    abandoned: Option<Abandoned>,
}

#[derive(Deserialize)]
struct Abandoned {
    tabs: u64,
    #[serde(flatten)]
    dials: Dials,
}

/// How dials went: each ends as connected, refused with an error, or silent.
#[derive(Deserialize)]
struct Dials {
    dials: u64,
    connected: u64,
    refused: u64,
    silent: u64,
    /// Of dials, and of what was done on connections: the first few.
    failures: Vec<String>,
}

struct Phases {
    lines: std::sync::mpsc::Receiver<String>,
}

impl Phases {
    fn of(stdout: std::process::ChildStdout) -> Self {
        let (sender, lines) = std::sync::mpsc::sync_channel(4);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines }
    }

    fn next(&mut self, phase: &str, limit: Duration) -> Result<Phase> {
        let line = self.lines.recv_timeout(limit).with_context(|| format!("no word from the {phase}"))?;
        let told: Phase = serde_json::from_str(&line).with_context(|| format!("the page told {line}"))?;
        if told.phase != phase {
            bail!("the page told of {} instead of the {phase}", told.phase);
        }
        Ok(told)
    }
}

/// Everything that the checks are made of.
struct Seen {
    began: Metrics,
    after_warm_up: Metrics,
    end: Metrics,
    warm: Phase,
    churned: Phase,
}

/// Makes the checks, and prints them as a table.
fn checks(seen: &Seen) -> Vec<Check> {
    let Seen { began, after_warm_up, end, warm, churned } = seen;
    let mut table = Table::default();
    let abandoned = churned.abandoned.as_ref();
    let all: Vec<&Dials> =
        [Some(&warm.dials), Some(&churned.dials), abandoned.map(|abandoned| &abandoned.dials)]
            .into_iter()
            .flatten()
            .collect();
    let sum = |count: fn(&Dials) -> u64| all.iter().map(|dials| count(dials)).sum::<u64>();
    let (dials, connected, silent) = (sum(|d| d.dials), sum(|d| d.connected), sum(|d| d.silent));
    let refused = sum(|d| d.refused);
    let failures: Vec<&String> = all.iter().flat_map(|dials| &dials.failures).collect();

    table.add("dials answered", dials, dials - silent, dials, silent == 0 && dials > 0);
    table.add("dials that became connections", dials, connected, dials, refused == 0 && connected == dials);
    let visits = warm.dials.connected + churned.dials.connected;
    let closes = warm.closes + churned.closes;
    table.add("echoed and closed in order", visits, closes, visits, failures.is_empty() && closes == visits);
    let tabs = abandoned.map_or(0, |abandoned| abandoned.tabs);
    table.add("tabs gone without goodbye", "", tabs, ">= 1", tabs > 0);
    table.add("connections left in the page", 0, churned.left, 0, churned.left == 0);
    table.returned("connections of the server", began.connections, end.connections);
    table.returned("tasks of the server", began.tasks, end.tasks);
    table.returned("open files of the server", began.open_files, end.open_files);
    table.grew("memory of the server", after_warm_up.memory, end.memory, SERVER_MEMORY_GROWTH);
    table.grew("JavaScript heap of the page", warm.heap, churned.heap, HEAP_GROWTH);
    table.grew("Wasm memory of the page", warm.wasm, churned.wasm, WASM_GROWTH);
    for failure in failures {
        println!("failure: {failure}");
    }
    table.checks
}

#[derive(Default)]
struct Table {
    checks: Vec<Check>,
}

impl Table {
    fn add(
        &mut self,
        name: &str,
        start: impl ToString,
        end: impl ToString,
        bound: impl ToString,
        passed: bool,
    ) {
        if self.checks.is_empty() {
            println!("\n{:<30} {:>12} {:>12} {:>12}", "check", "start", "end", "bound");
        }
        let verdict = if passed { "" } else { "  FAILED" };
        let (start, end, bound) = (start.to_string(), end.to_string(), bound.to_string());
        println!("{name:<30} {start:>12} {end:>12} {bound:>12}{verdict}");
        self.checks.push(Check { passed });
    }

    /// A number that must be back where it was, or below.
    fn returned(&mut self, name: &str, began: i64, end: i64) {
        self.add(name, began, end, began, end <= began);
    }

    /// Bytes, which may have grown a little.
    fn grew(&mut self, name: &str, start: i64, end: i64, growth: i64) {
        let mib = |bytes: i64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
        self.add(name, mib(start), mib(end), mib(start + growth), end <= start + growth);
    }
}
