//! Connections through a relay, and direct ones that are being made in their place.

use std::sync::Arc;

use peerloom_core::PeerId;

use crate::node::Shared;

impl Shared {
    /// Whether somebody works on a direct connection to `peer`.
    pub(crate) fn expects_direct(&self, peer: PeerId) -> bool {
        self.expected_direct.lock().contains_key(&peer)
    }

    pub(crate) fn expect_direct(self: &Arc<Self>, peer: PeerId) -> ExpectDirect {
        let mut expected = self.expected_direct.lock();
        let guards = expected.entry(peer).or_default();
        *guards = guards.saturating_add(1);
        drop(expected);
        ExpectDirect { shared: self.clone(), peer }
    }
}

/// As long as it lives, streams that may not use a limited connection to the peer wait for a direct one. Whoever holds it is
/// making that one, and sets the deadline.
#[must_use = "streams wait only as long as this lives"]
pub struct ExpectDirect {
    shared: Arc<Shared>,
    peer: PeerId,
}

impl Drop for ExpectDirect {
    fn drop(&mut self) {
        let mut expected = self.shared.expected_direct.lock();
        if let Some(guards) = expected.get_mut(&self.peer) {
            *guards = guards.saturating_sub(1);
            if *guards == 0 {
                expected.remove(&self.peer);
            }
        }
        drop(expected);
        self.shared.connection_changes.send_replace(());
    }
}
