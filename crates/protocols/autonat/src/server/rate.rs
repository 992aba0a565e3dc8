//! How many requests a server serves.

use std::{collections::VecDeque, time::Duration};

use peerloom_core::{PeerId, runtime::Instant};

use crate::network::Network;

/// The time that [`Rates`] count in.
const WINDOW: Duration = Duration::from_secs(60);

/// What a server does for all clients and for one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rates {
    /// Requests within a minute.
    pub requests: usize,
    /// Those of one peer.
    pub requests_per_peer: usize,
    /// Those from one network: IPv4 of /24, IPv6 of /48.
    pub requests_per_network: usize,
    /// Those that cost dial data.
    pub requests_with_data: usize,
    /// Requests under way at one time.
    pub concurrent: usize,
    /// Those of one peer.
    pub concurrent_per_peer: usize,
}

impl Default for Rates {
    /// As go-libp2p has them, and a bound for networks.
    fn default() -> Self {
        Self {
            requests: 60,
            requests_per_peer: 12,
            requests_per_network: 24,
            requests_with_data: 12,
            concurrent: 16,
            concurrent_per_peer: 2,
        }
    }
}

/// The requests of the last minute, and those under way.
#[derive(Debug)]
pub struct RequestRates {
    rates: Rates,
    /// At most [`Rates::requests`].
    accepted: VecDeque<Accepted>,
    /// At most [`Rates::requests_with_data`].
    with_data: VecDeque<Instant>,
    /// At most [`Rates::concurrent`].
    under_way: Vec<PeerId>,
}

#[derive(Debug)]
struct Accepted {
    peer: PeerId,
    network: Network,
    at: Instant,
}

impl RequestRates {
    /// No request has come yet.
    pub fn new(rates: Rates) -> Self {
        Self { rates, accepted: VecDeque::new(), with_data: VecDeque::new(), under_way: Vec::new() }
    }

    /// Whether a request is served; then it is under way until [`finished`](Self::finished).
    pub(crate) fn accept(&mut self, peer: PeerId, network: Network, now: Instant) -> bool {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= WINDOW;
        while self.accepted.pop_front_if(|oldest| is_old(oldest.at)).is_some() {}
        let of_peer = self.accepted.iter().filter(|request| request.peer == peer).count();
        let of_network = self.accepted.iter().filter(|request| request.network == network).count();
        let under_way = self.under_way.iter().filter(|other| **other == peer).count();
        let accepts = self.accepted.len() < self.rates.requests
            && of_peer < self.rates.requests_per_peer
            && of_network < self.rates.requests_per_network
            && self.under_way.len() < self.rates.concurrent
            && under_way < self.rates.concurrent_per_peer;
        if accepts {
            self.accepted.push_back(Accepted { peer, network, at: now });
            self.under_way.push(peer);
        }
        accepts
    }

    /// Whether a request that was accepted may be one that costs dial data.
    pub(crate) fn accept_data(&mut self, now: Instant) -> bool {
        while self.with_data.pop_front_if(|at| now.saturating_duration_since(*at) >= WINDOW).is_some() {}
        let accepts = self.with_data.len() < self.rates.requests_with_data;
        if accepts {
            self.with_data.push_back(now);
        }
        accepts
    }

    /// A request of that peer is no longer under way.
    pub(crate) fn finished(&mut self, peer: PeerId) {
        if let Some(at) = self.under_way.iter().position(|other| *other == peer) {
            self.under_way.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::Keypair;

    use super::*;

    fn peer(number: u8) -> PeerId {
        Keypair::from_seed([number; 32]).peer_id()
    }

    fn network(number: u8) -> Network {
        Network::Ip([20, 0, number, 0].into())
    }

    fn serve(rates: &mut RequestRates, peer: PeerId, network: Network, now: Instant) -> bool {
        let accepted = rates.accept(peer, network, now);
        if accepted {
            rates.finished(peer);
        }
        accepted
    }

    #[test]
    fn each_peer_each_network_and_all_together_have_their_share_of_a_minute() {
        let (mut rates, now) = (RequestRates::new(Rates::default()), Instant::now());
        let of_peer = (0..100).filter(|_| serve(&mut rates, peer(1), network(1), now)).count();
        assert_eq!(of_peer, 12);
        let of_network = (2..102).filter(|number| serve(&mut rates, peer(*number), network(1), now)).count();
        assert_eq!(of_network, 12, "with the first twelve, 24");
        let of_all =
            (2..200).filter(|number| serve(&mut rates, peer(*number), network(*number), now)).count();
        assert_eq!(of_all, 36);
        assert!(!serve(&mut rates, peer(1), network(1), now + WINDOW - Duration::from_millis(1)));
        assert!(serve(&mut rates, peer(1), network(1), now + WINDOW));
        assert_eq!(rates.accepted.len(), 1);
    }

    #[test]
    fn requests_under_way_are_counted_until_they_are_over() {
        let (mut rates, now) = (RequestRates::new(Rates::default()), Instant::now());
        assert!(rates.accept(peer(1), network(1), now) && rates.accept(peer(1), network(1), now));
        assert!(!rates.accept(peer(1), network(1), now));
        rates.finished(peer(1));
        rates.finished(peer(9));
        assert!(rates.accept(peer(1), network(1), now));
        let others = (2..100).filter(|number| rates.accept(peer(*number), network(*number), now)).count();
        assert_eq!(others, 14);
    }

    #[test]
    fn those_that_cost_data_have_a_bound_of_their_own() {
        let (mut rates, now) = (RequestRates::new(Rates::default()), Instant::now());
        assert_eq!((0..100).filter(|_| rates.accept_data(now)).count(), 12);
        assert!(rates.accept_data(now + WINDOW));
    }
}
