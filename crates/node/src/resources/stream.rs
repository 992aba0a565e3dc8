//! What a stream holds, from the wish for it to its end.

use peerloom_core::ProtocolName;

use super::{Amounts, LimitExceeded, ResourceScope, Resources, reservation::Reservation};
use crate::connections::{ConnectionInfo, Direction};

/// Bytes that an idle stream takes, with the task of its handler.
const MEMORY: usize = 4 << 10;

/// A stream's reservations. Who negotiates holds it, then the stream.
pub(crate) struct StreamResources {
    resources: Resources,
    peer: peerloom_core::PeerId,
    amounts: Amounts,
    /// In the scopes of the system, of the connection and of the peer.
    _base: Reservation,
    /// Until the protocol is known.
    transient: Option<Reservation>,
    /// From then on.
    protocol: Option<Reservation>,
}

impl Resources {
    /// Room for a stream that does not say yet what it is for.
    pub(crate) fn stream(
        &self,
        connection: &ConnectionInfo,
        direction: Direction,
    ) -> Result<StreamResources, LimitExceeded> {
        let mut stream = self.new_stream(connection, direction)?;
        let scope = match connection.allow_listed {
            true => ResourceScope::AllowedTransient,
            false => ResourceScope::Transient,
        };
        stream.transient = Some(Reservation::new(self, &[scope], stream.amounts)?);
        Ok(stream)
    }

    /// Room for a stream for this protocol.
    pub(crate) fn stream_for(
        &self,
        connection: &ConnectionInfo,
        direction: Direction,
        protocol: &ProtocolName,
    ) -> Result<StreamResources, LimitExceeded> {
        let mut stream = self.new_stream(connection, direction)?;
        stream.negotiated(protocol)?;
        Ok(stream)
    }

    fn new_stream(
        &self,
        connection: &ConnectionInfo,
        direction: Direction,
    ) -> Result<StreamResources, LimitExceeded> {
        let mut amounts = Amounts { streams: 1, memory: MEMORY, ..Amounts::NONE };
        match direction {
            Direction::Inbound => amounts.inbound_streams = 1,
            Direction::Outbound => amounts.outbound_streams = 1,
        }
        let system = match connection.allow_listed {
            true => ResourceScope::AllowedSystem,
            false => ResourceScope::System,
        };
        let scopes = [ResourceScope::Connection(connection.id), ResourceScope::Peer(connection.peer), system];
        let base = Reservation::new(self, &scopes, amounts)?;
        Ok(StreamResources {
            resources: self.clone(),
            peer: connection.peer,
            amounts,
            _base: base,
            transient: None,
            protocol: None,
        })
    }
}

impl StreamResources {
    /// The stream is for `protocol`: no longer transient.
    pub(crate) fn negotiated(&mut self, protocol: &ProtocolName) -> Result<(), LimitExceeded> {
        let scopes = [
            ResourceScope::ProtocolPeer(protocol.clone(), self.peer),
            ResourceScope::Protocol(protocol.clone()),
        ];
        self.protocol = Some(Reservation::new(&self.resources, &scopes, self.amounts)?);
        self.transient = None;
        Ok(())
    }
}
