//! What came out of the cells: as lines while they are played, as Markdown and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::cell::{Cell, Outcome};
use super::peers::{Absent, Peer, Programs};
use crate::test::Tally;

/// In a file that is written again, what follows this line stays as it is.
const BY_HAND: &str = "<!-- By hand from here on. -->";

/// The cells that were played, in their order.
pub(crate) struct Report<'a> {
    pub(crate) peers: Vec<&'a Peer>,
    pub(crate) programs: &'a Programs,
    pub(crate) cells: Vec<(Cell<'a>, Outcome)>,
}

/// One line, and if the cell failed, what both programs said.
pub(crate) fn print(cell: &Cell<'_>, outcome: &Outcome) {
    let name = cell.name();
    match outcome {
        Outcome::Passed { handshake_plus_one_round_trip, ping } => {
            println!("{name:<72} {handshake_plus_one_round_trip:>8.2} ms {ping:>8.2} ms");
        }
        Outcome::Skipped { reason } => println!("{name:<72} skipped: {reason}"),
        Outcome::Failed { reason, dialer, listener } => {
            println!("{name:<72} FAILED: {reason}");
            for (who, tail) in [("dialer", dialer), ("listener", listener)] {
                tail.lines().for_each(|line| println!("    {who}: {line}"));
            }
        }
    }
}

impl Report<'_> {
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (cell, outcome) in &self.cells {
            match outcome {
                Outcome::Passed { .. } => tally.passed += 1,
                Outcome::Failed { .. } => tally.failed += 1,
                Outcome::Skipped { reason } => tally.skipped.push(format!("{}: {reason}", cell.name())),
            }
        }
        tally
    }

    pub(crate) fn write_json(&self, file: &Path, streams: Option<&Value>) -> Result<()> {
        let peers: Vec<Value> = self
            .peers
            .iter()
            .map(|peer| json!({ "name": peer.name, "version": self.version(peer) }))
            .collect();
        let cells: Vec<Value> = self.cells.iter().map(|(cell, outcome)| json_of(cell, outcome)).collect();
        let all = json!({ "peers": peers, "cells": cells, "streams": streams });
        fs::write(file, format!("{all:#}\n")).with_context(|| format!("cannot write {}", file.display()))
    }

    pub(crate) fn write_markdown(&self, file: &Path, command: &str, streams: Option<&Value>) -> Result<()> {
        let mut text = self.markdown(command);
        if let Some(streams) = streams {
            text.push_str(&streams_markdown(streams));
        }
        let before = fs::read_to_string(file).unwrap_or_default();
        let by_hand = before.split_once(BY_HAND).map_or("\n", |(_, rest)| rest);
        fs::write(file, format!("{text}\n{BY_HAND}{by_hand}"))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn markdown(&self, command: &str) -> String {
        let tally = self.tally();
        let mut text = format!(
            "# Interop\n\nEvery peer meets every other one under the contract of libp2p's \
             [test-plans](https://github.com/libp2p/test-plans/tree/master/transport-interop): the dialer connects, and \
             pings once. Written by `{command}`; {} cells passed, {} failed, {} were skipped.\n\n| peer | version |\n\
             |---|---|\n",
            tally.passed,
            tally.failed,
            tally.skipped.len()
        );
        for peer in &self.peers {
            let _ = writeln!(text, "| {} | {} |", peer.name, self.version(peer));
        }
        text.push_str(
            "\nA row is a dialer, a column a listener. The numbers are milliseconds, of processes that have just started: \
             from the dial to the answer of the first ping, and of that ping.\n",
        );
        for how in self.sections() {
            let _ = write!(text, "\n## {how}\n\n| |");
            let cells: Vec<_> = self.cells.iter().filter(|(cell, _)| section(cell) == how).collect();
            let takes_part = |peer: &&&Peer, side: fn(&Cell<'_>) -> String| {
                cells.iter().any(|(cell, _)| side(cell) == peer.name)
            };
            let listeners: Vec<_> = self
                .peers
                .iter()
                .filter(|peer| takes_part(peer, |cell| cell.listener.name.clone()))
                .collect();
            let dialers: Vec<_> =
                self.peers.iter().filter(|peer| takes_part(peer, |cell| cell.dialer.name.clone())).collect();
            listeners.iter().for_each(|listener| _ = write!(text, " {} |", listener.name));
            let _ = writeln!(text, "\n|---|{}", "---|".repeat(listeners.len()));
            for dialer in dialers {
                let _ = write!(text, "| {} |", dialer.name);
                for listener in &listeners {
                    let found = cells.iter().find(|(cell, _)| {
                        cell.dialer.name == dialer.name && cell.listener.name == listener.name
                    });
                    let _ =
                        write!(text, " {} |", found.map(|(_, outcome)| short(outcome)).unwrap_or_default());
                }
                text.push('\n');
            }
        }
        text
    }

    /// Every transport with what secures it, in the order of the cells.
    fn sections(&self) -> Vec<String> {
        let mut sections = Vec::new();
        for (cell, _) in &self.cells {
            let how = section(cell);
            if !sections.contains(&how) {
                sections.push(how);
            }
        }
        sections
    }

    fn version(&self, peer: &Peer) -> String {
        match self.programs.get(&peer.name) {
            Some(Ok(program)) => program.version.clone(),
            Some(Err(Absent::Missing(reason))) => format!("skipped: {}", first_line(reason)),
            Some(Err(Absent::Broken(reason))) => format!("broken: {}", first_line(reason)),
            None => String::new(),
        }
    }
}

fn section(cell: &Cell<'_>) -> String {
    match cell.security {
        Some(security) => format!("{}, {security}, yamux", cell.transport),
        None => cell.transport.to_owned(),
    }
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed { handshake_plus_one_round_trip, ping } => {
            format!("{handshake_plus_one_round_trip:.1} / {ping:.1}")
        }
        Outcome::Failed { reason, .. } => format!("**failed**: {}", first_line(reason).replace('|', "\\|")),
        Outcome::Skipped { .. } => "skipped".to_owned(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn json_of(cell: &Cell<'_>, outcome: &Outcome) -> Value {
    let mut value = json!({
        "name": cell.name(),
        "dialer": cell.dialer.name,
        "listener": cell.listener.name,
        "transport": cell.transport,
        "security": cell.security,
        "muxer": cell.security.map(|_| "yamux"),
    });
    let result = match outcome {
        Outcome::Passed { handshake_plus_one_round_trip, ping } => json!({
            "outcome": "passed",
            "handshakePlusOneRTTMillis": handshake_plus_one_round_trip,
            "pingRTTMillis": ping,
        }),
        Outcome::Failed { reason, dialer, listener } => {
            json!({ "outcome": "failed", "reason": reason, "dialerSaid": dialer, "listenerSaid": listener })
        }
        Outcome::Skipped { reason } => json!({ "outcome": "skipped", "reason": reason }),
    };
    if let (Some(fields), Value::Object(result)) = (value.as_object_mut(), result) {
        fields.extend(result);
    }
    value
}

/// The table of interop/js/run.mjs: rows with the outcome of each check.
fn streams_markdown(streams: &Value) -> String {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks: Vec<String> = list(streams, "checks").iter().map(text).collect();
    let mut markdown = format!(
        "\n## Streams, identify, relays\n\nThe same peers under the contract of this project, which asks more of them \
         ([interop/README.md](../interop/README.md)).\n\n| | {} |\n|---|{}\n",
        checks.join(" | "),
        "---|".repeat(checks.len())
    );
    for row in list(streams, "rows") {
        let name = row.get("name").map(text).unwrap_or_default();
        if let Some(reason) = row.get("skipped").and_then(Value::as_str) {
            let _ = writeln!(
                markdown,
                "| {name} | skipped: {} |{}",
                first_line(reason),
                " |".repeat(checks.len() - 1)
            );
            continue;
        }
        let result = |check: &String| row.get("results").and_then(|results| results.get(check)).map(text);
        let cells: Vec<String> = checks.iter().map(|check| result(check).unwrap_or_default()).collect();
        let _ = writeln!(markdown, "| {name} | {} |", cells.join(" | "));
    }
    markdown
}
