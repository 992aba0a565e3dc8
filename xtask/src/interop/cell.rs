//! One cell of the matrix: a dialer and a listener, one transport and what secures it, under the contract of test-plans.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xshell::TempDir;

use super::network::Network;
use super::peers::{Absent, Peer, Program, Programs};
use crate::background::Background;

/// A browser starts within seconds; a handshake takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(10);
/// What is shown of a program that complains.
const TAIL_LINES: usize = 25;
/// Transports that need neither a security protocol nor a muxer.
const STANDALONE: [&str; 3] = ["quic-v1", "webtransport", "webrtc-direct"];

/// Who meets whom, and how.
#[derive(Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) dialer: &'a Peer,
    pub(crate) listener: &'a Peer,
    pub(crate) transport: &'a str,
    /// If the transport does not bring its own.
    pub(crate) security: Option<&'a str>,
}

/// What became of a cell.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed { handshake_plus_one_round_trip: f64, ping: f64 },
    Failed { reason: String, dialer: String, listener: String },
    Skipped { reason: String },
}

impl<'a> Cell<'a> {
    /// Every cell that these peers can play: with ours on at least one side, or as `controls` on neither.
    pub(crate) fn all(peers: &'a [Peer], controls: bool) -> Vec<Self> {
        let pairs = peers.iter().flat_map(|dialer| peers.iter().map(move |listener| (dialer, listener)));
        let wanted = pairs.filter(|(dialer, listener)| (dialer.is_ours() || listener.is_ours()) != controls);
        wanted.flat_map(|(dialer, listener)| between(dialer, listener)).collect()
    }

    /// As test-plans writes it.
    pub(crate) fn name(&self) -> String {
        let how = match self.security {
            Some(security) => format!("{}, {security}, yamux", self.transport),
            None => self.transport.to_owned(),
        };
        format!("{} x {} ({how})", self.dialer.name, self.listener.name)
    }

    pub(crate) fn play(&self, network: &Network, redis: &Path, programs: &Programs) -> Outcome {
        let program = |peer: &Peer| programs.get(&peer.name).cloned();
        let (dialer, listener) = match (program(self.dialer), program(self.listener)) {
            (Some(Ok(dialer)), Some(Ok(listener))) => (dialer, listener),
            (Some(Err(Absent::Broken(reason))), _) => {
                return failed(format!("{}: {reason}", self.dialer.name));
            }
            (_, Some(Err(Absent::Broken(reason)))) => {
                return failed(format!("{}: {reason}", self.listener.name));
            }
            (Some(Err(Absent::Missing(reason))), _) => return self.skipped(self.dialer, &reason),
            (_, Some(Err(Absent::Missing(reason)))) => return self.skipped(self.listener, &reason),
            (None, _) | (_, None) => return failed("a peer was not prepared".to_owned()),
        };
        if network.is_loopback()
            && self.transport == "webrtc-direct"
            && self.dialer.browser.as_deref() == Some("firefox")
        {
            return self
                .skipped(self.dialer, "never dials WebRTC to loopback, and there is nothing else here");
        }
        let mut logs = match Logs::new() {
            Ok(logs) => logs,
            Err(error) => return failed(format!("{error:#}")),
        };
        match self.meet(network, redis, &dialer, &listener, &mut logs) {
            Ok((handshake_plus_one_round_trip, ping)) => {
                Outcome::Passed { handshake_plus_one_round_trip, ping }
            }
            Err(error) => Outcome::Failed {
                reason: format!("{error:#}"),
                dialer: tail(&logs.path("dialer")),
                listener: tail(&logs.path("listener")),
            },
        }
    }

    fn skipped(&self, peer: &Peer, reason: &str) -> Outcome {
        Outcome::Skipped { reason: format!("{}: {reason}", peer.name) }
    }

    /// Milliseconds until the first ping is answered, and of that ping.
    fn meet(
        &self,
        network: &Network,
        redis: &Path,
        dialer: &Program,
        listener: &Program,
        logs: &mut Logs,
    ) -> Result<(f64, f64)> {
        let redis = Redis::start(network, redis)?;
        let mut listener = Background::spawn(&mut self.command(network, &redis, listener, false, logs)?)?;
        let mut dialer = Background::spawn(&mut self.command(network, &redis, dialer, true, logs)?)?;
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = dialer.child().try_wait()? {
                break status;
            }
            if let Some(status) = listener.child().try_wait()? {
                bail!("the listener ended: {status}");
            }
            ensure!(Instant::now() < deadline, "no result within {} s", TIMEOUT.as_secs());
            std::thread::sleep(POLL);
        };
        ensure!(status.success(), "the dialer ended: {status}");
        measured(&fs::read_to_string(logs.path("result"))?)
    }

    fn command(
        &self,
        network: &Network,
        redis: &Redis,
        program: &Program,
        is_dialer: bool,
        logs: &Logs,
    ) -> Result<Command> {
        let mut command = network.command(&program.program);
        program.complete(&mut command);
        command
            .env("transport", self.transport)
            .env("is_dialer", is_dialer.to_string())
            .env("ip", network.listen_ip())
            .env("redis_addr", format!("127.0.0.1:{}", redis.port))
            .env("test_timeout_seconds", TIMEOUT.as_secs().to_string())
            // Which would fill what is shown of a program that fails.
            .env("RUST_BACKTRACE", "0");
        if let Some(security) = self.security {
            command.env("security", security).env("muxer", "yamux");
        }
        let (stdout, stderr) = if is_dialer { ("result", "dialer") } else { ("output", "listener") };
        command.stdin(Stdio::null()).stdout(File::create(logs.path(stdout))?);
        command.stderr(File::create(logs.path(stderr))?);
        Ok(command)
    }
}

fn between<'a>(dialer: &'a Peer, listener: &'a Peer) -> Vec<Cell<'a>> {
    let transports = dialer.dials.iter().filter(|transport| listener.listens.contains(transport));
    let cell = |transport: &'a String, security| Cell { dialer, listener, transport, security };
    let cells = transports.flat_map(|transport| {
        if STANDALONE.contains(&transport.as_str()) {
            return vec![cell(transport, None)];
        }
        let both = dialer.security.iter().filter(|security| listener.security.contains(security));
        both.map(|security| cell(transport, Some(security.as_str()))).collect()
    });
    cells.collect()
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed { reason, dialer: String::new(), listener: String::new() }
}

/// What the dialer's standard output says: one line of JSON and nothing beside it.
fn measured(stdout: &str) -> Result<(f64, f64)> {
    let result: Value = serde_json::from_str(stdout.trim())
        .with_context(|| format!("stdout is no line of JSON: {stdout:?}"))?;
    let milliseconds = |name: &str| {
        let value = result.get(name).and_then(Value::as_f64).filter(|value| *value >= 0.0);
        value.with_context(|| format!("the result has no {name}: {stdout:?}"))
    };
    // The second is spelled as the contract spells it.
    Ok((milliseconds("handshakePlusOneRTTMillis")?, milliseconds("pingRTTMilllis")?))
}

/// What the two programs write, in files that are gone with this.
struct Logs {
    directory: TempDir,
}

impl Logs {
    fn new() -> Result<Self> {
        Ok(Self { directory: xshell::Shell::new()?.create_temp_dir()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn tail(file: &Path) -> String {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.split_at(lines.len().saturating_sub(TAIL_LINES)).1.join("\n")
}

/// A Redis for one cell, which keeps nothing: what one pushes, no other finds.
struct Redis {
    port: u16,
    _process: Background,
}

impl Redis {
    fn start(network: &Network, program: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = network.command(program);
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let mut process = Background::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let stdout = process.child().stdout.take().context("stdout is piped")?;
        // Nobody reads what it says after that, and it does not mind.
        let ready =
            BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.contains("Ready to accept"));
        ensure!(ready, "Redis does not start: {:?}", exit(process.child()));
        Ok(Self { port, _process: process })
    }
}

fn exit(child: &mut Child) -> Option<String> {
    child.wait().ok().map(|status| status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, listens: &[&str], dials: &[&str], security: &[&str]) -> Peer {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Peer {
            name: name.to_owned(),
            implementation: name.to_owned(),
            browser: None,
            listens: owned(listens),
            dials: owned(dials),
            security: owned(security),
        }
    }

    #[test]
    fn cells_are_what_both_can() {
        let peers = [
            peer("peerloom", &["tcp", "quic-v1"], &["tcp", "quic-v1"], &["noise", "tls"]),
            peer("other", &["tcp"], &["tcp", "quic-v1"], &["noise"]),
        ];
        let names = |controls| Cell::all(&peers, controls).iter().map(Cell::name).collect::<Vec<_>>();
        assert_eq!(
            names(false),
            [
                "peerloom x peerloom (tcp, noise, yamux)",
                "peerloom x peerloom (tcp, tls, yamux)",
                "peerloom x peerloom (quic-v1)",
                "peerloom x other (tcp, noise, yamux)",
                "other x peerloom (tcp, noise, yamux)",
                "other x peerloom (quic-v1)",
            ]
        );
        assert_eq!(names(true), ["other x other (tcp, noise, yamux)"]);
    }

    #[test]
    fn the_result_is_one_line_and_nothing_beside_it() {
        let line = "{\"handshakePlusOneRTTMillis\":1.5,\"pingRTTMilllis\":0.25}\n";
        assert_eq!(measured(line).unwrap(), (1.5, 0.25));
        for wrong in ["", "hello\n{}", "{}", "{\"handshakePlusOneRTTMillis\":\"1\",\"pingRTTMilllis\":-1}"] {
            assert!(measured(wrong).is_err(), "{wrong}");
        }
        assert!(measured(&format!("listening\n{line}")).is_err());
    }
}
