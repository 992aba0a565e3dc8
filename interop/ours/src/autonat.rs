//! Our client of AutoNAT: asks a server which of its addresses it reaches.

use std::{collections::BTreeMap, io::Read as _};

use anyhow::{Context as _, Result};
use peerloom_autonat::{Answer, AutonatClient, ClientConfig};
use peerloom_core::{Multiaddr, Protocol};

use crate::node::{self, Path};

/// What everybody who plays AutoNAT asks about, as ../../js/autonat.mjs has it.
const QUESTIONS: [&str; 5] = [
    "/ip4/127.0.0.1/tcp/{tcp}",
    "/ip4/127.0.0.2/tcp/{tcp}",
    "/ip4/127.0.0.1/udp/{udp}/quic-v1",
    "/ip4/127.0.0.2/udp/{udp}/quic-v1",
    "/ip4/127.0.0.1/tcp/1",
];

pub(crate) async fn run(server: Multiaddr) -> Result<()> {
    let node = node::start(Path::Relayed)?;
    let mut ports = BTreeMap::new();
    for (name, address) in [("{tcp}", "/ip4/0.0.0.0/tcp/0"), ("{udp}", "/ip4/0.0.0.0/udp/0/quic-v1")] {
        let listening = node.listen(address.parse()?).await?;
        let port = listening.first().and_then(port).context("no port")?;
        ports.insert(name, port.to_string());
    }
    // What it asks by itself is about addresses of the internet, of which there is none here.
    let client = AutonatClient::start(&node, ClientConfig::default())?;
    let connection = node.dial(server).await?;
    let mut answers = BTreeMap::new();
    for question in QUESTIONS {
        let named = ports.iter().fold(question.to_owned(), |named, (name, port)| named.replace(name, port));
        let answer = match client.ask(connection.peer, vec![named.parse()?]).await {
            Ok(Answer::Reached(_)) => "reached".to_owned(),
            Ok(Answer::NotReached(_)) => "not reached".to_owned(),
            Ok(_) => "refused".to_owned(),
            Err(error) => error.to_string(),
        };
        answers.insert(question, answer);
    }
    println!("{}", serde_json::json!({ "event": "autonat", "answers": answers }));
    // Until whoever started us is through with us, or gone.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

fn port(address: &Multiaddr) -> Option<u16> {
    address.protocols().find_map(|protocol| match protocol {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })
}
