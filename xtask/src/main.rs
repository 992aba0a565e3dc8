//! `cargo xtask`: the one entry to everything that is done with this repository. Each subcommand is a file of that
//! name, and installs what it needs itself.

#![allow(clippy::disallowed_methods, reason = "xtask runs natively only: std's clock is the right one")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use xshell::Shell;

mod background;
mod bench;
mod check;
mod demo;
mod fuzz;
mod interop;
mod npm;
mod peerloom_server;
mod setup;
mod soak;
mod static_server;
mod test;
mod tools;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Builds, runs and checks Peerloom", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what this machine lacks; quick when nothing is missing
    Setup,
    /// Start a server and a web page that connects to it, and print the page's URL
    Demo {
        /// The port of the page on 127.0.0.1; if it is taken, a free one is used
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Run every test: natively, in browsers and against foreign peers
    Test {
        /// Only the suites whose name contains this
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
    },
    /// Check formatting, lints, types, licences and dependencies; warnings are errors
    Check,
    /// Let ours meet foreign peers, over every transport, in both directions, natively and in browsers
    Interop(interop::Arguments),
    /// Measure ours beside others, and print a table
    Bench {
        /// What to measure: browser, b2b, native
        name: String,
        /// Only what contains this: native has parts such as `quic throughput` or `tcp link`
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        /// Write the rows to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Connect and leave again and again from a browser; everything must return to where it began
    Soak {
        /// How long; fractions are fine
        #[arg(long, value_name = "N", default_value_t = 10.0)]
        minutes: f64,
    },
    /// Give every decoder and state machine bytes that nobody has thought of
    Fuzz {
        /// Only the targets whose name contains this
        #[arg(long, value_name = "TEXT")]
        target: Option<String>,
        /// For each of them
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u64,
        /// Put what was found into fuzz/corpus, as few files as cover the same
        #[arg(long)]
        keep: bool,
        /// Only these inputs, once each, with what goes wrong
        #[arg(long, value_name = "FILE", num_args = 1..)]
        replay: Vec<PathBuf>,
    },
    /// Build the npm package into npm/dist and print its sizes
    Npm,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Not by returning it, which would add a backtrace where RUST_BACKTRACE is set for the sake of tests.
        Err(error) => {
            eprintln!("\x1b[1;31merror:\x1b[0m {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(repository_root()?);
    match command {
        Command::Setup => setup::run(&shell),
        Command::Demo { port } => demo::run(&shell, port),
        Command::Test { filter } => test::run(&shell, filter.as_deref().unwrap_or_default()),
        Command::Check => check::run(&shell),
        Command::Interop(arguments) => interop::run(&shell, &arguments),
        Command::Bench { name, filter, json } => {
            bench::run(&shell, &name, filter.as_deref().unwrap_or_default(), json.as_deref())
        }
        Command::Soak { minutes } => soak::run(&shell, minutes),
        Command::Fuzz { target, seconds, keep, replay } => {
            let target = target.as_deref().unwrap_or_default();
            fuzz::run(&shell, &fuzz::Options { target, seconds, keep, replay: &replay })
        }
        Command::Npm => npm::run(&shell),
    }
}

/// Where the repository is checked out: cargo says so to what it runs.
fn repository_root() -> Result<PathBuf> {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").context("start xtask with `cargo xtask`")?;
    Ok(Path::new(&xtask).parent().context("xtask lies in the repository")?.to_owned())
}
