//! [`PeerFile`]: what a node knows of peers, kept in a file.
//!
//! ```
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! use peerloom_core::Keypair;
//! use peerloom_node::Node;
//! use peerloom_peer_storage::PeerFile;
//!
//! let file = PeerFile::open(directory.path().join("peers.redb"))?;
//! let node = Node::builder(Keypair::generate()).peer_storage(file).build();
//! // …
//! node.close().await;
//! # Ok(()) }
//! ```

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use peerloom_core::{PeerId, runtime::BoxFuture};
use peerloom_node::{PeerChange, PeerStorage, PeerStorageError, StoredPeer};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, backends::FileBackend};

/// A peer's record by the bytes of its id.
const PEERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("peers");
/// What is kept of the file in memory. It is read once, when the node starts.
const CACHE_BYTES: usize = 1024 * 1024;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFileError {
    /// Another node has it open, in this process or another one.
    #[error("peers {}: another node is using it", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file, or its directory, cannot be read or written.
    #[error("peers {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Peers in a file, readable by its owner alone, which one node has to itself. A process that is killed in the middle of a write
/// leaves the last whole one behind.
#[derive(Debug)]
pub struct PeerFile {
    database: Arc<Database>,
    /// Read when the file was opened, until the node asks for it.
    read: Mutex<Vec<StoredPeer>>,
}

impl PeerFile {
    /// Opens the file, or makes it if it is not there; its directory must be.
    ///
    /// One that is damaged is set aside, as `….damaged`, and a new one begun: what it had is found out again, while a node that does
    /// not start helps nobody. A warning in the log says so.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PeerFileError> {
        let path = path.into();
        match open_and_read(&path) {
            Ok(opened) => Ok(opened),
            Err(Failure::Damaged(reason)) => {
                let aside =
                    set_aside(&path).map_err(|source| PeerFileError::Io { path: path.clone(), source })?;
                tracing::warn!(
                    path = %path.display(), aside = %aside.display(), reason,
                    "what was known of peers is damaged; it is set aside and begun anew"
                );
                open_and_read(&path).map_err(|failure| failure.into_error(path))
            }
            Err(failure) => Err(failure.into_error(path)),
        }
    }
}

impl PeerStorage for PeerFile {
    fn load(&self, at_most: usize) -> Result<Vec<StoredPeer>, PeerStorageError> {
        let mut peers = std::mem::take(&mut *self.read.lock());
        if peers.len() > at_most {
            let surplus = peers.split_off(at_most);
            let removals =
                surplus.into_iter().map(|StoredPeer { peer, .. }| PeerChange::Remove { peer, stamp: None });
            write(&self.database, removals.collect()).map_err(PeerStorageError::new)?;
        }
        Ok(peers)
    }

    fn write(&self, changes: Vec<PeerChange>) -> BoxFuture<'static, Result<(), PeerStorageError>> {
        let database = self.database.clone();
        Box::pin(async move {
            let writing = tokio::task::spawn_blocking(move || write(&database, changes));
            match writing.await {
                Ok(written) => written.map_err(PeerStorageError::new),
                Err(panicked) => Err(PeerStorageError::new(panicked)),
            }
        })
    }
}

fn write(database: &Database, changes: Vec<PeerChange>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(PEERS)?;
        for change in changes {
            match change {
                PeerChange::Put { peer, record, .. } => drop(table.insert(peer.as_bytes(), &*record)?),
                // Nobody else writes to the file, so whatever is there is the version meant.
                PeerChange::Remove { peer, .. } => drop(table.remove(peer.as_bytes())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

enum Failure {
    InUse,
    Io(io::Error),
    /// Of no use to anybody, and why.
    Damaged(String),
}

impl Failure {
    fn into_error(self, path: PathBuf) -> PeerFileError {
        match self {
            Self::InUse => PeerFileError::InUse { path },
            Self::Io(source) => PeerFileError::Io { path, source },
            Self::Damaged(reason) => PeerFileError::Io { path, source: io::Error::other(reason) },
        }
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            // What these two say is that the file is not what it should be.
            redb::Error::Io(error)
                if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                Self::Io(error)
            }
            error => Self::Damaged(error.to_string()),
        }
    }
}

fn open_and_read(path: &Path) -> Result<PeerFile, Failure> {
    // The library asserts things about its own files that a damaged disk does not keep to.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let backend = FileBackend::new(open_file(path).map_err(Failure::Io)?).map_err(redb::Error::from)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(redb::Error::from)?;
        let read = read(&database)?;
        Ok(PeerFile { database: Arc::new(database), read: Mutex::new(read) })
    }));
    opened.unwrap_or_else(|_| Err(Failure::Damaged("it makes no sense".to_owned())))
}

fn open_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn read(database: &Database) -> Result<Vec<StoredPeer>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(PEERS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut peers = Vec::new();
    for entry in table.iter()? {
        let (peer, record) = entry?;
        // The node judges the records; a key that is no peer id never came from one.
        if let Ok(peer) = PeerId::from_bytes(peer.value()) {
            peers.push(StoredPeer { peer, record: Bytes::copy_from_slice(record.value()) });
        }
    }
    Ok(peers)
}

/// Moves a file out of the way, in place of one that was moved there before.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut aside = OsString::from(path);
    aside.push(".damaged");
    fs::rename(path, &aside)?;
    Ok(aside.into())
}
