//! What every transport must do, as tests that are written once, against the traits alone.
//!
//! A transport's `tests/suite.rs` names its subject and runs them all:
//!
//! ```ignore
//! peerloom_transport_suite::suite!(subject);
//!
//! async fn subject() -> Subject {
//!     Subject::new(TcpTransport::new, "/ip4/127.0.0.1/tcp/0")
//! }
//! ```

// The whole crate is tests; clippy takes only the functions marked as such for those.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod certificates;
mod connections;
mod host;
mod streams;

use std::{sync::Arc, time::Duration};

use peerloom_core::{Keypair, Multiaddr, Transport, runtime::BoxFuture};

pub use crate::{connections::*, streams::*};

/// A transport, as the suite needs it.
pub struct Subject {
    /// A host's transport, with the identity that it proves.
    pub transport: Box<dyn Fn(Keypair) -> Arc<dyn Transport> + Send + Sync>,
    /// What to listen on: any free port.
    pub listen_on: Multiaddr,
    /// How many streams are opened at once in [`many_streams_at_once`]; 1,000, unless the transport's own limit is lower.
    pub streams: usize,
    /// Sends to the socket of a listener what does not belong there, where it has a socket.
    pub garbage: Option<Garbage>,
}

/// Sends bytes that are none of the transport's to the socket with this address.
pub type Garbage = Box<dyn Fn(Multiaddr, Vec<u8>) -> BoxFuture<'static, ()> + Send + Sync>;

impl Subject {
    /// A subject with nothing special.
    pub fn new<T: Transport>(
        transport: impl Fn(Keypair) -> T + Send + Sync + 'static,
        listen_on: &str,
    ) -> Self {
        Self {
            transport: Box::new(move |keypair| Arc::new(transport(keypair))),
            listen_on: listen_on.parse().unwrap(),
            streams: 1000,
            garbage: None,
        }
    }

    /// With a way to send bytes that do not belong there.
    pub fn with_garbage<F: Future<Output = ()> + Send + 'static>(
        mut self,
        send: impl Fn(Multiaddr, Vec<u8>) -> F + Send + Sync + 'static,
    ) -> Self {
        self.garbage = Some(Box::new(move |address, bytes| Box::pin(send(address, bytes))));
        self
    }
}

/// A test that has not ended by then has failed. Far beyond what any takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs one test of the suite. For [`suite!`].
pub async fn run<T>(subject: Subject, test: impl FnOnce(Subject) -> T)
where
    T: Future<Output = ()>,
{
    tokio::time::timeout(DEADLINE, test(subject))
        .await
        .unwrap_or_else(|_| panic!("took more than {DEADLINE:?}"));
}

/// Makes a test of each function of the suite. `$subject` is an async function that returns a new [`Subject`].
#[macro_export]
macro_rules! suite {
    ($subject:path) => {
        $crate::suite! { $subject:
            listener_knows_where_it_is
            both_sides_know_each_other
            bytes_echo
            half_close_leaves_the_other_half
            empty_stream_is_seen_at_its_end
            reset_by_the_opener_is_seen
            reset_by_the_acceptor_is_seen
            dropped_stream_is_reset
            reader_that_stops_holds_up_the_writer
            many_streams_at_once
            ten_mebibytes_both_ways_at_once
            many_small_writes_arrive_in_order
            streams_outlive_the_listener
            closing_sends_what_was_taken_and_is_seen
            peer_that_vanishes_is_noticed
            another_peer_id_than_expected_is_refused
            dropped_dial_leaves_the_listener_working
            unsupported_addresses_are_refused
            garbage_is_survived
        }
    };
    ($subject:path: $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::run($subject().await, $crate::$test).await;
            }
        )*
    };
}
