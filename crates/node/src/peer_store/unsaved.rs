//! What differs from storage.

use std::collections::{BTreeMap, BTreeSet};

use peerloom_core::PeerId;
use tokio::sync::futures::Notified;

use super::{
    PeerChange, PeerStore, StoredPeer,
    stored::{self, StoredPeerError},
};
use crate::wall_clock::unix_millis;

/// Peers that are to be taken out of storage and are not yet, because it does not take the changes. Of more, those beyond are taken
/// out when they are read the next time.
const MAX_REMOVED: usize = 4096;

/// The peers that are to be written.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    /// All of them have a record, so they are as bounded as those.
    changed: BTreeSet<PeerId>,
    /// With the version that is to go, if it is not whichever there is.
    removed: BTreeMap<PeerId, Option<u64>>,
}

impl Unsaved {
    pub(super) fn changed(&mut self, peer: PeerId) {
        self.changed.insert(peer);
        self.removed.remove(&peer);
    }

    /// The record is gone, of which storage has this version.
    pub(super) fn removed(&mut self, peer: PeerId, stamp: Option<u64>) {
        self.changed.remove(&peer);
        if stamp.is_some() {
            self.remove(peer, stamp);
        }
    }

    /// Whatever there is has to go.
    pub(super) fn forgotten(&mut self, peer: PeerId) {
        self.changed.remove(&peer);
        self.remove(peer, None);
    }

    fn remove(&mut self, peer: PeerId, stamp: Option<u64>) {
        if self.removed.len() < MAX_REMOVED || self.removed.contains_key(&peer) {
            self.removed.insert(peer, stamp);
        }
    }
}

impl PeerStore {
    /// Takes over what was stored, and keeps account of what changes from now on. What is no record is left aside and taken out
    /// of storage.
    pub(super) fn restore(&self, stored: Vec<StoredPeer>) {
        let (now, clock) = (self.now(), unix_millis());
        let mut peers = self.inner.write();
        peers.unsaved = Some(Unsaved::default());
        let mut refused = 0_usize;
        for StoredPeer { peer, record } in stored {
            let (record, changed) = match stored::decode(peer, &record, clock, now) {
                Ok(read) => read,
                // Another version of this software may want it yet.
                Err(StoredPeerError::Version(version)) => {
                    tracing::debug!(%peer, version, "a stored peer is of another version");
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "a stored peer is unreadable");
                    refused = refused.saturating_add(1);
                    peers.unsaved.iter_mut().for_each(|unsaved| unsaved.forgotten(peer));
                    continue;
                }
            };
            if !record.is_worth_keeping() || !self.enter(&mut peers, peer, now) {
                peers.unsaved.iter_mut().for_each(|unsaved| unsaved.removed(peer, record.stamp));
                continue;
            }
            peers.records.insert(peer, record);
            self.settle(&mut peers, peer);
            if changed {
                peers.changed(peer);
            }
        }
        if refused > 0 {
            tracing::warn!(refused, "some of what was known of peers is unreadable and is forgotten");
        }
        drop(peers);
        self.unsaved_changes.notify_one();
    }

    /// Ready when there is something to write.
    pub(super) fn unsaved_changes(&self) -> Notified<'_> {
        self.unsaved_changes.notified()
    }

    /// What is to be written, no more than so many; from here on it is its caller's.
    pub(super) fn take_unsaved(&self, at_most: usize) -> Vec<PeerChange> {
        let (now, clock) = (self.now(), unix_millis());
        let mut peers = self.inner.write();
        let Some(mut unsaved) = peers.unsaved.take() else { return Vec::new() };
        let mut changes = Vec::new();
        while changes.len() < at_most {
            let Some((peer, stamp)) = unsaved.removed.pop_first() else { break };
            changes.push(PeerChange::Remove { peer, stamp });
        }
        while changes.len() < at_most {
            let Some(peer) = unsaved.changed.pop_first() else { break };
            let Some(record) = peers.records.get_mut(&peer) else { continue };
            if record.is_worth_keeping() {
                let bytes = stored::encode(peer, record, clock, now);
                record.stamp = Some(clock);
                changes.push(PeerChange::Put { peer, record: bytes.into(), stamp: clock });
            } else if let Some(stamp) = record.stamp.take() {
                changes.push(PeerChange::Remove { peer, stamp: Some(stamp) });
            }
        }
        peers.unsaved = Some(unsaved);
        changes
    }

    /// Takes changes back that were not written. What has happened to the peers since counts more.
    pub(super) fn put_back(&self, changes: Vec<PeerChange>) {
        let mut peers = self.inner.write();
        let peers = &mut *peers;
        let Some(unsaved) = &mut peers.unsaved else { return };
        for change in changes {
            match change {
                PeerChange::Put { peer, .. } if peers.records.contains_key(&peer) => unsaved.changed(peer),
                PeerChange::Remove { peer, stamp } if !peers.records.contains_key(&peer) => {
                    unsaved.remove(peer, stamp);
                }
                PeerChange::Remove { peer, .. } => unsaved.changed(peer),
                PeerChange::Put { .. } => {}
            }
        }
    }

    /// Forgets what nobody believes any more, here and in storage.
    pub(super) fn sweep(&self) {
        let now = self.now();
        let mut peers = self.inner.write();
        let peers = &mut *peers;
        let mut useless = Vec::new();
        for (peer, record) in &mut peers.records {
            if peers.connected.contains(peer) || !record.addresses.iter().any(|known| known.is_expired(now)) {
                continue;
            }
            record.forget_expired(now);
            if !record.is_worth_keeping() {
                useless.push(*peer);
            } else if let Some(unsaved) = &mut peers.unsaved {
                unsaved.changed(*peer);
            }
        }
        for peer in useless {
            peers.remove(peer);
        }
    }
}
