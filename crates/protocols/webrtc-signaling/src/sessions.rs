//! Which direct connections are being made.

use std::{collections::HashMap, sync::Arc};

use peerloom_core::PeerId;

use crate::Shared;

#[derive(Default)]
pub(crate) struct Sessions {
    by_peer: HashMap<PeerId, OfPeer>,
    inbound: usize,
}

#[derive(Default)]
struct OfPeer {
    inbound: usize,
    outbound: usize,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.by_peer.values().map(|of_peer| of_peer.inbound.saturating_add(of_peer.outbound)).sum()
    }

    /// Whether a connection to `peer` is being made, by either side.
    pub(crate) fn contains(&self, peer: PeerId) -> bool {
        self.by_peer.contains_key(&peer)
    }
}

/// One of them, for as long as it lives.
pub(crate) struct Slot {
    shared: Arc<Shared>,
    peer: PeerId,
    inbound: bool,
}

impl Shared {
    /// For a session that we begin: as many as somebody here dials.
    pub(crate) fn outbound_slot(self: &Arc<Self>, peer: PeerId) -> Slot {
        let mut sessions = self.sessions.lock();
        let of_peer = sessions.by_peer.entry(peer).or_default();
        of_peer.outbound = of_peer.outbound.saturating_add(1);
        Slot { shared: self.clone(), peer, inbound: false }
    }

    /// For a session that `peer` begins, unless there are too many.
    pub(crate) fn inbound_slot(self: &Arc<Self>, peer: PeerId) -> Option<Slot> {
        let mut sessions = self.sessions.lock();
        let of_peer = sessions.by_peer.get(&peer).map_or(0, |of_peer| of_peer.inbound);
        if sessions.inbound >= self.config.inbound_sessions
            || of_peer >= self.config.inbound_sessions_per_peer
        {
            return None;
        }
        sessions.inbound = sessions.inbound.saturating_add(1);
        sessions.by_peer.entry(peer).or_default().inbound = of_peer.saturating_add(1);
        Some(Slot { shared: self.clone(), peer, inbound: true })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut sessions = self.shared.sessions.lock();
        if self.inbound {
            sessions.inbound = sessions.inbound.saturating_sub(1);
        }
        let Some(of_peer) = sessions.by_peer.get_mut(&self.peer) else { return };
        let count = if self.inbound { &mut of_peer.inbound } else { &mut of_peer.outbound };
        *count = count.saturating_sub(1);
        if of_peer.inbound == 0 && of_peer.outbound == 0 {
            sessions.by_peer.remove(&self.peer);
        }
    }
}
