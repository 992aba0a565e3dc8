//! Several addresses of one peer, of which the first that works is wanted. RFC 8305, with libp2p's transports.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::Either, future::select, stream::FuturesUnordered};
use peerloom_core::{Connection, DialError, Multiaddr, Protocol, Transport, runtime::sleep};

/// Addresses that are dialed of those that a name stands for, at most.
const MAX_DIALED: usize = 16;
/// RFC 8305, section 5, "Connection Attempt Delay": what an address is ahead of the next.
const HEAD_START: Duration = Duration::from_millis(250);

type Candidate = (Arc<dyn Transport>, Multiaddr);

/// Dials until one dial has succeeded or all have failed; then the error that says most. `None` if there was nothing to dial.
pub(crate) async fn race(mut candidates: Vec<Candidate>) -> Option<Result<Box<dyn Connection>, DialError>> {
    // Stable: what DNS put first stays first among its like.
    candidates.sort_by_key(|(_, address)| rank(address));
    let mut waiting: VecDeque<_> = candidates.into_iter().take(MAX_DIALED).collect();
    let mut dials = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if let Some((transport, address)) = waiting.pop_front() {
            dials.push(transport.dial(address));
        } else if dials.is_empty() {
            return failure.map(Err);
        }
        let outcome = match waiting.is_empty() {
            true => dials.next().await,
            false => match select(dials.next(), pin!(sleep(HEAD_START))).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => None,
            },
        };
        match outcome {
            Some(Ok(connection)) => return Some(Ok(connection)),
            // Somebody who answered says more than somebody who did not.
            Some(Err(_)) if matches!(failure, Some(DialError::Handshake { .. })) => {}
            Some(Err(error)) => failure = Some(error),
            None => {}
        }
    }
}

/// UDP before TCP, for its handshake is shorter; IPv6 before IPv4.
fn rank(address: &Multiaddr) -> (bool, bool) {
    let is_udp = address.protocols().any(|protocol| matches!(protocol, Protocol::Udp(_)));
    let is_ip6 = matches!(address.protocols().next(), Some(Protocol::Ip6(_)));
    (!is_udp, !is_ip6)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use peerloom_core::{
        HandshakeError, ListenError, Listener,
        runtime::{BoxFuture, Instant},
    };

    use super::*;

    /// Fails each dial after as many milliseconds as the port says; port 0 never answers.
    #[derive(Clone, Default)]
    struct Failing {
        dials: Arc<AtomicUsize>,
    }

    impl Transport for Failing {
        fn can_dial(&self, _: &Multiaddr) -> bool {
            true
        }

        fn can_listen(&self, _: &Multiaddr) -> bool {
            false
        }

        fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
            let port = address.protocols().find_map(|protocol| match protocol {
                Protocol::Tcp(port) | Protocol::Udp(port) => Some(u64::from(port)),
                _ => None,
            });
            self.dials.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match port.unwrap() {
                    0 => std::future::pending().await,
                    milliseconds => sleep(Duration::from_millis(milliseconds)).await,
                }
                match port {
                    Some(2) => {
                        let source = HandshakeError::NoCommonProtocol { step: "test" };
                        Err(DialError::Handshake { address, source })
                    }
                    _ => Err(DialError::Unreachable { address, reason: "test".to_owned() }),
                }
            })
        }

        fn listen(&self, _: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
            Box::pin(std::future::pending())
        }
    }

    fn candidates(addresses: &[&str]) -> Vec<Candidate> {
        candidates_of(&Failing::default(), addresses)
    }

    fn candidates_of(transport: &Failing, addresses: &[&str]) -> Vec<Candidate> {
        let transport: Arc<dyn Transport> = Arc::new(transport.clone());
        addresses.iter().map(|address| (transport.clone(), address.parse().unwrap())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_dialed_at_once_after_a_failure_and_soon_after_silence() {
        let start = Instant::now();
        let outcome = race(candidates(&["/ip4/1.1.1.1/tcp/10", "/ip4/1.1.1.1/tcp/10"])).await;
        assert!(outcome.unwrap().is_err() && start.elapsed() < Duration::from_millis(30));

        let transport = Failing::default();
        let mut silent = Box::pin(race(candidates_of(&transport, &["/ip4/1.1.1.1/tcp/0"; 3])));
        for dialed in 1..=3 {
            assert!(tokio::time::timeout(HEAD_START / 2, &mut silent).await.is_err());
            assert_eq!(transport.dials.load(Ordering::Relaxed), dialed);
            assert!(tokio::time::timeout(HEAD_START / 2, &mut silent).await.is_err());
        }
        assert!(race(Vec::new()).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_answered_is_the_error_that_is_told() {
        let outcome = race(candidates(&["/ip4/1.1.1.1/tcp/1", "/ip4/1.1.1.1/tcp/2", "/ip4/1.1.1.1/tcp/3"]));
        assert!(matches!(outcome.await.unwrap().map(|_| ()), Err(DialError::Handshake { .. })));
    }

    #[test]
    fn udp_goes_before_tcp_and_ipv6_before_ipv4() {
        let mut addresses: Vec<Multiaddr> =
            ["/ip4/1.1.1.1/tcp/1", "/ip6/::1/tcp/1", "/ip4/1.1.1.1/udp/1", "/ip6/::1/udp/1"]
                .map(|address| address.parse().unwrap())
                .into();
        addresses.sort_by_key(rank);
        let expected = ["/ip6/::1/udp/1", "/ip4/1.1.1.1/udp/1", "/ip6/::1/tcp/1", "/ip4/1.1.1.1/tcp/1"];
        assert_eq!(addresses, expected.map(|address| address.parse().unwrap()));
    }
}
