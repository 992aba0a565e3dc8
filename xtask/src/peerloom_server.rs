//! A real `peerloom run`, started for the demo or for tests.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use xshell::{Shell, TempDir, cmd};

use crate::background::Background;
use crate::npm;

/// A server is ready within a second; on a machine that is busy compiling, allow for more.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Every transport, on all interfaces, since Firefox never dials WebRTC to loopback; the system picks the ports.
const LISTEN: [&str; 4] = [
    "/ip4/0.0.0.0/udp/0/quic-v1/webtransport",
    "/ip4/0.0.0.0/udp/0/webrtc-direct",
    "/ip4/0.0.0.0/tcp/0/ws",
    "/ip4/0.0.0.0/tcp/0",
];

/// Compiles the binary `peerloom` and returns where it is.
pub(crate) fn build(shell: &Shell) -> Result<PathBuf> {
    crate::tools::announce("Compiling the server");
    cmd!(shell, "cargo build --locked --package peerloom-server --bin peerloom").run()?;
    Ok(npm::target_folder(shell)?.join("debug/peerloom"))
}

/// Compiles `peerloom` as it is released, for measurements.
pub(crate) fn build_release(shell: &Shell) -> Result<PathBuf> {
    crate::tools::announce("Compiling the server as it is released");
    cmd!(shell, "cargo build --locked --package peerloom-server --bin peerloom --release").run()?;
    Ok(npm::target_folder(shell)?.join("release/peerloom"))
}

/// A running server, which ends when this is dropped.
pub(crate) struct PeerloomServer {
    process: Background,
    peer: String,
    status: String,
    addresses: Vec<String>,
    _temporary: Option<TempDir>,
}

impl PeerloomServer {
    /// Starts `binary` with an identity that is forgotten with it, and waits until it listens.
    pub(crate) fn start(binary: &Path) -> Result<Self> {
        let temporary = Shell::new()?.create_temp_dir()?;
        let server = Self::start_in(binary, temporary.path())?;
        Ok(Self { _temporary: Some(temporary), ..server })
    }

    /// Starts `binary` as a relay with an identity that is forgotten with it, and waits until it listens.
    pub(crate) fn start_relay(binary: &Path) -> Result<Self> {
        let temporary = Shell::new()?.create_temp_dir()?;
        let server = Self::start_with(binary, temporary.path(), &["--relay"])?;
        Ok(Self { _temporary: Some(temporary), ..server })
    }

    /// Starts `binary` with what is kept in `data`, and waits until it listens.
    pub(crate) fn start_in(binary: &Path, data: &Path) -> Result<Self> {
        Self::start_with(binary, data, &[])
    }

    fn start_with(binary: &Path, data: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.arg("run").arg("--data-dir").arg(data).args(["--status", "127.0.0.1:0"]).args(arguments);
        for address in LISTEN {
            command.args(["--listen", address]);
        }
        let mut process = Background::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let stdout = process.child().stdout.take().context("stdout is piped")?;

        // Reads on for as long as the server prints, so that it never meets a closed or full pipe.
        let (sender, lines) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        let (mut peer, mut status, mut addresses) = (None, None, Vec::new());
        loop {
            let line =
                lines.recv_timeout(START_LIMIT).with_context(|| format!("{command:?} did not get ready"))?;
            match line.split_once(' ') {
                Some(("peer", id)) => peer = Some(id.to_owned()),
                Some(("status", url)) => status = Some(url.to_owned()),
                Some(("listen", address)) => addresses.push(address.to_owned()),
                _ if line == "ready" => break,
                _ => {}
            }
        }
        let (Some(peer), Some(status)) = (peer, status) else { bail!("{command:?} did not say who it is") };
        Ok(Self { process, peer, status, addresses, _temporary: None })
    }

    /// The first address of this machine that `fits`.
    pub(crate) fn loopback_address(&self, fits: impl Fn(&str) -> bool) -> Result<&str> {
        let mut all = self.addresses.iter().map(String::as_str);
        all.find(|address| address.starts_with("/ip4/127.0.0.1/") && fits(address))
            .context("the server does not listen there")
    }

    /// What a page has to know: `{ peer, status, addresses }`.
    pub(crate) fn describe(&self) -> Value {
        json!({ "peer": self.peer, "status": self.status, "addresses": self.addresses })
    }

    /// Waits until the server ends by itself, which it should not.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let status = self.process.child().wait()?;
        bail!("the server ended: {status}")
    }

    /// Ends the server at once, as a crash would.
    pub(crate) fn kill(self) -> Result<()> {
        self.process.kill()
    }
}
