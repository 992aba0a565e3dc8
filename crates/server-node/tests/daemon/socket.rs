//! The control socket itself: who may be there, and what comes to it that is no client.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Command,
};

use tempfile::tempdir;

use crate::{client::*, common::PEERLOOM};

/// The one line on stderr of a daemon that cannot start.
fn failure(data_dir: &Path, control: &str) -> String {
    let mut command = Command::new(PEERLOOM);
    command.args(["daemon", "--status", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let output = command.args(["--listen-control", control, "--data-dir"]).arg(data_dir).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

fn unix(path: &Path) -> String {
    format!("/unix{}", path.display())
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_daemon() {
    let directory = tempdir().unwrap();
    let daemon = daemon(directory.path(), &[]);
    let path = directory.path().join("control.sock");
    assert_eq!(daemon.control, unix(&path));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(daemon.terminate().success());
    assert!(!path.exists());
}

#[test]
fn a_socket_that_is_taken_is_named_and_one_that_was_left_behind_is_replaced() {
    let directories = [tempdir().unwrap(), tempdir().unwrap()];
    let path = directories[0].path().join("taken.sock");
    let mut first = daemon(directories[0].path(), &["--listen-control", &unix(&path)]);
    let error = failure(directories[1].path(), &unix(&path));
    assert!(error.contains(&unix(&path)) && error.contains("another process listens there"), "{error}");
    Socket::control(&first).done(&request(IDENTIFY));

    first.process.kill().unwrap();
    first.process.wait().unwrap();
    assert!(path.exists(), "nobody was there to remove it");
    let second = daemon(directories[1].path(), &["--listen-control", &unix(&path)]);
    let identity = Socket::control(&second).done(&request(IDENTIFY)).message(4);
    assert_eq!(identity.bytes(1), peer_id(&second));
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("notes");
    fs::write(&path, "precious").unwrap();
    let error = failure(directory.path(), &unix(&path));
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    // One that takes the place of the daemon's socket while that runs, too.
    let path = directory.path().join("control.sock");
    let daemon = daemon(directory.path(), &[]);
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    assert!(daemon.terminate().success());
    assert!(path.exists());
    drop(other);
}

#[test]
fn addresses_that_cannot_be_the_control_sockets_are_named() {
    let directory = tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let missing = unix(&directory.path().join("missing/control.sock"));
    let long = unix(&directory.path().join("x".repeat(120)));
    for control in [taken, missing, long] {
        let error = failure(directory.path(), &control);
        assert!(error.contains(&control), "{error}");
    }
    for control in ["/ip4/0.0.0.0/tcp/0", "/ip4/192.0.2.1/tcp/1", "/dns4/localhost/tcp/1", "nonsense"] {
        let output = Command::new(PEERLOOM).args(["daemon", "--listen-control", control]).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8(output.stderr).unwrap().contains(control));
    }
}

#[test]
fn what_is_no_request_is_refused_and_nothing_after_it_is_read() {
    let directory = tempdir().unwrap();
    let daemon = daemon(directory.path(), &["--listen-control", "/ip4/127.0.0.1/tcp/0"]);
    let mut too_long = vec![0x80, 0x80, 0x80, 0x01];
    too_long.extend(vec![0; 1000]);
    for foreign in [
        &b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\nAccept: text/html,*/*\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nContent-Type: text/plain\r\nA: bbbb\r\n\r\n\x02\x08\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        b"\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        &too_long,
    ] {
        let mut socket = Socket::control(&daemon);
        // A request behind it stays unanswered.
        socket.write_all(&[foreign, &framed(&request(IDENTIFY))].concat()).unwrap();
        let answer = socket.message();
        assert_eq!(answer.number(1), 1, "{foreign:?}");
        assert_eq!(socket.read_all(), b"");
    }
    // A request that is cut short; its half is closed, so an answer could still be read.
    let mut socket = Socket::control(&daemon);
    socket.write_all(&framed(&request(IDENTIFY))[..2]).unwrap();
    socket.shutdown();
    assert_eq!(socket.message().message(2).text(1), "stream ended within a message");
    // And one that is whole, from a client that asks no more.
    let mut socket = Socket::control(&daemon);
    socket.write_all(&framed(&request(IDENTIFY))).unwrap();
    socket.shutdown();
    assert_eq!(socket.message().message(4).bytes(1), peer_id(&daemon));
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
}
