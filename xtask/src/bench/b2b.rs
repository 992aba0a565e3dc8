//! `cargo xtask bench b2b`: two tabs of one Chromium become peers of each other through a relay, as ours, as js-libp2p, and
//! with the browser's own objects alone.
//!
//! benches/b2b/ holds the page, xtask/browser/b2b.mjs drives both tabs and says what is done how often. The relay of both
//! implementations is `peerloom`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use xshell::{Shell, TempDir, cmd};

use super::row::{Against, Bound, Row};
use super::samples;
use crate::npm;
use crate::peerloom_server::{self, PeerloomServer};
use crate::static_server::StaticServer;
use crate::tools::{announce, debian, node};

const PAGES: &str = "benches/b2b";

/// What the page shares with those of the other bench.
const SHARED: [&str; 2] = ["benches/browser/measure.js", "benches/browser/web_stream.js"];

/// js-libp2p, and the bundler, in the versions that the matrix of foreign peers has.
const PEERS: &str = "interop/js";

/// What we want, by the beginning of a row's name.
const AIMS: [(&str, Against, Bound); 3] = [
    ("dial to direct", Against::Nothing, Bound::AtMost(200.0)),
    ("dials lost", Against::Nothing, Bound::AtMost(0.0)),
    ("throughput", Against::Limit, Bound::AtLeast(0.9)),
];

pub(crate) fn run(shell: &Shell) -> Result<Vec<Row>> {
    npm::package(shell)?;
    let folder = page(shell)?;
    let binary = peerloom_server::build_release(shell)?;
    let relay = PeerloomServer::start_relay(&binary)?;
    let address = relay.loopback_address(|address| address.contains("/ws/"))?;
    let site = StaticServer::start(0, Some(folder.path().to_owned()), Box::new(|_, _| None))?;

    let chromium = debian::chromium(shell)?;
    let script = shell.current_dir().join("xtask/browser/b2b.mjs");
    announce("Dialing from page to page, and moving bytes");
    let mut command = Command::new(node::node(shell)?);
    command.args([script.as_os_str(), chromium.as_os_str(), site.url().as_ref(), address.as_ref()]);
    let all = samples::printed_by(&mut command)?;
    samples::rows(&all, &AIMS)
}

/// The page with the bundles that it loads.
fn page(shell: &Shell) -> Result<TempDir> {
    let peers = shell.current_dir().join(PEERS);
    node::npm_packages(shell, &peers)?;
    // For the package of our own, which the workspace links into its folder.
    node::npm_packages(shell, &shell.current_dir())?;
    announce("Bundling both as an application would");
    let folder = shell.create_temp_dir()?;
    let path = folder.path();
    cmd!(shell, "cp -r {PAGES}/. {path}").run()?;
    for file in SHARED {
        shell.copy_file(file, path)?;
    }
    bundle(shell, &peers.join("node_modules"), &path.join("bundles"))?;
    Ok(folder)
}

fn bundle(shell: &Shell, modules: &Path, bundles: &Path) -> Result<()> {
    let esbuild = modules.join(".bin/esbuild");
    cmd!(
        shell,
        "{esbuild} benches/browser/peerloom.js {PAGES}/js_libp2p.js --bundle --minify --format=esm --platform=browser
            --target=es2022 --define:process.env.NODE_ENV=\"production\" --log-level=warning --entry-names=[name]
            --outdir={bundles}"
    )
    .env("NODE_PATH", modules)
    .run()?;
    shell.copy_file("npm/dist/generated/peerloom_wasm_bg.wasm", bundles)?;
    Ok(())
}
