//! The suite of all transports, on an internet in memory.

use peerloom_sim::{HostConfig, Internet};
use peerloom_transport_suite::Subject;

peerloom_transport_suite::suite!(subject);

async fn subject() -> Subject {
    let host = Internet::new(1).host(HostConfig::new());
    Subject::new(move |keypair| host.transport(keypair), "/ip4/0.0.0.0/udp/0/quic-v1")
}
