//! Who plays in the matrix: what each can do, from interop/peers.json, and how its program is built and started.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use xshell::{Shell, cmd};

use crate::npm;
use crate::tools::{announce, cargo, debian, node, on_path};

/// A peer, with the transports and security protocols by which it can be met, named as in test-plans.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) implementation: String,
    /// Which it dials from; nobody listens in one.
    pub(crate) browser: Option<String>,
    pub(crate) listens: Vec<String>,
    pub(crate) dials: Vec<String>,
    /// Of transports that have none of their own.
    pub(crate) security: Vec<String>,
}

/// How a peer is started, once it is built.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, PathBuf)>,
    pub(crate) version: String,
}

/// Why a peer does not play.
#[derive(Debug, Clone)]
pub(crate) enum Absent {
    /// It is not to be had on this machine: its cells are skipped.
    Missing(String),
    /// It should be there, and is broken: its cells fail.
    Broken(String),
}

pub(crate) type Programs = HashMap<String, Result<Program, Absent>>;

impl Peer {
    pub(crate) fn all(shell: &Shell) -> Result<Vec<Self>> {
        let text = shell.read_file("interop/peers.json")?;
        serde_json::from_str(&text).context("interop/peers.json")
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.implementation == "peerloom"
    }

    /// Builds the program. What is ours has been built already if `built` is where our programs are.
    pub(crate) fn prepare(&self, shell: &Shell, built: Option<&Path>) -> Result<Program, Absent> {
        let prepared = match (self.implementation.as_str(), &self.browser) {
            (_, Some(browser)) => self.page(shell, browser, built),
            ("peerloom", None) => peerloom(shell, built),
            ("js-libp2p", None) => js_libp2p(shell),
            ("go-libp2p", None) => return go_libp2p(shell),
            ("rust-libp2p", None) => return foreign_crate(shell, "rust-libp2p-peer", "libp2p"),
            ("litep2p", None) if on_path(&["protoc"]).is_none() => {
                return Err(Absent::Missing(
                    "there is no protoc on this machine, which it is built with".to_owned(),
                ));
            }
            ("litep2p", None) => return foreign_crate(shell, "litep2p-peer", "litep2p"),
            (other, None) => Err(anyhow::anyhow!("nobody knows how to start {other}")),
        };
        prepared.map_err(|error| Absent::Broken(format!("{error:#}")))
    }

    fn page(&self, shell: &Shell, browser: &str, built: Option<&Path>) -> Result<Program> {
        let runner = node_runner(shell)?;
        // The browsers' drivers come from the packages of the repository.
        node::npm_packages(shell, &shell.current_dir())?;
        let (program, mut environment) = match browser {
            "chromium" => {
                let chromium = debian::chromium(shell)?;
                (chromium.clone(), vec![("CHROMIUM".to_owned(), chromium)])
            }
            "firefox" => {
                let firefox = debian::firefox(shell)?;
                let geckodriver = cargo::geckodriver(shell)?;
                (
                    firefox.clone(),
                    vec![("FIREFOX".to_owned(), firefox), ("GECKODRIVER".to_owned(), geckodriver)],
                )
            }
            other => bail!("no browser is called {other}"),
        };
        environment.push(("browser".to_owned(), browser.into()));
        let implementation = match self.implementation.as_str() {
            "peerloom" => {
                if built.is_none() {
                    npm::package(shell)?;
                }
                workspace_version(shell)?
            }
            _ => npm_version(shell, "libp2p")?,
        };
        let browser_version = cmd!(shell, "{program} --version").quiet().ignore_stderr().read()?;
        Ok(Program {
            program: runner,
            arguments: vec![in_interop(shell, "js/test-plans/page.mjs"), self.implementation.clone()],
            environment,
            version: format!("{implementation}, {}", browser_version.trim()),
        })
    }
}

fn peerloom(shell: &Shell, built: Option<&Path>) -> Result<Program> {
    let folder = match built {
        Some(folder) => folder.to_owned(),
        None => {
            announce("Compiling our programs");
            cmd!(shell, "cargo build --locked --package peerloom-server --package peerloom-interop").run()?;
            npm::target_folder(shell)?.join("debug")
        }
    };
    Ok(under_contract(folder.join("peerloom-interop"), workspace_version(shell)?))
}

fn js_libp2p(shell: &Shell) -> Result<Program> {
    Ok(Program {
        program: node_runner(shell)?,
        arguments: vec![in_interop(shell, "js/test-plans.mjs")],
        environment: Vec::new(),
        version: npm_version(shell, "libp2p")?,
    })
}

/// Node, with the packages of interop/js.
fn node_runner(shell: &Shell) -> Result<PathBuf> {
    node::npm_packages(shell, &shell.current_dir().join("interop/js"))?;
    node::node_for_peers(shell)
}

fn go_libp2p(shell: &Shell) -> Result<Program, Absent> {
    let go =
        on_path(&["go"]).or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()));
    let Some(go) = go else { return Err(Absent::Missing("there is no go on this machine".to_owned())) };
    let output = shell.current_dir().join("interop/target/go-libp2p-peer");
    let folder = shell.push_dir("interop/go");
    // That its modules or its toolchain cannot be had is not the program's fault; that it does not compile is.
    let fetched = cmd!(shell, "{go} mod download").quiet().ignore_stdout().run();
    fetched.map_err(|error| Absent::Missing(format!("its modules cannot be fetched: {error}")))?;
    announce("Compiling go-libp2p");
    let built = cmd!(shell, "{go} build -o {output} .").run();
    built.map_err(|error| Absent::Broken(format!("{error}")))?;
    drop(folder);
    let modules = shell.read_file("interop/go/go.mod").unwrap_or_default();
    let line = modules.lines().find(|line| line.contains("github.com/libp2p/go-libp2p v"));
    let version = line.and_then(|line| line.split_whitespace().find(|word| word.starts_with('v')));
    Ok(under_contract(output, version.unwrap_or("?").trim_start_matches('v').to_owned()))
}

fn foreign_crate(shell: &Shell, package: &str, library: &str) -> Result<Program, Absent> {
    let _folder = shell.push_dir("interop");
    let fetched = cmd!(shell, "cargo fetch --locked").quiet().ignore_stdout().run();
    fetched.map_err(|error| Absent::Missing(format!("its crates cannot be fetched: {error}")))?;
    let built = || -> Result<Program> {
        announce(&format!("Compiling {library} and its peer"));
        cmd!(shell, "cargo build --locked --package {package}").run()?;
        let program = npm::target_folder(shell)?.join("debug").join(package);
        let lock = shell.read_file("Cargo.lock")?;
        Ok(under_contract(program, locked_version(&lock, library).context("no version in Cargo.lock")?))
    };
    built().map_err(|error| Absent::Broken(format!("{error:#}")))
}

/// A program that has the contract of test-plans beside another one.
fn under_contract(program: PathBuf, version: String) -> Program {
    Program { program, arguments: vec!["test-plans".to_owned()], environment: Vec::new(), version }
}

fn in_interop(shell: &Shell, file: &str) -> String {
    shell.current_dir().join("interop").join(file).display().to_string()
}

/// The version of a package in a Cargo.lock.
fn locked_version(lock: &str, package: &str) -> Option<String> {
    let mut lines = lock.lines();
    lines.find(|line| *line == format!("name = \"{package}\""))?;
    Some(lines.next()?.strip_prefix("version = ")?.trim_matches('"').to_owned())
}

fn workspace_version(shell: &Shell) -> Result<String> {
    let lock = shell.read_file("Cargo.lock")?;
    locked_version(&lock, "peerloom-interop").context("no version in Cargo.lock")
}

fn npm_version(shell: &Shell, package: &str) -> Result<String> {
    let manifest = shell.read_file(format!("interop/js/node_modules/{package}/package.json"))?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
    let version = manifest.get("version").and_then(serde_json::Value::as_str);
    Ok(version.with_context(|| format!("{package} has no version"))?.to_owned())
}

impl Program {
    /// The program as `command`, which may be something that starts it elsewhere.
    pub(crate) fn complete(&self, command: &mut Command) {
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_lock_files() {
        let lock = "[[package]]\nname = \"libp2p\"\nversion = \"0.57.1\"\n\n[[package]]\nname = \"libp2p-noise\"\n\
                    version = \"1.0.0\"\n";
        assert_eq!(locked_version(lock, "libp2p").as_deref(), Some("0.57.1"));
        assert_eq!(locked_version(lock, "libp2p-tls"), None);
    }

    #[test]
    fn whoever_is_described_dials_and_is_secured_by_what_there_is() {
        let peers: Vec<Peer> = serde_json::from_str(include_str!("../../../interop/peers.json")).unwrap();
        for peer in peers {
            assert!(!peer.dials.is_empty(), "{}", peer.name);
            assert!(peer.browser.is_none() || peer.listens.is_empty(), "{}", peer.name);
            assert!(peer.security.iter().all(|name| ["noise", "tls"].contains(&name.as_str())));
        }
    }
}
