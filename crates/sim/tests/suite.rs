//! The suite of all transports, on a network in memory.

use std::time::Duration;

use peerloom_sim::Network;
use peerloom_transport_suite::Subject;

peerloom_transport_suite::suite!(subject);

async fn subject() -> Subject {
    let network = Network::new(Duration::from_millis(1));
    Subject::new(move |keypair| network.transport(keypair), "/memory/0")
}
