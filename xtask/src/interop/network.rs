//! Where the cells are played: a network namespace with one interface beside loopback, which is what a container has, and
//! what Firefox needs to dial WebRTC. Nothing leaves it. Where namespaces are not permitted, it is loopback.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::background::Background;

/// Both ends of a cable, which every kernel that has containers has, and a default route: Firefox takes the address to dial
/// from off that. The shell stays for as long as its standard input does, and the namespace as long as that.
const SET_UP: &str = "ip link set lo up && ip link add peerloom0 type veth peer name peerloom1 \
    && ip address add 10.99.0.1/24 dev peerloom0 && ip link set peerloom0 up && ip link set peerloom1 up \
    && ip route add default dev peerloom0 && echo ready && read -r _";

/// The place, which is gone when this is dropped.
pub(crate) struct Network {
    /// What starts a program in the namespace.
    enter: Vec<String>,
    _namespace: Option<Background>,
}

impl Network {
    /// A namespace if it may be, otherwise loopback.
    pub(crate) fn new() -> Self {
        namespace().unwrap_or_else(|error| {
            eprintln!("no network namespace, so everything is on loopback: {error:#}");
            Self { enter: Vec::new(), _namespace: None }
        })
    }

    /// Where listeners bind.
    pub(crate) fn listen_ip(&self) -> &'static str {
        if self.is_loopback() { "127.0.0.1" } else { "0.0.0.0" }
    }

    pub(crate) fn is_loopback(&self) -> bool {
        self.enter.is_empty()
    }

    /// Starts `program` here.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some((first, rest)) = self.enter.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }
}

fn namespace() -> Result<Network> {
    let is_root = nix::unistd::geteuid().is_root();
    let mut command = Command::new("unshare");
    command.args(if is_root { &["--net"][..] } else { &["--map-root-user", "--net"] });
    command.args(["sh", "-c", SET_UP]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut namespace = Background::spawn(&mut command)?;
    let mut line = String::new();
    if let Some(stdout) = namespace.child().stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    anyhow::ensure!(line.trim() == "ready", "it cannot be set up");
    let mut enter = vec!["nsenter".to_owned(), format!("--target={}", namespace.child().id())];
    enter.push("--net".to_owned());
    if !is_root {
        enter.extend(["--user", "--preserve-credentials"].map(str::to_owned));
    }
    enter.push("--".to_owned());
    Ok(Network { enter, _namespace: Some(namespace) })
}
