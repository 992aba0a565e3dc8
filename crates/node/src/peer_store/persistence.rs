//! What is known of peers outlives the node: read when it starts, written behind its back.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use peerloom_core::{
    PeerId,
    runtime::{BoxFuture, MaybeSend, MaybeSync, sleep},
};
use tokio::sync::Mutex;

use super::PeerStore;

/// Changes that come within this time of the first are written together. What is younger is lost if the process is killed.
const WRITE_DELAY: Duration = Duration::from_secs(1);
/// Peers in one write.
const WRITE_BATCH: usize = 256;
/// The wait after a write that failed; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// How often what has expired is taken out of storage.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// A place where what is known of peers outlives the node: bytes for each peer, which mean nothing to it.
///
/// ```
/// use std::{collections::BTreeMap, sync::{Arc, Mutex}};
///
/// use peerloom_core::{PeerId, runtime::BoxFuture};
/// use peerloom_node::{PeerChange, PeerStorage, PeerStorageError, StoredPeer};
///
/// /// Outlives a node, but not the process.
/// #[derive(Default, Clone)]
/// struct InMemory(Arc<Mutex<BTreeMap<PeerId, bytes::Bytes>>>);
///
/// impl PeerStorage for InMemory {
///     fn load(&self, at_most: usize) -> Result<Vec<StoredPeer>, PeerStorageError> {
///         let peers = self.0.lock().unwrap();
///         let peers = peers.iter().map(|(peer, record)| StoredPeer { peer: *peer, record: record.clone() });
///         Ok(peers.take(at_most).collect())
///     }
///
///     fn write(&self, changes: Vec<PeerChange>) -> BoxFuture<'static, Result<(), PeerStorageError>> {
///         let mut peers = self.0.lock().unwrap();
///         for change in changes {
///             match change {
///                 PeerChange::Put { peer, record, .. } => peers.insert(peer, record),
///                 PeerChange::Remove { peer, .. } => peers.remove(&peer),
///             };
///         }
///         Box::pin(async { Ok(()) })
///     }
/// }
/// ```
pub trait PeerStorage: MaybeSend + MaybeSync + 'static {
    /// What is there, in any order, but no more than so many. Called once, when the node starts.
    fn load(&self, at_most: usize) -> Result<Vec<StoredPeer>, PeerStorageError>;

    /// Makes these changes, all or none. Never called again before it has answered; what failed is tried again later, and merged
    /// with what has changed since. The future may be dropped when the node ends, which must leave no half of them behind.
    fn write(&self, changes: Vec<PeerChange>) -> BoxFuture<'static, Result<(), PeerStorageError>>;
}

/// A peer in storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPeer {
    /// Whose record it is.
    pub peer: PeerId,
    /// At most [`MAX_STORED_BYTES`](crate::MAX_STORED_BYTES). What is no record, or of a later version, is skipped.
    pub record: Bytes,
}

/// A change to a peer in storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// What is to be there, in place of what was.
    Put {
        /// The peer.
        peer: PeerId,
        /// Its record.
        record: Bytes,
        /// Names this version of the record, for [`Remove`](Self::Remove).
        stamp: u64,
    },
    /// Nothing is to be there any more.
    Remove {
        /// The peer.
        peer: PeerId,
        /// The version that is out of date; one that another node of the same storage has put there since should stay. `None` if
        /// the peer is to be forgotten whatever is there.
        stamp: Option<u64>,
    },
}

/// Storage that does not do what it should, in its own words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct PeerStorageError(String);

impl PeerStorageError {
    /// With this reason.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// Writes what changes in a [`PeerStore`].
pub(crate) struct Keeper {
    /// Until the node ends.
    storage: parking_lot::Mutex<Option<Arc<dyn PeerStorage>>>,
    /// One write at a time.
    writing: Mutex<()>,
}

impl Keeper {
    /// Fills `store` with what is in `storage`. If that cannot be read, nothing is written to it either.
    pub(crate) fn load(storage: Arc<dyn PeerStorage>, store: &PeerStore) -> Option<Self> {
        match storage.load(store.capacity()) {
            Ok(peers) => store.restore(peers),
            Err(error) => {
                tracing::warn!(%error, "what was known of peers cannot be read, and will not be kept");
                return None;
            }
        }
        Some(Self { storage: Some(storage).into(), writing: Mutex::default() })
    }

    /// Writes what changes, for ever.
    pub(crate) async fn run(&self, store: &PeerStore) {
        loop {
            tokio::select! {
                biased;
                () = store.unsaved_changes() => {}
                () = sleep(SWEEP_INTERVAL) => store.sweep(),
            }
            sleep(WRITE_DELAY).await;
            let mut retry = FIRST_RETRY;
            while let Err(error) = self.flush(store).await {
                // Full disks and quotas are no reason to bother anybody again and again.
                if retry == FIRST_RETRY {
                    tracing::warn!(%error, "what is known of peers cannot be written; trying again");
                }
                sleep(retry).await;
                retry = retry.saturating_mul(2).min(LAST_RETRY);
            }
        }
    }

    /// Lets go of the storage, so that the next node can have it.
    pub(crate) fn release(&self) {
        self.storage.lock().take();
    }

    /// Writes what is not written yet.
    pub(crate) async fn flush(&self, store: &PeerStore) -> Result<(), PeerStorageError> {
        let _one_at_a_time = self.writing.lock().await;
        loop {
            let Some(storage) = self.storage.lock().clone() else { return Ok(()) };
            let changes = store.take_unsaved(WRITE_BATCH);
            if changes.is_empty() {
                return Ok(());
            }
            if let Err(error) = storage.write(changes.clone()).await {
                store.put_back(changes);
                return Err(error);
            }
        }
    }
}
