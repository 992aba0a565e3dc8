//! `cargo xtask interop`: ours and foreign peers meet, every one with every other, under the contract of libp2p's
//! test-plans (`transport-interop`), natively and in browsers. And then under the contract of this project, which asks more
//! (interop/README.md).

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use xshell::{Shell, cmd};

use self::cell::{Cell, Outcome};
use self::network::Network;
use self::peers::{Peer, Programs};
use self::report::Report;
use crate::background;
use crate::test::Tally;
use crate::tools::{announce, debian, node};

mod cell;
mod network;
mod peers;
mod report;

/// What is played, and where it is written.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Only the cells whose name contains this, such as "go-libp2p" or "(ws, noise"
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Cells without ours instead, to tell whose fault a failure is
    #[arg(long)]
    controls: bool,
    /// Only the contract of test-plans
    #[arg(long)]
    only_test_plans: bool,
    /// Where our programs have been built, so that they are not built again, nor our npm package
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Write everything to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables to this file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// The whole matrix.
pub(crate) fn run(shell: &Shell, arguments: &Arguments) -> Result<()> {
    background::end_with_xtask()?;
    let peers = Peer::all(shell)?;
    let cells = Cell::all(&peers, arguments.controls);
    let cells: Vec<_> = cells.into_iter().filter(|cell| cell.name().contains(&arguments.filter)).collect();
    let programs = prepare(shell, &cells, arguments.programs.as_deref());
    let start = Instant::now();
    let report = play(shell, &peers, cells, &programs)?;
    let mut tally = report.tally();
    println!("\n{} in {:.0} s", summary(&tally), start.elapsed().as_secs_f64());

    let mut streams = None;
    if !arguments.only_test_plans {
        let temporary = shell.create_temp_dir()?;
        let file = temporary.path().join("streams.json");
        tally.add(own_contract(shell, arguments, &file)?);
        streams = serde_json::from_str(&shell.read_file(&file).unwrap_or_default()).ok();
    }
    if let Some(file) = &arguments.json {
        report.write_json(file, streams.as_ref())?;
    }
    if let Some(file) = &arguments.markdown {
        report.write_markdown(file, &arguments.command(), streams.as_ref())?;
    }
    ensure!(
        tally.passed + tally.failed + tally.skipped.len() > 0,
        "nothing is called {:?}",
        arguments.filter
    );
    println!("{}", summary(&tally));
    if tally.failed > 0 {
        bail!("the matrix is not green");
    }
    Ok(())
}

/// One cell for each foreign implementation and transport, natively, and one for each of our browsers: what `cargo xtask test`
/// has time for. `built` is where our programs are; the npm package must be there, too.
pub(crate) fn subset(shell: &Shell, built: &Path) -> Result<Tally> {
    let peers = Peer::all(shell)?;
    let cells = one_of_each(Cell::all(&peers, false));
    let programs = prepare(shell, &cells, Some(built));
    Ok(play(shell, &peers, cells, &programs)?.tally())
}

/// The first cell of each foreign implementation and transport, natively, and of each of our browsers.
fn one_of_each(cells: Vec<Cell<'_>>) -> Vec<Cell<'_>> {
    let mut chosen: Vec<Cell<'_>> = Vec::new();
    for cell in cells {
        let foreign = |cell: &Cell<'_>| {
            let peer = if cell.dialer.is_ours() { cell.listener } else { cell.dialer };
            peer.implementation.clone()
        };
        let same = |other: &Cell<'_>| match (&cell.dialer.browser, &other.dialer.browser) {
            (None, None) => foreign(&cell) == foreign(other) && cell.transport == other.transport,
            (mine, theirs) => mine == theirs,
        };
        let is_foreign = cell.dialer.is_ours() != cell.listener.is_ours();
        let is_theirs_in_a_page = !cell.dialer.is_ours() && cell.dialer.browser.is_some();
        if is_foreign && !is_theirs_in_a_page && !chosen.iter().any(same) {
            chosen.push(cell);
        }
    }
    chosen
}

/// Builds the programs of whoever plays in these cells.
fn prepare(shell: &Shell, cells: &[Cell<'_>], built: Option<&Path>) -> Programs {
    let mut programs = Programs::new();
    for peer in cells.iter().flat_map(|cell| [cell.dialer, cell.listener]) {
        if !programs.contains_key(&peer.name) {
            programs.insert(peer.name.clone(), peer.prepare(shell, built));
        }
    }
    programs
}

fn play<'a>(
    shell: &Shell,
    peers: &'a [Peer],
    cells: Vec<Cell<'a>>,
    programs: &'a Programs,
) -> Result<Report<'a>> {
    let redis = debian::redis(shell)?;
    let network = Network::new();
    announce(&format!("interop: {} cells", cells.len()));
    let play = |cell: Cell<'a>| {
        let outcome = cell.play(&network, &redis, programs);
        report::print(&cell, &outcome);
        (cell, outcome)
    };
    let cells: Vec<(Cell<'a>, Outcome)> = cells.into_iter().map(play).collect();
    let peers = peers.iter().filter(|peer| programs.contains_key(&peer.name)).collect();
    Ok(Report { peers, programs, cells })
}

/// The matrix of interop/js/run.mjs, which leaves its table in `file`.
fn own_contract(shell: &Shell, arguments: &Arguments, file: &Path) -> Result<Tally> {
    announce("interop: streams, identify, relays");
    let folder = shell.current_dir().join("interop/js");
    node::npm_packages(shell, &folder)?;
    let node = node::node_for_peers(shell)?;
    let _folder = shell.push_dir(&folder);
    let filter = &arguments.filter;
    let mut options = Vec::new();
    if arguments.controls {
        options.push("--controls".into());
    }
    if let Some(programs) = &arguments.programs {
        options.extend(["--programs".into(), programs.clone()]);
    }
    crate::test::counted(cmd!(shell, "{node} run.mjs --filter {filter} --json {file} {options...}"))
}

fn summary(tally: &Tally) -> String {
    format!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len())
}

impl Arguments {
    /// How this was called, for who reads what it wrote.
    fn command(&self) -> String {
        let mut command = "cargo xtask interop".to_owned();
        if !self.filter.is_empty() {
            command.push_str(&format!(" --filter {:?}", self.filter));
        }
        if self.controls {
            command.push_str(" --controls");
        }
        if self.only_test_plans {
            command.push_str(" --only-test-plans");
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subset_has_each_foreign_peer_over_each_transport_and_each_browser_once() {
        let peers: Vec<Peer> = serde_json::from_str(include_str!("../../interop/peers.json")).unwrap();
        let names: Vec<String> = one_of_each(Cell::all(&peers, false)).iter().map(Cell::name).collect();
        for peer in peers.iter().filter(|peer| !peer.is_ours() && peer.browser.is_none()) {
            for transport in &peer.listens {
                let found = names.iter().filter(|name| {
                    name.starts_with(&format!("peerloom x {} ({transport}", peer.name))
                        && [',', ')'].iter().any(|end| name.contains(&format!("({transport}{end}")))
                });
                assert_eq!(found.count(), 1, "{} over {transport}: {names:#?}", peer.name);
            }
        }
        for browser in ["Chromium", "Firefox"] {
            assert_eq!(names.iter().filter(|name| name.contains(browser)).count(), 1, "{names:#?}");
        }
    }
}
