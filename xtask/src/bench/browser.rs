//! `cargo xtask bench browser`: ours and js-libp2p in pages of Chromium, against a native server.
//!
//! benches/browser/ holds the pages. They load ours and js-libp2p as bundles, which are weighed too, read from
//! /peerloom.json whom to dial, and tell each sample by calling `window.report({ name, unit, subject, value })`, where
//! `subject` is `ours`, `limit`, or the name of the peer that was measured. A page ends with `window.finish()`, or
//! `window.finish(error)`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::json;
use xshell::{Shell, cmd};

use super::raw_websocket::RawWebSocketServer;
use super::row::{Against, Bound, Row};
use super::samples::{self, Sample};
use crate::npm;
use crate::peerloom_server::{self, PeerloomServer};
use crate::static_server::{Response, StaticServer};
use crate::tools::{announce, debian, node};

const PAGES: &str = "benches/browser";

/// js-libp2p, and the bundler, in the versions that the matrix of foreign peers has.
const PEERS: &str = "interop/js";

const JS_LIBP2P: &str = "js-libp2p";

/// Samples of each quantity and subject, taken in turns.
const ROUNDS: usize = 7;

/// What we want, by the beginning of a row's name.
const AIMS: [(&str, Against, Bound); 4] = [
    ("webtransport throughput", Against::Limit, Bound::AtLeast(0.7)),
    ("webtransport throughput", Against::Peer, Bound::AtLeast(2.0)),
    ("websocket throughput", Against::Peer, Bound::AtLeast(3.0)),
    ("size brotli", Against::Peer, Bound::AtMost(0.7)),
];

pub(crate) fn run(shell: &Shell) -> Result<Vec<Row>> {
    npm::package(shell)?;
    let site = shell.create_temp_dir()?;
    let mut all = bundles(shell, site.path())?;

    let binary = peerloom_server::build_release(shell)?;
    let server = PeerloomServer::start(&binary)?;
    let raw = RawWebSocketServer::start()?;
    let mut description = server.describe();
    if let Some(fields) = description.as_object_mut() {
        fields.insert("rawWebSocket".to_owned(), json!(raw.url()));
    }
    let handler = move |_: &str, path: &str| (path == "/peerloom.json").then(|| Response::json(&description));
    let site_server = StaticServer::start(0, Some(site.path().to_owned()), Box::new(handler))?;
    let url = site_server.url();

    announce("Starting both in fresh browsers");
    for _ in 0..ROUNDS {
        for subject in ["ours", JS_LIBP2P] {
            all.extend(in_page(shell, &format!("{url}start.html?subject={subject}"))?);
        }
    }
    announce("Dialing, and moving bytes");
    all.extend(in_page(shell, &format!("{url}?rounds={ROUNDS}"))?);
    samples::rows(&all, &AIMS)
}

/// Puts the pages into `site`, with the bundles that they load, and weighs those.
fn bundles(shell: &Shell, site: &Path) -> Result<Vec<Sample>> {
    let peers = shell.current_dir().join(PEERS);
    node::npm_packages(shell, &peers)?;
    // For the package of our own, which the workspace links into its folder.
    node::npm_packages(shell, &shell.current_dir())?;
    announce("Bundling both as an application would");
    cmd!(shell, "cp -r {PAGES}/. {site}").run()?;
    let modules = peers.join("node_modules");
    let esbuild = modules.join(".bin/esbuild");
    let bundles = site.join("bundles");
    cmd!(
        shell,
        "{esbuild} {PAGES}/peerloom.js {PAGES}/js_libp2p.js --bundle --minify --format=esm --platform=browser
            --target=es2022 --define:process.env.NODE_ENV=\"production\" --log-level=warning --outdir={bundles}"
    )
    .env("NODE_PATH", &modules)
    .run()?;
    shell.copy_file("npm/dist/generated/peerloom_wasm_bg.wasm", &bundles)?;

    let mut samples = Vec::new();
    for (subject, files) in
        [("ours", &["peerloom.js", "peerloom_wasm_bg.wasm"][..]), (JS_LIBP2P, &["js_libp2p.js"][..])]
    {
        let mut total = [0; 3];
        for file in files {
            for (sum, size) in total.iter_mut().zip(npm::compressed_sizes(shell, &bundles.join(file))?) {
                *sum += size;
            }
        }
        let [minified, _, brotli] = total;
        for (name, bytes) in [("size minified", minified), ("size brotli", brotli)] {
            let (name, unit, subject) = (name.to_owned(), "KiB".to_owned(), subject.to_owned());
            samples.push(Sample { name, unit, subject, value: bytes as f64 / 1024.0 });
        }
    }
    Ok(samples)
}

/// Opens `url` in Chromium and takes in what it reports.
fn in_page(shell: &Shell, url: &str) -> Result<Vec<Sample>> {
    let chromium = debian::chromium(shell)?;
    let script = shell.current_dir().join("xtask/browser/run_page.mjs");
    let mut command = Command::new(node::node(shell)?);
    samples::printed_by(command.args([script.as_os_str(), chromium.as_os_str(), url.as_ref()]))
}
