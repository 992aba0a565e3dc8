//! `cargo xtask fuzz`: every fuzz target for so many seconds, on stable Rust.
//!
//! rustc has the instrumentation that libFuzzer wants, as passes of LLVM's that `-C` turns on; only the sanitizers need
//! nightly, and in code without `unsafe` they have little to find. Whoever has cargo-fuzz and nightly may use them: `fuzz/`
//! is laid out as cargo-fuzz likes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::background;
use crate::tools::{announce, on_path};

/// Edges counted, with what is compared on the way, so that the fuzzer learns magic numbers.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg fuzzing",
    "-Ccodegen-units=1",
];

/// As `peerloom_fuzz_corpus::MAX_FILE_BYTES`: no input is longer, so that none has to be cut to be kept.
const MAX_LEN: usize = 4 * 1024;
/// Files of one corpus that are kept.
const MAX_FILES: usize = 48;
/// Longer for one input is a hang, in seconds.
const HANG: usize = 10;
/// More for one input is a leak or a bound that is none, in MiB.
const MEMORY: usize = 2048;

/// What to run.
pub(crate) struct Options<'a> {
    /// Only the targets whose name contains this.
    pub(crate) target: &'a str,
    /// For each of them.
    pub(crate) seconds: u64,
    /// Put what was found into the corpora, as little as has the same coverage.
    pub(crate) keep: bool,
    /// Only these inputs, once each.
    pub(crate) replay: &'a [PathBuf],
}

/// Fuzzes one target after the other, and fails if an input was found that breaks one.
pub(crate) fn run(shell: &Shell, options: &Options<'_>) -> Result<()> {
    let targets = targets(shell, options.target)?;
    background::end_with_xtask()?;
    let programs = build(shell, &targets)?;
    if !options.replay.is_empty() {
        let [target] = targets.as_slice() else {
            bail!("say with --target which one of these: {}", targets.join(", "));
        };
        let status = Command::new(programs.join(target)).args(options.replay).status()?;
        ensure!(status.success(), "{target} fails");
        return Ok(());
    }

    println!("\n{:<26} {:>12} {:>10} {:>8}  outcome", "target", "inputs", "coverage", "corpus");
    let mut failures = Vec::new();
    for target in &targets {
        let outcome = fuzz(shell, &programs, target, options)?;
        let Outcome { inputs, coverage, corpus, .. } = &outcome;
        let verdict = if outcome.failing.is_empty() { "ok" } else { "FAILED" };
        println!("{target:<26} {inputs:>12} {coverage:>10} {corpus:>8}  {verdict}");
        failures.extend(outcome.failing.into_iter().map(|input| (target, input)));
    }
    for (target, input) in &failures {
        println!("\n{target} fails with {}", input.display());
        println!("  once more: cargo xtask fuzz --target {target} --replay {}", input.display());
    }
    if !failures.is_empty() {
        bail!("{} of {} targets failed", failures.len(), targets.len());
    }
    Ok(())
}

/// The names of the programs.
fn targets(shell: &Shell, filter: &str) -> Result<Vec<String>> {
    let files = shell.read_dir("fuzz/fuzz_targets")?;
    let names = files.iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()));
    let mut all: Vec<String> = names.collect();
    all.sort();
    // The name of one may be a part of another's.
    if all.iter().any(|name| name == filter) {
        return Ok(vec![filter.to_owned()]);
    }
    let chosen: Vec<String> = all.iter().filter(|name| name.contains(filter)).cloned().collect();
    ensure!(!chosen.is_empty(), "no target's name contains {filter:?}; there are: {}", all.join(", "));
    Ok(chosen)
}

/// Builds the programs, and says where they are.
fn build(shell: &Shell, targets: &[String]) -> Result<PathBuf> {
    ensure!(
        on_path(&["c++", "g++", "clang++"]).is_some(),
        "libFuzzer is C++: install a compiler, for example the Debian package g++"
    );
    announce("fuzz: building");
    let host = cmd!(shell, "rustc --print host-tuple").quiet().read()?;
    let bins = targets.iter().flat_map(|target| ["--bin", target]);
    // With a target named, the flags are not for build scripts and macros.
    cmd!(shell, "cargo build --locked --manifest-path fuzz/Cargo.toml --target {host} {bins...}")
        .env("RUSTFLAGS", FLAGS.join(" "))
        .env_remove("CARGO_TARGET_DIR")
        .run()?;
    Ok(shell.current_dir().join("fuzz/target").join(host).join("debug"))
}

struct Outcome {
    inputs: String,
    coverage: String,
    corpus: usize,
    failing: Vec<PathBuf>,
}

fn fuzz(shell: &Shell, programs: &Path, target: &str, options: &Options<'_>) -> Result<Outcome> {
    let root = shell.current_dir();
    let corpus = root.join("fuzz/corpus").join(target);
    let found = root.join("fuzz/target/found").join(target);
    let artifacts = root.join("fuzz/artifacts").join(target);
    for folder in [&corpus, &found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let before = files(&artifacts)?;
    let log = root.join("fuzz/target/found").join(format!("{target}.log"));
    let program = programs.join(target);
    let status = Command::new(&program)
        .args(limits(&artifacts))
        .arg(format!("-max_total_time={}", options.seconds))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .args([&found, &corpus])
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{} does not start", program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let mut failing = files(&artifacts)?;
    failing.retain(|file| !before.contains(file));
    if !status.success() && failing.is_empty() {
        bail!("{target} ended with {status}; see {}", log.display());
    }
    if options.keep && status.success() {
        keep(&program, &artifacts, &found, &corpus)?;
    }
    Ok(Outcome {
        inputs: last_after(&text, "stat::number_of_executed_units:"),
        coverage: last_after(&text, " cov:"),
        corpus: files(&corpus)?.len(),
        failing,
    })
}

fn limits(artifacts: &Path) -> [String; 4] {
    [
        format!("-max_len={MAX_LEN}"),
        format!("-timeout={HANG}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-artifact_prefix={}/", artifacts.display()),
    ]
}

/// Replaces the corpus by the fewest inputs of it and of what was found that cover the same, the best first.
fn keep(program: &Path, artifacts: &Path, found: &Path, corpus: &Path) -> Result<()> {
    let fewest = found.with_extension("fewest");
    let _ = fs::remove_dir_all(&fewest);
    fs::create_dir_all(&fewest)?;
    let status = Command::new(program)
        .args(limits(artifacts))
        .arg("-set_cover_merge=1")
        .args([&fewest, &corpus.to_owned(), &found.to_owned()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "{} does not merge its corpus", program.display());
    let mut chosen = Vec::new();
    for file in files(&fewest)? {
        // It writes those that cover most first.
        chosen.push((fs::metadata(&file)?.modified()?, file));
    }
    chosen.sort();
    ensure!(!chosen.is_empty(), "{} has no corpus", program.display());
    for old in files(corpus)? {
        fs::remove_file(old)?;
    }
    for (_, file) in chosen.iter().take(MAX_FILES) {
        let name = file.file_name().context("a file has a name")?;
        fs::copy(file, corpus.join(name))?;
    }
    fs::remove_dir_all(&fewest)?;
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// The word behind the last `key`.
fn last_after(text: &str, key: &str) -> String {
    let found = text.rsplit_once(key).and_then(|(_, rest)| rest.split_whitespace().next());
    found.unwrap_or("-").to_owned()
}
