//! Addresses that lead through a relay: `<where the relay is>/p2p/<relay>/p2p-circuit[/p2p/<destination>]`.

use peerloom_core::{Multiaddr, PeerId, Protocol};
use peerloom_node::DialTarget;

/// An address through one relay, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CircuitAddress {
    pub(crate) relay: PeerId,
    /// Where the relay is, ending in `/p2p/<relay>`; nothing but that if the address says no more.
    pub(crate) relay_address: Multiaddr,
    pub(crate) destination: Option<PeerId>,
}

impl CircuitAddress {
    /// `None` for an address that leads through no relay, through more than one, or through one without a name, and for one
    /// that goes on after the circuit (`/webrtc`).
    pub(crate) fn parse(address: &Multiaddr) -> Option<Self> {
        let mut protocols = address.protocols();
        let mut before = Vec::new();
        loop {
            match protocols.next()? {
                Protocol::P2pCircuit => break,
                protocol => before.push(protocol),
            }
        }
        let Some(Protocol::P2p(relay)) = before.last() else { return None };
        let relay = *relay;
        let destination = match (protocols.next(), protocols.next()) {
            (None, _) => None,
            (Some(Protocol::P2p(destination)), None) => Some(destination),
            _ => return None,
        };
        Some(Self { relay, relay_address: Multiaddr::from_protocols(before), destination })
    }

    /// Through the relay at `address`, to nobody in particular.
    pub(crate) fn at(relay: PeerId, address: &Multiaddr) -> Self {
        Self { relay, relay_address: address.with_peer_id(relay), destination: None }
    }

    /// What to dial to reach the relay.
    pub(crate) fn relay_target(&self) -> DialTarget {
        match self.says_where() {
            true => self.relay_address.clone().into(),
            false => self.relay.into(),
        }
    }

    /// Whether the address says where the relay is, and not only who.
    pub(crate) fn says_where(&self) -> bool {
        self.relay_address.protocols().count() > 1
    }
}

/// The address that leads through the relay at `address`, up to the destination.
pub(crate) fn through(relay: PeerId, address: &Multiaddr) -> Multiaddr {
    address.with_peer_id(relay).with(Protocol::P2pCircuit)
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;

    fn peer(seed: u8) -> PeerId {
        Keypair::from_seed([seed; 32]).peer_id()
    }

    fn parse(text: &str) -> Option<CircuitAddress> {
        CircuitAddress::parse(&text.parse().unwrap())
    }

    #[test]
    fn an_address_through_a_relay_is_taken_apart() {
        let (relay, destination) = (peer(1), peer(2));
        let circuit =
            parse(&format!("/ip4/1.2.3.4/tcp/1/p2p/{relay}/p2p-circuit/p2p/{destination}")).unwrap();
        let relay_address: Multiaddr = format!("/ip4/1.2.3.4/tcp/1/p2p/{relay}").parse().unwrap();
        assert_eq!((circuit.relay, circuit.destination), (relay, Some(destination)));
        assert_eq!(circuit.relay_target(), relay_address.clone().into());
        assert_eq!(
            through(relay, &relay_address.without_peer_id()),
            relay_address.with(Protocol::P2pCircuit)
        );

        let anywhere = parse(&format!("/p2p/{relay}/p2p-circuit")).unwrap();
        assert_eq!((anywhere.relay_target(), anywhere.destination), (relay.into(), None));
    }

    #[test]
    fn addresses_that_lead_elsewhere_are_not_ours() {
        let (relay, destination) = (peer(1), peer(2));
        for address in [
            "/ip4/1.2.3.4/tcp/1".to_owned(),
            "/p2p-circuit".to_owned(),
            format!("/ip4/1.2.3.4/tcp/1/p2p-circuit/p2p/{destination}"),
            format!("/p2p/{relay}/p2p-circuit/webrtc/p2p/{destination}"),
            format!("/p2p/{relay}/p2p-circuit/p2p/{destination}/p2p-circuit"),
            format!("/p2p/{relay}/p2p-circuit/p2p/{destination}/p2p-circuit/p2p/{relay}"),
        ] {
            assert_eq!(parse(&address), None, "{address}");
        }
    }
}
