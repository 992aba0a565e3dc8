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
