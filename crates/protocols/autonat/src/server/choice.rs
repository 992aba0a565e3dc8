//! Which of a client's addresses a server dials, and whether that costs the client something.

use std::net::IpAddr;

use peerloom_core::{Multiaddr, PeerId, Protocol, Scope};

use crate::network::ip;

/// What is done about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// None of the addresses is dialed.
    Refuse,
    /// This one is.
    Dial {
        /// Its place in the request.
        index: u32,
        /// The address, with the client's peer id at its end.
        address: Multiaddr,
        /// Whether the client is asked for data before, because the address may be somebody else's.
        costs: bool,
    },
}

/// The first of the addresses that is dialed for `client`, whom we see at `observed`; the others MUST NOT be.
///
/// Names are not dialed: they may lead into networks of ours. Nor are private addresses, unless `private`.
pub fn choose(
    addresses: &[Option<Multiaddr>],
    client: PeerId,
    observed: Option<&Multiaddr>,
    private: bool,
    can_dial: impl Fn(&Multiaddr) -> bool,
) -> Choice {
    let observed = observed.filter(|observed| !observed.is_relayed()).and_then(ip);
    for (index, address) in (0..).zip(addresses) {
        let Some((ip, address)) = address.as_ref().and_then(|address| dialable(address, client, private))
        else {
            continue;
        };
        if can_dial(&address) {
            return Choice::Dial { index, address, costs: observed != Some(ip) };
        }
    }
    Choice::Refuse
}

fn dialable(address: &Multiaddr, client: PeerId, private: bool) -> Option<(IpAddr, Multiaddr)> {
    let ip = ip(address)?;
    let is_clients = address.peer_id().is_none_or(|peer| peer == client);
    let has_port = match address.protocols().nth(1)? {
        Protocol::Tcp(port) | Protocol::Udp(port) => port != 0,
        _ => false,
    };
    let is_allowed = Scope::of(ip) == Scope::Internet || (private && !ip.is_unspecified());
    let is_dialable = is_clients && has_port && is_allowed && !address.is_relayed();
    is_dialable.then(|| (ip, address.without_peer_id().with_peer_id(client)))
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;

    fn client() -> PeerId {
        Keypair::from_seed([1; 32]).peer_id()
    }

    fn choose_of(addresses: &[&str], observed: &str, private: bool) -> Choice {
        let addresses: Vec<Option<Multiaddr>> =
            addresses.iter().map(|address| address.parse().ok()).collect();
        let can_dial = |address: &Multiaddr| !address.to_string().contains("quic");
        choose(&addresses, client(), Some(&observed.parse().unwrap()), private, can_dial)
    }

    fn dial(index: u32, address: &str, costs: bool) -> Choice {
        Choice::Dial { index, address: address.parse::<Multiaddr>().unwrap().with_peer_id(client()), costs }
    }

    const OBSERVED: &str = "/ip4/20.0.0.1/tcp/50000";

    #[test]
    fn the_first_address_that_can_be_dialed_is_and_costs_data_if_it_is_elsewhere() {
        let addresses =
            ["no address", "/ip4/20.0.0.1/udp/1/quic-v1", "/ip4/20.0.0.1/tcp/1", "/ip4/20.0.0.2/tcp/1"];
        assert_eq!(choose_of(&addresses, OBSERVED, false), dial(2, addresses[2], false));
        assert_eq!(choose_of(&addresses[3..], OBSERVED, false), dial(0, addresses[3], true));
        assert_eq!(
            choose_of(&["/ip4/20.0.0.1/tcp/1"], "/ip4/20.0.0.1/tcp/1/p2p-circuit", false),
            dial(0, "/ip4/20.0.0.1/tcp/1", true),
            "a relay's address is not the client's"
        );
        assert_eq!(
            choose_of(&["/ip6/::ffff:20.0.0.1/tcp/1"], OBSERVED, false),
            dial(0, "/ip6/::ffff:20.0.0.1/tcp/1", false)
        );
        assert_eq!(choose_of(&[], OBSERVED, false), Choice::Refuse);
    }

    #[test]
    fn what_may_lead_into_a_network_of_ours_or_to_another_peer_is_refused() {
        let stranger = Keypair::from_seed([2; 32]).peer_id();
        for address in [
            "/ip4/127.0.0.1/tcp/22",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/100.64.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/::ffff:10.0.0.1/tcp/1",
            "/ip6/64:ff9b::a00:1/tcp/1",
            "/ip6/2002:a00:1::1/tcp/1",
            "/dns/localhost/tcp/1",
            "/dns4/example.org/tcp/1",
            "/ip4/20.0.0.1/tcp/0",
            "/ip4/20.0.0.1/tcp/1/p2p-circuit",
            &format!("/ip4/20.0.0.1/tcp/1/p2p/{stranger}"),
            "/memory/1",
        ] {
            assert_eq!(choose_of(&[address], OBSERVED, false), Choice::Refuse, "{address}");
        }
        let private = "/ip4/10.0.0.1/tcp/1";
        assert_eq!(choose_of(&[private], OBSERVED, true), dial(0, private, true));
        assert_eq!(
            choose_of(&["/ip4/0.0.0.0/tcp/1", "/dns/localhost/tcp/1"], OBSERVED, true),
            Choice::Refuse
        );
    }
}
