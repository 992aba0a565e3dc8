//! Real servers for tests that run inside a page, which can start none themselves. They are relays too.
//!
//! A test asks over HTTP, on a port that both sides know, so that its Wasm need not be rebuilt for new addresses:
//! - `GET /peerloom.json`: the server that all tests share;
//! - `POST /servers`: starts one more, for this test alone; the answer has an `id`;
//! - `POST /servers/ID/kill`: ends that one at once, as a crash would.
//!
//! Answers are `{ peer, status, addresses }` as JSON.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xshell::Shell;

use crate::peerloom_server::PeerloomServer;
use crate::static_server::{Response, StaticServer};
use crate::test::programs;

/// Known to wasm-tests/ too. Below the ports that the system hands out by itself.
const PORT: u16 = 18733;

/// Servers of single tests that may run at a time: a loop in a test must not fill the machine.
const SERVERS: usize = 16;

/// Starts the shared server, and answers tests until the result is dropped.
pub(crate) fn start(shell: &Shell) -> Result<StaticServer> {
    let binary = programs(shell)?.join("peerloom");
    let shared = PeerloomServer::start_relay(&binary)?;
    let own: Mutex<HashMap<u64, PeerloomServer>> = Mutex::default();
    let handler = move |method: &str, path: &str| {
        let answer = match (method, path) {
            ("GET", "/peerloom.json") => Ok(shared.describe()),
            ("POST", "/servers") => start_another(&binary, &own),
            ("POST", _) => kill(path, &own),
            _ => return None,
        };
        Some(
            answer
                .map_or_else(|error| Response::error(&format!("{error:#}")), |value| Response::json(&value)),
        )
    };
    StaticServer::start(PORT, None, Box::new(handler))
}

fn start_another(binary: &Path, servers: &Mutex<HashMap<u64, PeerloomServer>>) -> Result<Value> {
    // Held while the server starts, so that the bound holds for requests that come together.
    let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(servers.len() < SERVERS, "{SERVERS} servers run already");
    let server = PeerloomServer::start_relay(binary)?;
    let mut description = server.describe();
    let id = (0..).find(|id| !servers.contains_key(id)).context("an id is free")?;
    servers.insert(id, server);
    if let Some(fields) = description.as_object_mut() {
        fields.insert("id".to_owned(), json!(id));
    }
    Ok(description)
}

fn kill(path: &str, servers: &Mutex<HashMap<u64, PeerloomServer>>) -> Result<Value> {
    let id = path.strip_prefix("/servers/").and_then(|rest| rest.strip_suffix("/kill"));
    let id: u64 = id.and_then(|id| id.parse().ok()).with_context(|| format!("no such path: {path}"))?;
    let server = servers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    server.with_context(|| format!("no server {id} runs"))?.kill()?;
    Ok(json!({ "killed": id }))
}
