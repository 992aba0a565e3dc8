//! The binary, running.

// Not every test file uses all of it.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

pub(crate) const PEERLOOM: &str = env!("CARGO_BIN_EXE_peerloom");

pub(crate) const EVERY_TRANSPORT: [&str; 5] = [
    "/ip4/127.0.0.1/tcp/0",
    "/ip4/127.0.0.1/udp/0/quic-v1",
    "/ip4/127.0.0.1/tcp/0/ws",
    "/ip4/127.0.0.1/udp/0/quic-v1/webtransport",
    "/ip4/127.0.0.1/udp/0/webrtc-direct",
];

/// A number that nobody has, for TCP and for UDP. It is below those that the system gives to dialers, one of which would take it
/// before it is used.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test programs that run at the same time begin at different numbers.
        let next = std::process::id().wrapping_mul(16).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (next % 20_000) as u16;
        let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
}

/// A running `peerloom run`, ended when dropped.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) peer: String,
    pub(crate) status: String,
    pub(crate) addresses: Vec<String>,
    /// Of `peerloom daemon`.
    pub(crate) control: String,
}

impl Server {
    pub(crate) fn start(data_dir: &Path, listen: &[&str]) -> Self {
        Self::start_with(data_dir, listen, &[])
    }

    pub(crate) fn start_with(data_dir: &Path, listen: &[&str], options: &[&str]) -> Self {
        let mut command = Command::new(PEERLOOM);
        command.arg("run").args(options);
        for address in listen {
            command.args(["--listen", address]);
        }
        Self::spawn(command, data_dir)
    }

    /// What `command` starts, which ends in the arguments of `peerloom run`.
    pub(crate) fn spawn(mut command: Command, data_dir: &Path) -> Self {
        command.args(["--status", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = process.stdout.take().unwrap();
        let mut server = Self {
            process,
            peer: String::new(),
            status: String::new(),
            addresses: Vec::new(),
            control: String::new(),
        };
        for line in BufReader::new(stdout).lines().map(Result::unwrap) {
            match line.split_once(' ') {
                Some(("peer", peer)) => server.peer = peer.to_owned(),
                Some(("status", url)) => server.status = url.to_owned(),
                Some(("control", address)) => server.control = address.to_owned(),
                Some(("listen", address)) => server.addresses.push(address.to_owned()),
                _ if line == "ready" => return server,
                _ => panic!("unexpected line: {line}"),
            }
        }
        panic!("the server ended before it was ready");
    }

    /// Asks it to end, as a service manager does.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.process.wait().unwrap()
    }

    pub(crate) fn health(&self) -> String {
        self.status_page("/health")
    }

    pub(crate) fn status_page(&self, path: &str) -> String {
        status_page(&self.status, path)
    }
}

/// A page of the status port at that URL.
pub(crate) fn status_page(url: &str, path: &str) -> String {
    let (_, address) = url.split_once("://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
