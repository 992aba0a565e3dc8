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
