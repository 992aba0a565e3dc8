//! What a connection holds, from the first sign of it to its end.

use std::net::IpAddr;

use peerloom_core::{Multiaddr, PeerId, Protocol};

use super::{Amounts, LimitExceeded, ResourceScope, Resources, reservation::Reservation};
use crate::{
    connections::{ConnectionId, Direction},
    gating::IpNetwork,
};

/// Bytes that an idle connection takes, as measured (docs/benchmarks.md) and rounded up: Noise or TLS and Yamux.
const STREAM_SOCKET_MEMORY: usize = 8 << 10;
/// The same over QUIC.
const QUIC_MEMORY: usize = 40 << 10;
/// The same over DTLS and SCTP.
const WEBRTC_MEMORY: usize = 32 << 10;

/// A connection's reservations. The handshake holds it, then the node's entry of the connection.
pub(crate) struct ConnectionResources {
    resources: Resources,
    amounts: Amounts,
    /// Where the remote's packets come from, if it has dialed this node.
    origin: Option<IpAddr>,
    /// Where they come from or go to, whoever has dialed.
    ip: Option<IpAddr>,
    allow_listed: bool,
    /// In the system's scope and in those of the networks. The last to go.
    base: Reservation,
    /// Until the peer is known.
    transient: Option<Reservation>,
    /// From then on: in the scopes of the peer and of the connection.
    established: Option<Reservation>,
}

impl Resources {
    /// Room for somebody who dials, before anything is done for them.
    pub(crate) fn incoming(&self, remote_address: &Multiaddr) -> Result<ConnectionResources, LimitExceeded> {
        self.connection(remote_address, Direction::Inbound)
    }

    /// Room for a dial.
    pub(crate) fn outgoing(&self, address: &Multiaddr) -> Result<ConnectionResources, LimitExceeded> {
        self.connection(address, Direction::Outbound)
    }

    fn connection(
        &self,
        address: &Multiaddr,
        direction: Direction,
    ) -> Result<ConnectionResources, LimitExceeded> {
        let amounts = price(address, direction);
        let ip = ip(address);
        let origin = ip.filter(|_| direction == Direction::Inbound);
        let (base, transient, allow_listed) = match self.transient(origin, amounts) {
            Ok((base, transient)) => (base, transient, false),
            Err(full) if self.may_be_allowed(ip, address.peer_id(), direction) => {
                // What was in the way, rather than that the allow list is full, too.
                let of_allow_list = || {
                    let base = Reservation::new(self, &[ResourceScope::AllowedSystem], amounts)?;
                    Ok((base, Reservation::new(self, &[ResourceScope::AllowedTransient], amounts)?))
                };
                let (base, transient) = of_allow_list().map_err(|_: LimitExceeded| full)?;
                (base, transient, true)
            }
            Err(full) => return Err(full),
        };
        Ok(ConnectionResources {
            resources: self.clone(),
            amounts,
            origin,
            ip,
            allow_listed,
            base,
            transient: Some(transient),
            established: None,
        })
    }

    fn transient(
        &self,
        origin: Option<IpAddr>,
        amounts: Amounts,
    ) -> Result<(Reservation, Reservation), LimitExceeded> {
        let networks = self.networks_of(origin);
        // The narrowest first, so that the refusal names whom it is about.
        let mut scopes: Vec<_> = networks.iter().copied().map(ResourceScope::TransientNetwork).collect();
        scopes.push(ResourceScope::Transient);
        let transient = Reservation::new(self, &scopes, amounts)?;
        Ok((Reservation::new(self, &base_scopes(&networks), amounts)?, transient))
    }

    fn networks_of(&self, origin: Option<IpAddr>) -> Vec<IpNetwork> {
        origin.map(|ip| self.0.accounts.lock().limits().networks_of(ip)).unwrap_or_default()
    }

    /// Whether the allow list has them, or could have them for all that is known.
    fn may_be_allowed(&self, ip: Option<IpAddr>, peer: Option<PeerId>, direction: Direction) -> bool {
        let accounts = self.0.accounts.lock();
        let allow = &accounts.limits().allow;
        allow.has_ip(ip)
            || match (peer, direction) {
                (Some(peer), Direction::Outbound) => allow.peers.contains(&peer),
                _ => !allow.peers.is_empty(),
            }
    }

    fn is_allowed(&self, ip: Option<IpAddr>, peer: PeerId) -> bool {
        let accounts = self.0.accounts.lock();
        let allow = &accounts.limits().allow;
        allow.has_ip(ip) || allow.peers.contains(&peer)
    }
}

impl ConnectionResources {
    /// The remote has proved to be `peer`: no longer transient. Takes the place that `replaced` had in the scope of the peer, if
    /// it is given; that one keeps its place, and this stays transient, if it cannot be had.
    pub(crate) fn establish(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        replaced: Option<&mut Self>,
    ) -> Result<(), LimitExceeded> {
        if self.allow_listed && !self.resources.is_allowed(self.ip, peer) {
            let networks = self.resources.networks_of(self.origin);
            self.base = Reservation::new(&self.resources, &base_scopes(&networks), self.amounts)?;
            self.allow_listed = false;
        }
        let scopes = [ResourceScope::Connection(id), ResourceScope::Peer(peer)];
        let replaced = replaced.map_or(&mut self.established, |replaced| &mut replaced.established);
        let established = Reservation::instead_of(replaced, &self.resources, &scopes, self.amounts)?;
        self.established = Some(established);
        self.transient = None;
        Ok(())
    }

    /// Whether it counts in the scopes of the allow list, and its streams, too.
    pub(crate) fn is_allow_listed(&self) -> bool {
        self.allow_listed
    }

    /// The peer no longer counts it: it is about to close. The system does until this is dropped.
    pub(crate) fn leave_peer(&mut self) {
        self.established = None;
    }
}

fn base_scopes(networks: &[IpNetwork]) -> Vec<ResourceScope> {
    let networks = networks.iter().copied().map(ResourceScope::Network);
    networks.chain([ResourceScope::System]).collect()
}

/// What a connection of this transport takes while nothing happens on it.
fn price(address: &Multiaddr, direction: Direction) -> Amounts {
    let mut price = Amounts { connections: 1, memory: STREAM_SOCKET_MEMORY, ..Amounts::NONE };
    match direction {
        Direction::Inbound => price.inbound_connections = 1,
        Direction::Outbound => price.outbound_connections = 1,
    }
    for protocol in address.protocols() {
        match protocol {
            // A socket for each. On UDP one socket is all of a port's.
            Protocol::Tcp(_) | Protocol::Unix(_) => price.descriptors = 1,
            Protocol::QuicV1 | Protocol::Quic => price.memory = QUIC_MEMORY,
            Protocol::WebRtcDirect | Protocol::WebRtc => price.memory = WEBRTC_MEMORY,
            // It has none of its own. What comes behind is what it carries.
            Protocol::P2pCircuit => {
                price.descriptors = 0;
                price.memory = STREAM_SOCKET_MEMORY;
            }
            _ => {}
        }
    }
    // A page has no descriptors.
    if cfg!(target_arch = "wasm32") {
        price.descriptors = 0;
    }
    price
}

/// Where the remote is itself: not where its relay is, through which many others may come.
fn ip(address: &Multiaddr) -> Option<IpAddr> {
    if address.is_relayed() {
        return None;
    }
    address.protocols().find_map(|protocol| match protocol {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_costs_what_its_transport_takes_and_is_where_its_address_says() {
        let relay =
            Multiaddr::from_protocols([Protocol::P2p(peerloom_core::Keypair::from_seed([1; 32]).peer_id())]);
        for (text, descriptors, memory, has_ip) in [
            ("/ip4/192.0.2.1/tcp/4001".to_owned(), 1, STREAM_SOCKET_MEMORY, true),
            ("/ip6/2001:db8::1/tcp/443/tls/ws".to_owned(), 1, STREAM_SOCKET_MEMORY, true),
            ("/dns4/example.com/tcp/443/tls/ws".to_owned(), 1, STREAM_SOCKET_MEMORY, false),
            ("/ip4/192.0.2.1/udp/4001/quic-v1/webtransport".to_owned(), 0, QUIC_MEMORY, true),
            ("/ip4/192.0.2.1/udp/4001/webrtc-direct".to_owned(), 0, WEBRTC_MEMORY, true),
            (format!("/ip4/192.0.2.1/tcp/4001{relay}/p2p-circuit"), 0, STREAM_SOCKET_MEMORY, false),
            (format!("/ip4/192.0.2.1/udp/1/quic-v1{relay}/p2p-circuit/webrtc"), 0, WEBRTC_MEMORY, false),
            ("/memory/7".to_owned(), 0, STREAM_SOCKET_MEMORY, false),
        ] {
            let address = text.parse().unwrap();
            let price = price(&address, Direction::Inbound);
            assert_eq!((price.descriptors, price.memory), (descriptors, memory), "{text}");
            assert_eq!((price.connections, price.inbound_connections, price.outbound_connections), (1, 1, 0));
            assert_eq!(ip(&address).is_some(), has_ip, "{text}");
        }
    }
}
