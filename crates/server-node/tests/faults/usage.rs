//! What a process holds of the machine.

use std::{
    fmt, fs,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::common::{Server, free_port};

/// Memory and descriptors of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Resident, in KiB.
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory = line.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        Self { memory, descriptors }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB, {} descriptors", self.memory as f64 / 1024.0, self.descriptors)
    }
}

/// A server with every transport on one port, and what it held before the fault.
pub(crate) struct Victim {
    pub(crate) server: Server,
    pub(crate) port: u16,
    name: &'static str,
    before: Usage,
    _directory: TempDir,
}

impl Victim {
    pub(crate) fn start(fault: &'static str) -> Self {
        Self::start_with(fault, "")
    }

    /// With this configuration.
    pub(crate) fn start_with(fault: &'static str, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, config).unwrap();
        let port = free_port();
        let options = ["--port", &port.to_string(), "--config", file.to_str().unwrap()];
        let server = Server::start_with(directory.path(), &[], &options);
        let before = Usage::of(server.process.id());
        Self { server, port, name: fault, before, _directory: directory }
    }

    /// From now on what the server holds is compared with what it holds now.
    pub(crate) fn settle(&mut self) {
        self.before = self.usage();
        println!("{}: before: {}", self.name, self.before);
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.server.process.id())
    }

    /// Fails if the server holds more than this beyond what it held before.
    pub(crate) fn assert_holds(&self, when: &str, mebibytes: u64, descriptors: usize) {
        let now = self.usage();
        println!("{}: {when}: {now}", self.name);
        assert!(now.memory <= self.before.memory + mebibytes * 1024, "{}: {when}: {now}", self.name);
        assert!(now.descriptors <= self.before.descriptors + descriptors, "{}: {when}: {now}", self.name);
    }

    /// Waits until the server has let go of the fault's descriptors.
    pub(crate) async fn assert_recovers(&self, within: Duration) {
        let start = Instant::now();
        while self.usage().descriptors > self.before.descriptors + 2 {
            assert!(start.elapsed() < within, "{}: still {}", self.name, self.usage());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("{}: after {:.1?}: {}", self.name, start.elapsed(), self.usage());
    }

    /// The addresses on IPv4's loopback, one for each transport.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let mut addresses = self.server.addresses.clone();
        addresses.retain(|address| address.starts_with("/ip4/127.0.0.1/"));
        assert_eq!(addresses.len(), 5, "{addresses:?}");
        addresses
    }
}

/// To be held while a test has thousands of sockets: all tests of this process share its descriptors.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static FLOOD: Mutex<()> = Mutex::const_new(());
    FLOOD.lock().await
}

/// How many sockets of `wanted` this process can have, after asking for as many as it may.
pub(crate) fn sockets(wanted: usize) -> usize {
    const OTHERS: usize = 500;
    let process = std::process::id();
    let asked = format!("--nofile={}:", wanted + OTHERS);
    // Best effort: a machine without the program, or one that grants less, gets a smaller flood.
    let _ = Command::new("prlimit").args(["--pid", &process.to_string(), &asked]).status();
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let granted = line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX);
    wanted.min(granted - OTHERS)
}
