//! The programs that a build of Peerloom needs beside cargo. Each has a function that returns where the program is,
//! installing it first where it is missing.
//!
//! What we build ourselves lies outside target/, so that `cargo clean` and a fresh clone keep it: in
//! `$PEERLOOM_TOOLS`, else `$XDG_CACHE_HOME/peerloom/tools`, else `~/.cache/peerloom/tools`, one folder per tool and version.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

pub(crate) mod cargo;
pub(crate) mod debian;
pub(crate) mod node;
pub(crate) mod wasm_target;

/// `major.minor.patch`, as tools print it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u64, pub(crate) u64, pub(crate) u64);

impl Version {
    /// The first version in `text`, which may carry a `v` in front and a suffix behind.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || c == '"').find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.trim_start_matches('v').splitn(3, '.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).map_or(part, |end| part.split_at(end).0);
            digits.parse::<u64>().ok()
        });
        Some(Self(numbers.next()??, numbers.next()??, numbers.next()??))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Where `name-version` is kept, whether or not it exists yet.
pub(crate) fn cached(name: &str, version: &str) -> Result<PathBuf> {
    let tools = match (env::var_os("PEERLOOM_TOOLS"), env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(tools), _, _) => PathBuf::from(tools),
        (None, Some(cache), _) => Path::new(&cache).join("peerloom/tools"),
        (None, None, Some(home)) => Path::new(&home).join(".cache/peerloom/tools"),
        (None, None, None) => anyhow::bail!("set PEERLOOM_TOOLS to a folder where built tools may be kept"),
    };
    Ok(std::path::absolute(tools)?.join(format!("{name}-{version}")))
}

/// The first of `names` that is a program on the PATH. Also looks where Debian keeps programs that only root has on its PATH.
pub(crate) fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// The version that `program --version` prints; `None` if it does not run.
pub(crate) fn version_of(shell: &Shell, program: &Path) -> Option<Version> {
    let printed = cmd!(shell, "{program} --version").quiet().ignore_stderr().read().ok()?;
    Version::find(&printed)
}

/// Puts the folder of `program` first on the PATH of every command that `shell` runs from here on.
pub(crate) fn prepend_to_path(shell: &Shell, program: &Path) -> Result<()> {
    let folder = program.parent().context("a program lies in a folder")?;
    let path = shell.var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).next().as_deref() == Some(folder) {
        return Ok(());
    }
    let path: OsString = env::join_paths(std::iter::once(folder.to_owned()).chain(env::split_paths(&path)))?;
    shell.set_var("PATH", path);
    Ok(())
}

/// Says what is about to happen, before something that takes a while.
pub(crate) fn announce(what: &str) {
    eprintln!("\x1b[1m==> {what}\x1b[0m");
}

/// Runs `command` to its end, but stops it after `limit`; `None` is a command that was stopped.
pub(crate) fn run_at_most(limit: Duration, command: &mut Command) -> Result<Option<ExitStatus>> {
    let mut child: Child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_print() {
        let find = |text| Version::find(text).map(|version| version.to_string());
        assert_eq!(find("wasm-bindgen 0.2.130").as_deref(), Some("0.2.130"));
        assert_eq!(find("v20.20.2\n").as_deref(), Some("20.20.2"));
        assert_eq!(find("geckodriver 0.37.1 (deadbeef 2026-10-01)").as_deref(), Some("0.37.1"));
        assert_eq!(find("Mozilla Firefox 153.7.0esr").as_deref(), Some("153.7.0"));
        assert_eq!(find("no version at all, not even 1.2"), None);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(Version(0, 9, 9) < Version(0, 10, 0));
    }
}
