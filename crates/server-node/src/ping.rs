//! `peerloom ping ADDR`.

use std::time::Duration;

use peerloom_core::runtime::sleep;
use peerloom_node::ping::{PingError, Pinger};

use crate::{cli::PingArguments, client};

/// Between two pings, as ping(8) does.
const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn ping(arguments: PingArguments) -> anyhow::Result<()> {
    let (node, connection) =
        client::connect(&arguments.address, arguments.private_network.as_deref()).await?;
    if !arguments.json {
        println!("{} at {}", connection.peer, connection.remote_address);
    }
    let measuring = async {
        let mut pinger = Pinger::open(&node, &connection).await?;
        let mut round_trips = Vec::new();
        for sequence in 1..=arguments.count {
            let round_trip = pinger.ping().await?;
            if !arguments.json {
                println!("{sequence}: {:.3} ms", milliseconds(round_trip));
            }
            round_trips.push(round_trip);
            if sequence < arguments.count {
                sleep(INTERVAL).await;
            }
        }
        pinger.close().await;
        Ok::<_, PingError>(round_trips)
    };
    let outcome = measuring.await;
    let mut sorted = client::close(node, outcome, "ping").await?;
    if arguments.json {
        let millis: Vec<_> = sorted.iter().map(|round_trip| milliseconds(*round_trip)).collect();
        println!("{}", serde_json::json!({ "peer": connection.peer.to_string(), "round_trips_ms": millis }));
        return Ok(());
    }
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let [min, max] =
        [sorted.first(), sorted.last()].map(|end| milliseconds(end.copied().unwrap_or_default()));
    println!("min {min:.3} ms, median {:.3} ms, max {max:.3} ms", milliseconds(median));
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
