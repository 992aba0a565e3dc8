//! `cargo xtask bench browser`: ours and js-libp2p in pages of Chromium, against a native server.
//!
//! benches/browser/ holds the pages. They load ours and js-libp2p as bundles, which are weighed too, read from
//! /peerloom.json whom to dial, and tell each sample by calling `window.report({ name, unit, subject, value })`, where
//! `subject` is `ours`, `limit`, or the name of the peer that was measured. A page ends with `window.finish()`, or
//! `window.finish(error)`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use super::raw_websocket::RawWebSocketServer;
use super::row::{Against, Aim, Bound, Row};
use super::statistics::Summary;
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
            all.extend(samples(shell, &format!("{url}start.html?subject={subject}"))?);
        }
    }
    announce("Dialing, and moving bytes");
    all.extend(samples(shell, &format!("{url}?rounds={ROUNDS}"))?);
    rows(&all)
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

/// One value that a page reported.
struct Sample {
    name: String,
    unit: String,
    subject: String,
    value: f64,
}

/// Opens `url` in Chromium and takes in what it reports.
fn samples(shell: &Shell, url: &str) -> Result<Vec<Sample>> {
    let chromium = debian::chromium(shell)?;
    let script = shell.current_dir().join("xtask/browser/run_page.mjs");
    let output = Command::new(node::node(shell)?)
        .args([script.as_os_str(), chromium.as_os_str(), url.as_ref()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the page failed: {}", output.status);
    String::from_utf8(output.stdout)?.lines().map(sample).collect()
}

fn sample(line: &str) -> Result<Sample> {
    let value: Value = serde_json::from_str(line).with_context(|| format!("the page reported {line}"))?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = value.get("value").and_then(Value::as_f64);
    match (text("name"), text("unit"), text("subject"), number) {
        (Some(name), Some(unit), Some(subject), Some(value)) => Ok(Sample { name, unit, subject, value }),
        _ => bail!("the page reported {line}"),
    }
}

/// Groups samples by name, in the order of appearance; a row for each aim that fits, or one without.
fn rows(samples: &[Sample]) -> Result<Vec<Row>> {
    let mut names: Vec<&str> = Vec::new();
    for sample in samples {
        if !names.contains(&sample.name.as_str()) {
            names.push(&sample.name);
        }
    }
    let mut rows = Vec::new();
    for name in names {
        let of: Vec<&Sample> = samples.iter().filter(|sample| sample.name == name).collect();
        let summary = |subject: &str| {
            let values = of.iter().filter(|sample| sample.subject == subject).map(|sample| sample.value);
            Summary::of(&values.collect::<Vec<_>>())
        };
        let peer = of
            .iter()
            .map(|sample| &sample.subject)
            .find(|subject| !["ours", "limit"].contains(&subject.as_str()));
        let peer = peer.and_then(|peer| Some((peer.clone(), summary(peer)?)));
        let ours = summary("ours").with_context(|| format!("{name} was not measured of ours"))?;
        let unit = of.first().map(|sample| sample.unit.clone()).unwrap_or_default();

        let fitting = AIMS.iter().filter(|(prefix, _, _)| name.starts_with(prefix));
        let mut aims: Vec<Option<Aim>> =
            fitting.map(|(_, against, bound)| Some(Aim { against: *against, bound: *bound })).collect();
        if aims.is_empty() {
            aims.push(None);
        }
        for aim in aims {
            let (name, unit, peer, limit) = (name.to_owned(), unit.clone(), peer.clone(), summary("limit"));
            rows.push(Row { name, unit, ours, peer, limit, aim });
        }
    }
    ensure!(!rows.is_empty(), "the page reported nothing");
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_a_row_per_aim() {
        let lines = [
            r#"{"name":"webtransport throughput down","unit":"MiB/s","subject":"ours","value":100}"#,
            r#"{"name":"webtransport throughput down","unit":"MiB/s","subject":"ours","value":120}"#,
            r#"{"name":"webtransport throughput down","unit":"MiB/s","subject":"js-libp2p","value":55}"#,
            r#"{"name":"webtransport throughput down","unit":"MiB/s","subject":"limit","value":220}"#,
            r#"{"name":"start","unit":"ms","subject":"ours","value":30}"#,
        ];
        let samples: Vec<Sample> = lines.iter().map(|line| sample(line).unwrap()).collect();
        let rows = rows(&samples).unwrap();
        let ratios: Vec<Option<f64>> = rows.iter().map(Row::ratio).collect();
        assert_eq!(ratios, [Some(0.5), Some(2.0), None]);
    }

    #[test]
    fn a_report_that_lacks_a_field_is_refused() {
        assert!(sample(r#"{"name":"start","unit":"ms","value":30}"#).is_err());
        assert!(sample("nothing").is_err());
    }
}
