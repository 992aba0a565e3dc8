//! `cargo xtask test`: every test there is, and one line at the end that counts them.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::check::PAGE_ONLY;
pub(crate) use crate::test::tally::Tally;
use crate::tools::{announce, cargo, debian, node, wasm_target};
use crate::{background, demo, interop, npm, soak};

mod servers;
mod tally;

type Suite = fn(&Shell) -> Result<Tally>;

/// In the order of running: what fails soonest and explains most comes first.
const SUITES: [(&str, Suite); 9] = [
    ("native", native),
    ("wasm in Chromium", wasm_in_chromium),
    ("wasm in Firefox", wasm_in_firefox),
    ("package in browsers", package_in_browsers),
    ("demo page", demo_page),
    ("foreign peers", foreign_peers),
    ("foreign peers, test-plans", foreign_peers_of_test_plans),
    ("client of the daemon", client_of_the_daemon),
    ("soak", short_soak),
];

/// Runs the suites whose name contains `filter`.
pub(crate) fn run(shell: &Shell, filter: &str) -> Result<()> {
    background::end_with_xtask()?;
    let mut rows = Vec::new();
    for (name, suite) in SUITES.iter().filter(|(name, _)| name.contains(filter)) {
        announce(&format!("test: {name}"));
        let start = Instant::now();
        // A suite that cannot even start must not look like one without failures.
        let tally = suite(shell).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Tally::broken()
        });
        rows.push((*name, tally, start.elapsed()));
    }
    if rows.is_empty() {
        let names: Vec<&str> = SUITES.iter().map(|(name, _)| *name).collect();
        bail!("no suite's name contains {filter:?}; there are: {}", names.join(", "));
    }

    println!("\n{:<28} {:>8} {:>8} {:>8} {:>10}", "suite", "passed", "failed", "skipped", "time");
    let mut total = Tally::default();
    for (name, tally, took) in rows {
        let (passed, failed, skipped) = (tally.passed, tally.failed, tally.skipped.len());
        println!("{name:<28} {passed:>8} {failed:>8} {skipped:>8} {:>8.1} s", took.as_secs_f64());
        total.add(tally);
    }
    for skipped in &total.skipped {
        println!("skipped: {skipped}");
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped.len());
    if total.failed > 0 {
        bail!("tests failed");
    }
    Ok(())
}

/// Everything that runs without a browser: unit and property tests, transports, simulated networks.
fn native(shell: &Shell) -> Result<Tally> {
    let excluded = PAGE_ONLY.iter().flat_map(|name| ["--exclude", name]);
    counted(cmd!(shell, "cargo test --locked --workspace {excluded...} --no-fail-fast"))
}

fn wasm_in_chromium(shell: &Shell) -> Result<Tally> {
    let chromedriver = debian::chromedriver(shell)?;
    wasm(shell, &["--chrome".as_ref(), "--chromedriver".as_ref(), &chromedriver])
}

fn wasm_in_firefox(shell: &Shell) -> Result<Tally> {
    debian::firefox(shell)?;
    let geckodriver = cargo::geckodriver(shell)?;
    wasm(shell, &["--firefox".as_ref(), "--geckodriver".as_ref(), &geckodriver])
}

/// The tests of wasm-tests/, in a browser, against real servers.
fn wasm(shell: &Shell, browser: &[&Path]) -> Result<Tally> {
    wasm_target::wasm_target(shell)?;
    cargo::wasm_bindgen(shell)?;
    let wasm_pack = cargo::wasm_pack(shell)?;
    let _servers = servers::start(shell)?;
    counted(
        cmd!(shell, "{wasm_pack} test --headless {browser...} --mode no-install wasm-tests --locked")
            .env("WASM_BINDGEN_TEST_TIMEOUT", "300"),
    )
}

/// The npm package as an application uses it, in both browsers.
fn package_in_browsers(shell: &Shell) -> Result<Tally> {
    npm::package(shell)?;
    let node = node::node(shell)?;
    let tests = ["sdk", "peer_store", "pairs", "outage"].map(|name| format!("js/tests/{name}.test.mjs"));
    counted(in_browsers(shell, cmd!(shell, "{node} examples/web/tests/run.mjs {tests...}"))?)
}

/// The demo as its user meets it, in both browsers.
fn demo_page(shell: &Shell) -> Result<Tally> {
    demo::build_page(shell)?;
    let node = node::node(shell)?;
    counted(in_browsers(shell, cmd!(shell, "{node} examples/web/tests/run.mjs"))?)
}

/// A command that drives browsers itself, with where they and the server are.
fn in_browsers<'a>(shell: &'a Shell, command: Cmd<'a>) -> Result<Cmd<'a>> {
    let chromium = debian::chromium(shell)?;
    let firefox = debian::firefox(shell)?;
    let geckodriver = cargo::geckodriver(shell)?;
    let server = programs(shell)?.join("peerloom");
    Ok(command
        .env("PEERLOOM_BIN", server)
        .env("CHROMIUM", chromium)
        .env("FIREFOX", firefox)
        .env("GECKODRIVER", geckodriver))
}

/// Ours against foreign implementations, in both directions, over every transport that both have.
fn foreign_peers(shell: &Shell) -> Result<Tally> {
    debian::chromium(shell)?;
    npm::package(shell)?;
    let programs = programs(shell)?;
    let folder = shell.current_dir().join("interop/js");
    node::npm_packages(shell, &folder)?;
    let node = node::node_for_peers(shell)?;
    let _folder = shell.push_dir(&folder);
    counted(cmd!(shell, "{node} run.mjs --programs {programs}"))
}

/// A cell of each peer and transport under the contract of test-plans; `cargo xtask interop` plays them all.
fn foreign_peers_of_test_plans(shell: &Shell) -> Result<Tally> {
    npm::package(shell)?;
    interop::subset(shell, &programs(shell)?)
}

/// js-libp2p's client of libp2p's daemon, against ours.
fn client_of_the_daemon(shell: &Shell) -> Result<Tally> {
    let server = programs(shell)?.join("peerloom");
    let folder = shell.current_dir().join("interop/daemon-client");
    node::npm_packages(shell, &folder)?;
    let node = node::node_for_peers(shell)?;
    let _folder = shell.push_dir(&folder);
    // The client keeps on listening for streams of a protocol after it has failed to register that.
    let test = cmd!(shell, "{node} --test --test-force-exit --test-reporter=spec");
    counted(test.env("PEERLOOM_BIN", server))
}

/// The least that shows what is left behind: `cargo xtask soak` does the same for as long as it is told.
fn short_soak(shell: &Shell) -> Result<Tally> {
    let server = programs(shell)?.join("peerloom");
    let checks = soak::churn(shell, &server, Duration::from_secs(15))?;
    let failed = checks.iter().filter(|check| !check.passed).count();
    Ok(Tally { passed: checks.len() - failed, failed, skipped: Vec::new() })
}

/// Where the programs of the workspace are, built as `cargo test --workspace` builds them, so that nothing is compiled twice.
fn programs(shell: &Shell) -> Result<PathBuf> {
    let excluded = PAGE_ONLY.iter().flat_map(|name| ["--exclude", name]);
    cmd!(shell, "cargo build --locked --workspace {excluded...} --bins --tests --examples").run()?;
    Ok(npm::target_folder(shell)?.join("debug"))
}

/// Runs a command that prints test results: shows them as they come, and counts.
pub(crate) fn counted(command: Cmd<'_>) -> Result<Tally> {
    eprintln!("$ {command}");
    let mut command = Command::from(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} does not start"))?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        eprintln!("{command:?} ended with {status}");
        tally.add(Tally::broken());
    }
    Ok(tally)
}
