//! `cargo xtask bench NAME`: measurements of ours beside a peer's, and beside what the machine can do at all, in one run.
//!
//! A bench takes samples and groups them into rows. What each reader wants is the ratio: absolute numbers are those of
//! one machine on one day. Nothing here passes or fails; tests do that, and no test asserts a time.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use xshell::Shell;

use crate::background;
use crate::bench::row::Row;
use crate::tools::announce;

mod b2b;
mod browser;
mod native;
mod raw_websocket;
mod row;
mod samples;
mod statistics;

type Bench = fn(&Shell, &str) -> Result<Vec<Row>>;

const BENCHES: [(&str, Bench); 4] = [
    ("browser", |shell, filter| whole(filter, || browser::run(shell))),
    ("b2b", |shell, filter| whole(filter, || b2b::run(shell))),
    ("native", native::run),
    ("dial", native::dial::run),
];

/// A bench that is run as a whole or not at all.
fn whole(filter: &str, bench: impl FnOnce() -> Result<Vec<Row>>) -> Result<Vec<Row>> {
    ensure!(filter.is_empty(), "this bench has no parts to be filtered");
    bench()
}

/// Runs the bench called `name`, or what of it is called `filter`; prints its table, and writes its rows to `file` if
/// one is given.
pub(crate) fn run(shell: &Shell, name: &str, filter: &str, file: Option<&Path>) -> Result<()> {
    let Some((_, bench)) = BENCHES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = BENCHES.iter().map(|(known, _)| *known).collect();
        bail!("there is no bench {name}; there are: {}", known.join(", "));
    };
    background::end_with_xtask()?;
    announce(&format!("bench: {name}"));
    let load_before = load()?;
    let rows = bench(shell, filter)?;
    let load_after = load()?;

    println!("\n{}", row::table(&rows));
    println!("load of the machine (1, 5, 15 min): {load_before:.2?} before, {load_after:.2?} after");
    if let Some(file) = file {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let cpus = std::thread::available_parallelism()?.get();
        let all = json!({
            "bench": name,
            "machine": { "cpus": cpus, "load_before": load_before, "load_after": load_after },
            "rows": rows,
        });
        let text = format!("{all:#}\n");
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("rows are in {}", file.display());
    }
    Ok(())
}

/// The averages of proc_loadavg(5) over 1, 5 and 15 minutes: a busy machine explains an odd result.
fn load() -> Result<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").context("cannot read the load of the machine")?;
    let averages: Vec<f64> = text.split(' ').take(3).map(str::parse).collect::<Result<_, _>>()?;
    averages.try_into().map_err(|_| anyhow::anyhow!("/proc/loadavg has no three averages"))
}
