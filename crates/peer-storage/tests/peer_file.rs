//! A node's knowledge of its peers outlives the node, whatever becomes of the process or the file.

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{Keypair, Multiaddr, PeerId};
use peerloom_node::{Node, PeerChange, PeerStorage, StoredPeer};
use peerloom_peer_storage::{PeerFile, PeerFileError};
use peerloom_sim::Network;
use proptest::prelude::*;

fn peer(number: u16) -> PeerId {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    Keypair::from_seed(seed).peer_id()
}

fn put(number: u16, record: Vec<u8>) -> PeerChange {
    PeerChange::Put { peer: peer(number), record: record.into(), stamp: 0 }
}

/// What a node would find.
fn load(path: &Path) -> Vec<StoredPeer> {
    PeerFile::open(path).unwrap().load(usize::MAX).unwrap()
}

#[tokio::test]
async fn what_is_written_is_there_the_next_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.redb");
    assert!(load(&path).is_empty());
    let file = PeerFile::open(&path).unwrap();
    file.write((0..10).map(|number| put(number, vec![1])).collect()).await.unwrap();
    let remove = |number| PeerChange::Remove { peer: peer(number), stamp: None };
    file.write(vec![put(3, vec![2, 2]), remove(4), remove(400)]).await.unwrap();
    drop(file);
    let found = load(&path);
    assert_eq!(found.len(), 9);
    let third = found.iter().find(|stored| stored.peer == peer(3)).unwrap();
    assert_eq!(third.record, Bytes::from_static(&[2, 2]));
    // What there is no room for is gone from the file as well.
    assert_eq!(PeerFile::open(&path).unwrap().load(5).unwrap().len(), 5);
    assert_eq!(load(&path).len(), 5);
}

#[tokio::test]
async fn a_node_that_is_started_again_finds_its_peers_by_their_ids() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.redb");
    let network = Network::new(Duration::from_millis(1));
    let keypair = Keypair::generate();
    let server = Node::builder(keypair.clone()).transport(network.transport(keypair)).build();
    let address = server.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0);
    let client = || {
        let keypair = Keypair::from_seed([9; 32]);
        let transport = network.transport(keypair.clone());
        let file = PeerFile::open(&path).unwrap();
        Node::builder(keypair).transport(transport).peer_storage(file).build()
    };
    let first = client();
    first.dial(address).await.unwrap();
    first.peer_store().set_metadata(server.peer_id(), "name", "the server").unwrap();
    first.close().await;
    drop(first);

    let second = client();
    assert_eq!(second.peer_store().metadata(server.peer_id(), "name").unwrap(), "the server");
    let known = second.peer_store().known_addresses(server.peer_id());
    assert!(known[0].last_success.is_some());
    second.dial(server.peer_id()).await.unwrap();
    second.close().await;
    assert!(fs::read_dir(directory.path()).unwrap().count() == 1);
}

#[cfg(unix)]
#[test]
fn nobody_but_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.redb");
    load(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_is_one_nodes_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.redb");
    let first = PeerFile::open(&path).unwrap();
    let error = PeerFile::open(&path).unwrap_err();
    assert!(matches!(error, PeerFileError::InUse { .. }), "{error}");
    assert!(!error.to_string().contains('\n'));
    drop(first);
    assert!(PeerFile::open(&path).is_ok());
}

#[test]
fn a_place_where_no_file_can_be_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not/there/peers.redb");
    let error = PeerFile::open(&path).unwrap_err();
    assert!(matches!(error, PeerFileError::Io { .. }) && error.to_string().contains("not/there"), "{error}");
    let error = PeerFile::open(directory.path()).unwrap_err();
    assert!(matches!(error, PeerFileError::Io { .. }), "{error}");
}

/// A file with some peers in it, as bytes.
fn written() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.redb");
    let file = PeerFile::open(&path).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for round in 0..4_u16 {
        let changes = (0..50).map(|number| put(round * 50 + number, vec![7; 500])).collect();
        runtime.block_on(file.write(changes)).unwrap();
    }
    drop(file);
    fs::read(&path).unwrap()
}

#[test]
fn a_file_that_is_none_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.redb");
    let aside = directory.path().join("peers.redb.damaged");
    let good = written();
    let cases: [&[u8]; 4] = [b"not a database", &[0; 100_000], &good[..good.len() / 2], &good[..100]];
    for bytes in cases {
        fs::write(&path, bytes).unwrap();
        assert!(load(&path).is_empty());
        assert_eq!(fs::read(&aside).unwrap().len(), bytes.len());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let file = PeerFile::open(&path).unwrap();
        runtime.block_on(file.write(vec![put(1, vec![1])])).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_file_that_is_damaged_anywhere_keeps_nobody_from_starting(
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..64)), 1..6),
    ) {
        static WRITTEN: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(written);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.redb");
        let mut bytes = WRITTEN.clone();
        for (at, damage) in damage {
            let at = at.index(bytes.len());
            let end = (at + damage.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&damage[..end - at]);
        }
        fs::write(&path, bytes).unwrap();
        let file = PeerFile::open(&path).unwrap();
        let node = Node::builder(Keypair::from_seed([9; 32]));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let node = node.peer_storage(file).build();
            node.peer_store().add_address(peer(1), &"/memory/1".parse::<Multiaddr>().unwrap());
            node.close().await;
        });
    }
}

/// Not a test: what the one below runs as a process of its own, to kill it.
#[test]
#[ignore = "writes until it is killed"]
fn writes_for_ever() {
    let Some(path) = std::env::var_os("PEERLOOM_TEST_PEER_FILE") else { return };
    let file = PeerFile::open(path).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for round in 0_u64.. {
        // All of one round belong together.
        let record = round.to_be_bytes().repeat(64);
        let changes = (0..64).map(|number| put(number, record.clone())).collect();
        runtime.block_on(file.write(changes)).unwrap();
        println!("round {round}");
    }
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_whole_transactions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.redb");
    let mut last = 0;
    for kill in 0..6 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_for_ever", "--ignored", "--nocapture"])
            .env("PEERLOOM_TEST_PEER_FILE", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut confirmed = 0;
        let stdout = BufReader::new(writer.stdout.take().unwrap());
        let rounds = stdout
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("round ")?.parse::<u64>().ok());
        for round in rounds.take(20 + 7 * kill) {
            confirmed = round;
        }
        // SIGKILL.
        writer.kill().unwrap();
        writer.wait().unwrap();

        let found = load(&path);
        assert_eq!(found.len(), 64);
        let round = u64::from_be_bytes(found[0].record[..8].try_into().unwrap());
        assert!(
            found.iter().all(|stored| *stored.record == round.to_be_bytes().repeat(64)),
            "half of a transaction"
        );
        assert!(round >= confirmed, "{round}: what was confirmed in round {confirmed} is lost");
        last = round;
    }
    assert!(last > 0);
    assert!(!directory.path().join("peers.redb.damaged").exists());
}
