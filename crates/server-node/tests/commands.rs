//! The binary as an operator uses it: real processes on loopback.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use common::{EVERY_TRANSPORT, PEERLOOM, Server, free_port};

fn peerloom(arguments: &[&str]) -> Output {
    Command::new(PEERLOOM).args(arguments).output().unwrap()
}

/// The one line on stderr of a command that failed with code 1.
fn failure(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn ping_and_perf_reach_a_server_over_every_transport() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &EVERY_TRANSPORT);
    assert_eq!(server.addresses.len(), EVERY_TRANSPORT.len());
    for address in &server.addresses {
        let ping = peerloom(&["ping", address, "-n", "1", "--json"]);
        assert!(ping.status.success(), "{address}: {ping:?}");
        let line: serde_json::Value = serde_json::from_slice(&ping.stdout).unwrap();
        assert_eq!(line["peer"], server.peer);
        assert_eq!(line["round_trips_ms"].as_array().unwrap().len(), 1);

        let perf = peerloom(&["perf", address, "--upload", "3", "--download", "2", "--json"]);
        assert!(perf.status.success(), "{address}: {perf:?}");
        let line: serde_json::Value = serde_json::from_slice(&perf.stdout).unwrap();
        assert_eq!((&line["upload_bytes"], &line["download_bytes"]), (&(3 << 20).into(), &(2 << 20).into()));
    }
    let health = server.health();
    assert!(health.starts_with("HTTP/1.1 200") && health.contains(&server.peer), "{health}");
    assert!(server.terminate().success());
}

#[test]
fn rules_are_read_again_at_sighup_and_close_what_they_deny() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("peerloom.toml");
    let config = file.to_str().unwrap();
    std::fs::write(&file, "[gating]\ndeny = ['192.0.2.0/24']").unwrap();
    let listen = ["/ip4/127.0.0.1/tcp/0"];
    let server = Server::start_with(&directory.path().join("data"), &listen, &["--config", config]);
    let address = &server.addresses[0];
    assert!(peerloom(&["ping", address, "-n", "1"]).status.success());

    let mut stays = Command::new(PEERLOOM)
        .args(["ping", address, "-n", "100000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    BufReader::new(stays.stdout.as_mut().unwrap()).lines().next().unwrap().unwrap();
    std::fs::write(&file, "[gating]\ndeny = ['127.0.0.0/8']").unwrap();
    let hangup = || Command::new("kill").args(["-HUP", &server.process.id().to_string()]).status().unwrap();
    assert!(hangup().success());
    assert!(!stays.wait().unwrap().success(), "its connection was closed");
    failure(&peerloom(&["ping", address, "-n", "1"]));

    // What cannot be read changes nothing.
    std::fs::write(&file, "[gating]\ndeny = ['127.0.0.0/99']").unwrap();
    assert!(hangup().success());
    failure(&peerloom(&["ping", address, "-n", "1"]));
    let error = failure(&peerloom(&["run", "--config", config]));
    assert!(error.contains("gating.deny: 127.0.0.0/99 has too long a prefix"), "{error}");
}

#[test]
fn one_port_number_serves_every_transport() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let server = Server::start_with(directory.path(), &[], &["--port", &port]);
    let on_loopback: Vec<_> =
        server.addresses.iter().filter(|address| address.starts_with("/ip4/127.0.0.1/")).collect();
    assert_eq!(on_loopback.len(), EVERY_TRANSPORT.len(), "{on_loopback:?}");
    for address in on_loopback {
        assert!(address.contains(&format!("p/{port}/")), "{address}");
        let ping = peerloom(&["ping", address, "-n", "1"]);
        assert!(ping.status.success(), "{address}: {ping:?}");
    }
    assert!(server.terminate().success());
}

#[test]
fn a_server_may_open_as_many_files_as_the_system_permits() {
    let directory = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 256; exec \"$0\" run \"$@\"", PEERLOOM]);
    let server = Server::spawn(limited, directory.path());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let (soft, hard) = line.trim().split_once(char::is_whitespace).unwrap();
    assert_eq!(Some(soft), hard.split_whitespace().next());
}

#[test]
fn identity_and_certificate_hashes_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &EVERY_TRANSPORT);
    let (peer, addresses) = (server.peer.clone(), server.addresses.clone());
    assert!(server.terminate().success());
    // At the same ports: an address that was given out once stays good.
    let listen: Vec<_> = addresses
        .iter()
        .map(|address| {
            let end = address.find("/certhash").or_else(|| address.find("/p2p")).unwrap();
            address.split_at(end).0
        })
        .collect();
    let again = Server::start(directory.path(), &listen);
    assert_eq!((&again.peer, &again.addresses), (&peer, &addresses));

    let id = peerloom(&["id", "--data-dir", directory.path().to_str().unwrap()]);
    assert_eq!(String::from_utf8(id.stdout).unwrap().trim(), peer);
}

#[test]
fn a_misspelt_key_of_the_configuration_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("peerloom.toml");
    std::fs::write(&config, "listne = [\"/ip4/127.0.0.1/tcp/0\"]\n").unwrap();
    let error = failure(&peerloom(&["run", "--config", config.to_str().unwrap()]));
    assert!(error.contains("listne") && error.contains("peerloom.toml"), "{error}");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let error = failure(&peerloom(&["run", "--config", "/nowhere/peerloom.toml"]));
    assert!(error.contains("/nowhere/peerloom.toml"), "{error}");
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().to_str().unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    let error =
        failure(&peerloom(&["run", "--data-dir", data_dir, "--status", "127.0.0.1:0", "--listen", &address]));
    assert!(error.contains(&address), "{error}");

    let status = format!("127.0.0.1:{port}");
    let error = failure(&peerloom(&["run", "--data-dir", data_dir, "--status", &status]));
    assert!(error.contains(&status), "{error}");
}

#[test]
fn a_damaged_identity_is_named_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("identity.key");
    std::fs::write(&key, b"no key").unwrap();
    let error = failure(&peerloom(&["id", "--data-dir", directory.path().to_str().unwrap()]));
    assert!(error.contains("identity.key"), "{error}");
    assert_eq!(std::fs::read(&key).unwrap(), b"no key");
}

#[test]
fn a_dial_of_the_wrong_peer_names_both() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &EVERY_TRANSPORT[..1]);
    let other = "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK";
    let address = server.addresses[0].replace(&server.peer, other);
    let error = failure(&peerloom(&["ping", &address]));
    assert!(error.contains(other) && error.contains(&server.peer), "{error}");
}

#[test]
fn a_dial_of_nobody_says_so() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = failure(&peerloom(&["ping", &format!("/ip4/127.0.0.1/tcp/{}", closed.port())]));
    assert!(error.contains("cannot reach"), "{error}");
}

#[test]
fn a_server_that_is_killed_ends_a_measurement_with_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), &EVERY_TRANSPORT[..1]);
    let measuring = Command::new(PEERLOOM)
        .args(["perf", &server.addresses[0], "--upload", "100000", "--json"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The measurement is under way as soon as the server counts its connection.
    while !server.health().contains("\"connections\":1") {}
    server.process.kill().unwrap();
    let error = failure(&measuring.wait_with_output().unwrap());
    assert!(error.contains("perf"), "{error}");
}

#[test]
fn a_server_behind_a_relay_is_reached_through_it() {
    let [public, hidden] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let relay = Server::start_with(public.path(), &["/ip4/127.0.0.1/tcp/0"], &["--relay"]);
    let circuit = format!("{}/p2p-circuit", relay.addresses[0]);
    let server = Server::start(hidden.path(), &[&circuit]);
    let addresses = ["", "/webrtc"].map(|way| format!("{circuit}{way}/p2p/{}", server.peer));
    assert_eq!(server.addresses, addresses);

    let ping = peerloom(&["ping", &server.addresses[0], "-n", "1", "--json"]);
    assert!(ping.status.success(), "{ping:?}");
    let line: serde_json::Value = serde_json::from_slice(&ping.stdout).unwrap();
    assert_eq!(line["peer"], server.peer);
    // What the relay limits is for short things only, and the error says so.
    let error = failure(&peerloom(&["perf", &server.addresses[0], "--upload", "1"]));
    assert!(error.contains("limits the connection"), "{error}");

    let metrics = relay.status_page("/metrics");
    assert!(metrics.contains("\npeerloom_relay_reservations 1\n"), "{metrics}");
    assert!(metrics.contains("\npeerloom_relay_circuits_opened_total 2\n"), "{metrics}");

    // Directly, what the relay would not carry.
    let megabytes = ["--upload", "2", "--download", "2"];
    let perf = peerloom(&[&["perf", &server.addresses[1], "--json"][..], &megabytes].concat());
    assert!(perf.status.success(), "{perf:?}");
}

#[test]
fn a_node_that_is_no_relay_is_named_as_the_reason() {
    let [public, hidden] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let plain = Server::start(public.path(), &["/ip4/127.0.0.1/tcp/0"]);
    let circuit = format!("{}/p2p-circuit", plain.addresses[0]);
    let directory = hidden.path().to_str().unwrap();
    let arguments = ["run", "--status", "127.0.0.1:0", "--data-dir", directory, "--listen", &circuit];
    let error = failure(&peerloom(&arguments));
    assert!(error.contains("is not a relay"), "{error}");
}

#[test]
fn the_help_names_the_keys_of_the_relay() {
    let help = String::from_utf8(peerloom(&["run", "--help"]).stdout).unwrap();
    assert!(help.contains("[relay]") && help.contains("circuit_bytes") && help.contains("--relay"), "{help}");
}

#[test]
fn a_private_network_is_reached_with_its_key_only() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("swarm.key");
    let content = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "5c".repeat(32));
    std::fs::write(&key, content).unwrap();
    let key = key.to_str().unwrap();
    let listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"];
    let server = Server::start_with(directory.path(), &listen, &["--private-network", key]);
    for address in &server.addresses {
        let ping = peerloom(&["ping", address, "-n", "1", "--private-network", key]);
        assert!(ping.status.success(), "{address}: {ping:?}");
        failure(&peerloom(&["ping", address, "-n", "1"]));
    }
    let data_dir = directory.path().to_str().unwrap();
    let public = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--private-network", key];
    let refused = failure(&peerloom(&[&["run", "--data-dir", data_dir], &public[..]].concat()));
    assert!(refused.contains("a private network has TCP and WebSocket only"), "{refused}");
    let mut unkeyed = Command::new(PEERLOOM);
    unkeyed.args(["run", "--data-dir", data_dir]).env("LIBP2P_FORCE_PNET", "1");
    let refused = failure(&unkeyed.output().unwrap());
    assert!(refused.contains("private_network: not given"), "{refused}");
}

#[test]
fn secure_websocket_is_reached_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority =
        rcgen::CertifiedIssuer::self_signed(parameters, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("chain.pem"), parameters.signed_by(&key, &authority).unwrap().pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let config = format!("[tls]\ncertificate = {:?}\nkey = {:?}", path("chain.pem"), path("key.pem"));
    std::fs::write(path("config.toml"), config).unwrap();
    let config = path("config.toml");
    let options = ["--config", config.to_str().unwrap()];
    let server = Server::start_with(directory.path(), &["/ip4/127.0.0.1/tcp/0/tls/ws"], &options);
    let address = server.addresses[0].replace("/ip4/127.0.0.1/", "/dns4/localhost/");
    let mut ping = Command::new(PEERLOOM);
    ping.args(["ping", &address, "-n", "1"]);
    let untrusted = failure(&ping.output().unwrap());
    assert!(untrusted.contains("invalid peer certificate"), "{untrusted}");
    let trusted = ping.env("SSL_CERT_FILE", path("ca.pem")).output().unwrap();
    assert!(trusted.status.success(), "{trusted:?}");
}
