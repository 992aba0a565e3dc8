//! `cargo xtask check`: what a machine can say about the code without running it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::tools::{announce, cargo, node, run_at_most, wasm_target};
use crate::{npm, setup};

/// Crates with nothing to build or test natively.
pub(crate) const PAGE_ONLY: [&str; 1] = ["peerloom-wasm-tests"];

/// Crates that go into the page and therefore must be clean on wasm32 too.
const IN_THE_PAGE: [&str; 6] = [
    "peerloom-aead",
    "peerloom-core",
    "peerloom-upgrade",
    "peerloom-node",
    "peerloom-wasm",
    "peerloom-wasm-tests",
];

/// Those of the crate `peerloom`.
const FEATURES: [&str; 11] = [
    "",
    "peerloom/tcp",
    "peerloom/websocket",
    "peerloom/quic",
    "peerloom/webrtc",
    "peerloom/dns",
    "peerloom/relay-client",
    "peerloom/relay-server",
    "peerloom/perf",
    "peerloom/peer-storage",
    "peerloom/autonat",
];

/// The database is a few MB.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// Runs every check, even after one failed, so that one run tells all.
pub(crate) fn run(shell: &Shell) -> Result<()> {
    let checks: [(&str, Check); 8] = [
        ("rustfmt", rustfmt),
        ("clippy (native)", clippy_native),
        ("clippy (features of `peerloom`)", clippy_features),
        ("clippy (wasm32)", clippy_wasm32),
        ("cargo-deny (licences, bans, sources)", deny),
        ("cargo-deny (advisories)", advisories),
        ("biome", biome),
        ("tsc", tsc),
    ];
    let mut outcomes = Vec::new();
    for (name, check) in checks {
        announce(&format!("check: {name}"));
        let start = Instant::now();
        let outcome = check(shell).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            Outcome::Failed
        });
        outcomes.push((name, outcome, start.elapsed()));
    }

    println!();
    for (name, outcome, took) in &outcomes {
        let outcome = match outcome {
            Outcome::Clean => "ok".to_owned(),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::Skipped(reason) => format!("skipped: {reason}"),
        };
        println!("  {name:<38} {:>6.1} s  {outcome}", took.as_secs_f64());
    }
    if outcomes.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed)) {
        bail!("the checks failed");
    }
    Ok(())
}

type Check = fn(&Shell) -> Result<Outcome>;

enum Outcome {
    Clean,
    Failed,
    Skipped(&'static str),
}

fn rustfmt(shell: &Shell) -> Result<Outcome> {
    setup::rust_components(shell)?;
    cmd!(shell, "cargo fmt --all --check").run()?;
    Ok(Outcome::Clean)
}

fn clippy_native(shell: &Shell) -> Result<Outcome> {
    let excluded = PAGE_ONLY.iter().flat_map(|name| ["--exclude", name]);
    cmd!(shell, "cargo clippy --locked --keep-going --workspace {excluded...} --all-targets -- -D warnings")
        .run()?;
    Ok(Outcome::Clean)
}

/// Each feature alone, and none. With the whole workspace, so that its dependencies have the features that they have anyway
/// and only this crate is compiled each time.
fn clippy_features(shell: &Shell) -> Result<Outcome> {
    let excluded: Vec<_> = PAGE_ONLY.iter().flat_map(|name| ["--exclude", name]).collect();
    for feature in FEATURES {
        let excluded = &excluded;
        cmd!(
            shell,
            "cargo clippy --locked --workspace {excluded...} --all-targets --no-default-features --features {feature}"
        )
        .args(["--", "-D", "warnings"])
        .run()?;
    }
    Ok(Outcome::Clean)
}

fn clippy_wasm32(shell: &Shell) -> Result<Outcome> {
    wasm_target::wasm_target(shell)?;
    let packages = IN_THE_PAGE.iter().flat_map(|name| ["--package", name]);
    cmd!(
        shell,
        "cargo clippy --locked --keep-going {packages...} --target wasm32-unknown-unknown -- -D warnings"
    )
    .run()?;
    // Its tests run in browsers; those of the other crates run natively.
    cmd!(
        shell,
        "cargo clippy --locked --package peerloom-wasm-tests --tests --target wasm32-unknown-unknown"
    )
    .args(["--", "-D", "warnings"])
    .run()?;
    Ok(Outcome::Clean)
}

fn deny(shell: &Shell) -> Result<Outcome> {
    let cargo_deny = cargo::cargo_deny(shell)?;
    cmd!(shell, "{cargo_deny} --log-level error --locked check --hide-inclusion-graph licenses bans sources")
        .run()?;
    Ok(Outcome::Clean)
}

/// The database of advisories is a git repository, which a closed network cannot reach.
fn advisories(shell: &Shell) -> Result<Outcome> {
    let cargo_deny = cargo::cargo_deny(shell)?;
    let fetch =
        cmd!(shell, "{cargo_deny} --log-level error --locked fetch db").env("GIT_TERMINAL_PROMPT", "0");
    let fetched = run_at_most(FETCH_LIMIT, &mut fetch.into())?;
    if !fetched.is_some_and(|status| status.success()) {
        return Ok(Outcome::Skipped("the advisory database cannot be fetched"));
    }
    cmd!(
        shell,
        "{cargo_deny} --log-level error --locked check --disable-fetch --hide-inclusion-graph advisories"
    )
    .run()?;
    Ok(Outcome::Clean)
}

fn biome(shell: &Shell) -> Result<Outcome> {
    let biome = node::npm_program(shell, "biome")?;
    cmd!(shell, "{biome} check --error-on-warnings .").run()?;
    Ok(Outcome::Clean)
}

/// Building the package checks js/; what uses the package is checked against the declarations that this leaves.
fn tsc(shell: &Shell) -> Result<Outcome> {
    npm::package(shell)?;
    let tsc = node::npm_program(shell, "tsc")?;
    for project in npm::users_in_typescript(shell)? {
        cmd!(shell, "{tsc} --noEmit --project {project}").run()?;
    }
    Ok(Outcome::Clean)
}
