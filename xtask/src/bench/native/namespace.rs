//! Network namespaces: machines of their own as far as packets go, so that the bench has the congestion control that it wants
//! and leaves nothing behind. They end with the process that holds them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Pid, Uid};

use super::process::Process;
use crate::background::Background;

/// The addresses of a link's ends.
const NEAR: &str = "10.77.0.1";
pub(super) const FAR: &str = "10.77.0.2";

/// What TCP does about losses and full queues. It is set by route, because only the first namespace may set it for all; under
/// some others (bbr) loopback has two speeds, and which of them it is changes from run to run.
const CONGESTION: [&str; 2] = ["congctl", "cubic"];

/// A network namespace with a loopback device, which ends when this is dropped.
pub(super) struct Namespace {
    holder: Background,
    pid: Pid,
}

impl Namespace {
    pub(super) fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        if !Uid::effective().is_root() {
            // In a user namespace of its own, anybody is root.
            command.arg("--map-root-user");
        }
        // Ends with its input, which ends with xtask, however that ends. It says so when the namespace is there.
        command.args(["--net", "--", "sh", "-c", "echo made; exec cat"]);
        let mut holder = Background::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let pid = Pid::from_raw(i32::try_from(holder.child().id())?);
        let mut made = [0; 5];
        let output = holder.child().stdout.as_mut().context("stdout is piped")?;
        std::io::Read::read_exact(output, &mut made).context("no network namespace: are you root?")?;
        let namespace = Self { holder, pid };
        namespace.ip(&["link", "set", "lo", "up"])?;
        let loopback = ["dev", "lo", "table", "local", "scope", "host", "src", "127.0.0.1"];
        for network in ["127.0.0.0/8", "127.0.0.1"] {
            namespace.ip(&[&["route", "replace", "local", network], &loopback[..], &CONGESTION].concat())?;
        }
        Ok(namespace)
    }

    /// A command that runs `program` in this namespace, as the very process that is spawned.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--net"]);
        if !Uid::effective().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    pub(super) fn ip(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command(Path::new("ip")).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The rest is done by its own drop; closing the input spares it the signal.
        if let Some(mut input) = self.holder.child().stdin.take() {
            let _ = input.flush();
        }
    }
}

/// What a [`Link`] does to packets.
#[derive(Clone, Copy)]
pub(super) struct Quality {
    /// From one end to the other.
    pub(super) delay: Duration,
    pub(super) lost_per_million: u32,
    /// Which ones are lost: with one seed, all subjects lose the same.
    pub(super) seed: u64,
}

/// Two namespaces and a link between them, or several.
pub(super) struct Link {
    pub(super) near: Namespace,
    pub(super) far: Namespace,
    links: Vec<Process>,
}

impl Link {
    /// `program` carries the packets: benches/native/link.
    pub(super) fn new(program: &Path, quality: Quality) -> Result<Self> {
        let mut link = Self { near: Namespace::new()?, far: Namespace::new()?, links: Vec::new() };
        link.add(program, quality, [NEAR, FAR])?;
        Ok(link)
    }

    /// One more link, with an address at either end; says the name of the near device.
    pub(super) fn add(
        &mut self,
        program: &Path,
        quality: Quality,
        [own, other]: [&str; 2],
    ) -> Result<String> {
        let number = self.links.len();
        let [near, far] = ["near", "far"].map(|end| format!("{end}{number}"));
        let mut command = self.near.command(program);
        command.args([near.as_str(), far.as_str(), &quality.delay.as_millis().to_string()]);
        command.args([quality.lost_per_million.to_string(), quality.seed.to_string()]);
        let mut link = Process::start(&mut command)?;
        ensure!(link.line()? == "ready", "the link does not start");
        self.near.ip(&["link", "set", &far, "netns", &self.far.pid.to_string()])?;
        for (namespace, device, own, other) in
            [(&self.near, &near, own, other), (&self.far, &far, other, own)]
        {
            namespace.ip(&["address", "add", own, "peer", other, "dev", device])?;
            namespace.ip(&["link", "set", device, "up"])?;
            namespace
                .ip(&[&["route", "replace", other, "dev", device, "src", own], &CONGESTION[..]].concat())?;
        }
        self.links.push(link);
        Ok(near)
    }
}
