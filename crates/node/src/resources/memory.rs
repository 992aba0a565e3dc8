//! Memory that a protocol reserves for its own buffers.

use std::fmt;

use peerloom_core::{PeerId, ProtocolName};

use super::{Amounts, LimitExceeded, ResourceScope, Resources, reservation::Reservation};

/// Memory that a protocol may use on behalf of a peer, given back when this is dropped. See
/// [`Node::reserve_memory`](crate::Node::reserve_memory).
#[must_use = "what is reserved is given back when this is dropped"]
pub struct MemoryReservation(Reservation);

impl MemoryReservation {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.0.memory()
    }

    /// Makes it more or less. If there is not so much, it stays as it is.
    pub fn resize(&mut self, bytes: usize) -> Result<(), LimitExceeded> {
        self.0.resize_memory(bytes)
    }
}

impl fmt::Debug for MemoryReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReservation").field("bytes", &self.bytes()).finish()
    }
}

impl Resources {
    pub(crate) fn reserve_memory(
        &self,
        peer: PeerId,
        protocol: &ProtocolName,
        bytes: usize,
    ) -> Result<MemoryReservation, LimitExceeded> {
        let scopes = [
            ResourceScope::ProtocolPeer(protocol.clone(), peer),
            ResourceScope::Protocol(protocol.clone()),
            ResourceScope::Peer(peer),
            ResourceScope::System,
        ];
        let amounts = Amounts { memory: bytes, ..Amounts::NONE };
        Reservation::new(self, &scopes, amounts).map(MemoryReservation)
    }
}
