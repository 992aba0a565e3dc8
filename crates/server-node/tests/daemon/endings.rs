//! How streams, clients and daemons end, and what is left of them: nothing.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    thread::sleep,
    time::Duration,
};

use crate::{client::*, common::Server, connected};

/// A stream from a client of the first daemon to one of the second.
fn stream(ours: &Server, theirs: &Server, taker: &Taker) -> (Socket, Socket) {
    Socket::control(theirs).done(&handle(&taker.address(), &["/chat/1"]));
    let mut control = Socket::control(ours);
    control.done(&open(&peer_id(theirs), &["/chat/1"]));
    (control, taker.take().0)
}

fn open_files(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.process.id())).unwrap().count()
}

/// Waits until `servers` hold as many files open as they did.
fn nothing_is_left(servers: [&Server; 2], before: [usize; 2]) {
    for _ in 0..400 {
        if servers.map(open_files) == before {
            return;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("{:?} files are open, and there were {before:?}", servers.map(open_files));
}

#[test]
fn clients_that_go_leave_nothing_behind() {
    let ([ours, theirs], [_first, directory]) = connected(&[]);
    let taker = Taker::unix(directory.path(), "taker");
    let servers = [&ours, &theirs];
    // The reply to an identify push, say, is over by then.
    drop(stream(&ours, &theirs, &taker));
    sleep(Duration::from_millis(500));
    let before = servers.map(open_files);

    let (opener, mut taken) = stream(&ours, &theirs, &taker);
    drop(opener);
    assert_eq!(taken.read_all(), b"");
    drop(taken);
    nothing_is_left(servers, before);

    let (mut opener, taken) = stream(&ours, &theirs, &taker);
    drop(taken);
    assert_eq!(opener.read_all(), b"");
    drop(opener);
    nothing_is_left(servers, before);

    // In the middle of more than the buffers on the way hold.
    let (mut opener, taken) = stream(&ours, &theirs, &taker);
    opener.set_write_timeout(Duration::from_millis(300));
    while opener.write(&[0; 65536]).is_ok() {}
    drop(opener);
    drop(taken);
    nothing_is_left(servers, before);

    // Before its request is answered, and within a request.
    let mut impatient = Socket::control(&ours);
    let stranger = [&[0x12, 0x20][..], &[7; 32]].concat();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    impatient.write_all(&framed(&connect(&stranger, &[address], 3000))).unwrap();
    silent.accept().unwrap();
    drop(impatient);
    let mut confused = Socket::control(&ours);
    confused.write_all(&framed(&request(IDENTIFY))[..2]).unwrap();
    drop(confused);
    nothing_is_left(servers, before);
}

#[test]
fn what_a_client_wrote_before_it_went_arrives() {
    let ([ours, theirs], [_first, directory]) = connected(&[]);
    for taker in [Taker::unix(directory.path(), "taker"), Taker::tcp()] {
        let (mut opener, mut taken) = stream(&ours, &theirs, &taker);
        opener.write_all(&[7; 3_000_000]).unwrap();
        drop(opener);
        assert_eq!(taken.read_all().len(), 3_000_000);
    }
}

#[test]
fn a_client_that_does_not_read_holds_the_other_up_and_loses_nothing() {
    let ([ours, theirs], [_first, directory]) = connected(&[]);
    for taker in [Taker::unix(directory.path(), "taker"), Taker::tcp()] {
        let (mut opener, mut taken) = stream(&ours, &theirs, &taker);
        opener.set_write_timeout(Duration::from_secs(1));
        let mut written = 0usize;
        loop {
            match opener.write(&[1; 65536]) {
                Ok(count) => written += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => panic!("{error}"),
            }
            assert!(written < 64 << 20, "nothing held the writer up");
        }
        opener.shutdown();
        assert_eq!(taken.read_all().len(), written);
        // And the other way on the same stream, which is half closed.
        taken.write_all(b"all of it").unwrap();
        drop(taken);
        assert_eq!(opener.read_all(), b"all of it");
    }
}

#[test]
fn resets_go_through_as_resets_of_tcp_sockets() {
    let ([ours, theirs], _directories) = connected(&["--listen-control", "/ip4/127.0.0.1/tcp/0"]);
    let taker = Taker::tcp();
    let (mut opener, taken) = stream(&ours, &theirs, &taker);
    // A socket that is closed with something unread is reset by the system.
    opener.write_all(b"unread").unwrap();
    let Socket::Tcp(socket) = &taken else { panic!("a TCP socket") };
    socket.peek(&mut [0]).unwrap();
    drop(taken);
    let error = opener.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_stream_for_a_client_that_is_not_there_is_reset() {
    let ([ours, theirs], [_first, directory]) = connected(&["--listen-control", "/ip4/127.0.0.1/tcp/0"]);
    let mut registering = Socket::control(&theirs);
    let gone = Taker::tcp().address();
    let missing = format!("/unix{}", directory.path().join("missing").display());
    for address in [gone, missing] {
        registering.done(&handle(&address, &["/chat/1"]));
        let mut control = Socket::control(&ours);
        // The reset may be there before anything else is known of the stream.
        match control.ask(&open(&peer_id(&theirs), &["/chat/1"])) {
            Ok(_) => assert_eq!(control.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset),
            Err(error) => assert!(error.contains("reset"), "{error}"),
        }
    }
    // It may come back.
    let (mut opener, mut taken) = stream(&ours, &theirs, &Taker::tcp());
    opener.write_all(b"here").unwrap();
    assert_eq!(taken.read_some(4), b"here");
}

#[test]
fn a_daemon_that_ends_ends_its_clients_streams() {
    let ([ours, theirs], [directory, other]) = connected(&[]);
    let (mut opener, mut taken) = stream(&ours, &theirs, &Taker::unix(other.path(), "taker"));
    opener.write_all(b"last words").unwrap();
    assert_eq!(taken.read_some(10), b"last words");
    assert!(ours.terminate().success());
    for mut socket in [opener, taken] {
        match socket.read(&mut [0]) {
            Ok(read) => assert_eq!(read, 0),
            // If it takes so long, nobody has told the other daemon.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    assert!(!directory.path().join("control.sock").exists());
    assert!(theirs.terminate().success());
}
