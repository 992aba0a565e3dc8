//! Finds the peers that are gone without a word, and closes their connections.
//!
//! A transport's own keep-alive is not enough: Firefox now and then keeps the WebTransport session of a tab that was closed, and
//! its network process answers for it for as long as the browser runs. What proves that somebody is there is an answer to
//! a ping.

use std::{convert::Infallible, time::Duration};

use futures_util::future::join_all;
use peerloom_core::{NegotiationError, StreamError, runtime::sleep};
use peerloom_node::{
    ConnectionInfo, Node, OpenStreamError,
    ping::{PingError, ping},
};

/// Between two rounds. A peer that is gone is found within this and [`peerloom_node::ping::TIMEOUT`].
const INTERVAL: Duration = Duration::from_secs(15);

/// Pings every peer, round after round.
pub(crate) async fn watch(node: &Node) -> Infallible {
    loop {
        sleep(INTERVAL).await;
        // As many at a time as the node may have connections, which is a limit of its own.
        join_all(node.connections().iter().map(|connection| check(node, connection))).await;
    }
}

async fn check(node: &Node, connection: &ConnectionInfo) {
    let Err(error) = ping(node, connection).await else { return };
    if !is_answer(&error) {
        tracing::debug!(peer = %connection.peer, address = %connection.remote_address, %error, "nobody is there");
        node.close_connection(connection.id).await;
    }
}

/// Whether somebody must have been there to cause the error. A stream that is merely ended was ended by the browser itself.
fn is_answer(error: &PingError) -> bool {
    match error {
        PingError::WrongAnswer | PingError::Randomness(_) => true,
        PingError::Open(OpenStreamError::Negotiation { source, .. }) => {
            matches!(source, NegotiationError::NoCommonProtocol)
        }
        PingError::Stream(error) => {
            matches!(error, StreamError::ProtocolNotSupported | StreamError::Reset { .. })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use peerloom_core::{Keypair, ProtocolName};
    use peerloom_node::ping::{PROTOCOL, TIMEOUT};
    use peerloom_sim::Network;

    use super::*;

    async fn connected() -> (Node, Node) {
        let network = Network::new(Duration::from_millis(10));
        let [server, client] = [(); 2].map(|()| {
            let keypair = Keypair::generate();
            Node::builder(keypair.clone()).transport(network.transport(keypair)).answer_pings(false).build()
        });
        let address = server.listen("/memory/0".parse().unwrap()).await.unwrap().remove(0);
        client.dial(address).await.unwrap();
        (server, client)
    }

    async fn watch_for(server: &Node, time: Duration) {
        let _ = tokio::time::timeout(time, watch(server)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_leaves_pings_unanswered_is_closed() {
        let (server, client) = connected().await;
        let hold = |incoming| async move {
            let _held = incoming;
            std::future::pending().await
        };
        client.handle(ProtocolName::from_static(PROTOCOL), hold).unwrap();
        watch_for(&server, INTERVAL + TIMEOUT * 2).await;
        assert!(server.connections().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_know_pings_is_left_alone() {
        let (server, _client) = connected().await;
        watch_for(&server, (INTERVAL + TIMEOUT) * 4).await;
        assert_eq!(server.connections().len(), 1);
    }
}
