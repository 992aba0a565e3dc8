//! Browsers and what else comes as a package of Debian.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use super::{announce, on_path};

/// A program, by its names on different systems, and the Debian package that brings it.
struct Program(&'static [&'static str], &'static str);

const CHROMIUM: Program = Program(&["chromium", "google-chrome-stable", "google-chrome"], "chromium");
const CHROMEDRIVER: Program = Program(&["chromedriver"], "chromium-driver");
const FIREFOX: Program = Program(&["firefox-esr", "firefox"], "firefox-esr");
/// Makes network namespaces for benches and tests.
const IP: Program = Program(&["ip"], "iproute2");
/// Passes addresses between the programs of `cargo xtask interop`, as in the libp2p project's own tests.
const REDIS: Program = Program(&["redis-server"], "redis-server");
/// litep2p, a peer of `cargo xtask interop`, is built with it.
const PROTOC: Program = Program(&["protoc"], "protobuf-compiler");

/// Installs whatever is missing of all that comes from Debian, and returns where it is, by package.
pub(crate) fn everything(shell: &Shell) -> Result<Vec<(&'static str, PathBuf)>> {
    let programs = [CHROMIUM, CHROMEDRIVER, FIREFOX, IP, REDIS, PROTOC];
    let packages = programs.iter().map(|program| program.1);
    Ok(packages.zip(found(shell, &programs)?).collect())
}

pub(crate) fn chromium(shell: &Shell) -> Result<PathBuf> {
    found_one(shell, CHROMIUM)
}

pub(crate) fn chromedriver(shell: &Shell) -> Result<PathBuf> {
    // It brings no browser.
    chromium(shell)?;
    found_one(shell, CHROMEDRIVER)
}

pub(crate) fn firefox(shell: &Shell) -> Result<PathBuf> {
    found_one(shell, FIREFOX)
}

pub(crate) fn redis(shell: &Shell) -> Result<PathBuf> {
    found_one(shell, REDIS)
}

fn found_one(shell: &Shell, program: Program) -> Result<PathBuf> {
    found(shell, &[program])?.pop().context("one program was asked for")
}

/// Finds every program, after installing the packages of those that are missing.
fn found(shell: &Shell, programs: &[Program]) -> Result<Vec<PathBuf>> {
    let missing = programs.iter().filter(|Program(names, _)| on_path(names).is_none());
    let missing: Vec<&str> = missing.map(|Program(_, package)| *package).collect();
    if !missing.is_empty() {
        install(shell, &missing)?;
    }
    let find = |Program(names, package): &Program| {
        on_path(names).with_context(|| format!("the package {package} brought none of {names:?}"))
    };
    programs.iter().map(find).collect()
}

fn install(shell: &Shell, packages: &[&str]) -> Result<()> {
    let sudo = if cmd!(shell, "id -u").quiet().read()? == "0" {
        ""
    } else if cmd!(shell, "sudo -n true").quiet().ignore_stdout().ignore_stderr().run().is_ok() {
        "sudo -n "
    } else {
        let packages = packages.join(" ");
        bail!(
            "{packages} must be installed, which needs root. Run this, then start again:\n\n    \
             sudo apt-get update && sudo apt-get install --yes --no-install-recommends {packages}\n"
        );
    };
    if on_path(&["apt-get"]).is_none() {
        bail!(
            "this machine has no apt-get: install what Debian calls {}, then start again",
            packages.join(" ")
        );
    }
    announce(&format!("Installing Debian packages: {}", packages.join(" ")));
    let apt_get = format!("{sudo}env DEBIAN_FRONTEND=noninteractive apt-get");
    let packages = packages.join(" ");
    let commands = format!("{apt_get} update && {apt_get} install --yes --no-install-recommends {packages}");
    cmd!(shell, "sh -c {commands}").run()?;
    Ok(())
}
