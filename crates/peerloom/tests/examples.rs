//! The examples, run as their readers run them: one process for each peer.

#![cfg(all(feature = "tcp", feature = "quic"))]
// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

const ON_LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// An example that runs, ended when dropped.
struct Example {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut process =
            example(name).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the example has ended").unwrap()
    }

    fn type_line(&mut self, text: &str) {
        writeln!(self.process.stdin.as_ref().unwrap(), "{text}").unwrap();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Cargo builds the examples for `cargo test`, and puts them beside the tests.
fn example(name: &str) -> Command {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    path.set_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "{} is not there: cargo build -p peerloom --examples", path.display());
    Command::new(path)
}

/// What an example prints that ends by itself.
fn output(name: &str, arguments: &[&str]) -> String {
    let output = example(name).args(arguments).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn echo_answers_with_what_it_was_sent() {
    for address in [ON_LOOPBACK, "/ip4/127.0.0.1/tcp/0"] {
        let mut server = Example::start("echo", &[address]);
        assert_eq!(output("echo", &[&server.line(), "hello"]), "hello\n");
    }
}

#[test]
fn two_chats_talk_both_ways() {
    let mut host = Example::start("chat", &[ON_LOOPBACK]);
    let mut guest = Example::start("chat", &[&host.line()]);
    guest.type_line("is anybody there?");
    assert!(host.line().ends_with(": is anybody there?"));
    host.type_line("Grüße");
    assert!(guest.line().ends_with(": Grüße"));
    // The end of what is typed is the end of the chat.
    drop(guest.process.stdin.take());
    assert!(guest.process.wait().unwrap().success());
}

#[test]
fn a_file_arrives_whole_and_nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from.bin"), directory.path().join("to"));
    fs::create_dir(&to).unwrap();
    let content: Vec<u8> = (0..3_000_001_u32).map(|n| (n / 251) as u8).collect();
    fs::write(&from, &content).unwrap();

    let mut receiver = Example::start("file_transfer", &["receive", to.to_str().unwrap(), ON_LOOPBACK]);
    let address = receiver.line();
    let send = ["send", &address, from.to_str().unwrap()];
    assert_eq!(output("file_transfer", &send), "3000001 bytes sent\n");
    assert!(receiver.line().starts_with("from.bin of "));
    assert!(fs::read(to.join("from.bin")).unwrap() == content);

    fs::write(&from, "another").unwrap();
    assert!(!example("file_transfer").args(send).stderr(Stdio::null()).status().unwrap().success());
    assert!(fs::read(to.join("from.bin")).unwrap() == content);
}
