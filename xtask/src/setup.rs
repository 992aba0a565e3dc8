//! `cargo xtask setup`: everything that a machine with git, a Rust toolchain, Node and a C compiler lacks.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::tools::{self, cargo, debian, node, on_path, wasm_target};

/// Installs what is missing and says where everything is.
pub(crate) fn run(shell: &Shell) -> Result<()> {
    let root = shell.current_dir();
    report(shell, "C compiler", &c_compiler()?);
    report(shell, "node", &node::node(shell)?);
    rust_components(shell)?;
    report(shell, "wasm32 std", &wasm_target::wasm_target(shell)?);

    for (package, program) in debian::everything(shell)? {
        report(shell, package, &program);
    }
    report(shell, "wasm-bindgen", &cargo::wasm_bindgen(shell)?);
    report(shell, "wasm-pack", &cargo::wasm_pack(shell)?);
    report(shell, "geckodriver", &cargo::geckodriver(shell)?);
    report(shell, "cargo-deny", &cargo::cargo_deny(shell)?);

    node::npm_packages(shell, &root)?;
    report(shell, "npm packages", &root.join("node_modules"));
    report(shell, "node for peers", &node::node_for_peers(shell)?);
    println!("Everything is there.");
    Ok(())
}

/// rustfmt and clippy: part of rustup's default profile, not of its minimal one.
pub(crate) fn rust_components(shell: &Shell) -> Result<()> {
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        if on_path(&[program]).is_none() || cmd!(shell, "{program} --version").quiet().read().is_err() {
            tools::announce(&format!("Installing the Rust component {component}"));
            cmd!(shell, "rustup component add {component}").run()?;
        }
    }
    Ok(())
}

/// Some dependencies contain C: without a compiler, their builds fail late and obscurely.
fn c_compiler() -> Result<PathBuf> {
    ensure!(on_path(&["git"]).is_some(), "install git");
    on_path(&["cc", "gcc", "clang"]).context("install a C compiler, for example the Debian package gcc")
}

fn report(shell: &Shell, name: &str, place: &Path) {
    // Starting a browser to hear its version would take longer than all else together.
    let version =
        if ["node", "node for peers"].contains(&name) { tools::version_of(shell, place) } else { None };
    let version = version.map(|version| format!(" ({version})")).unwrap_or_default();
    println!("  {name:<16} {}{version}", place.display());
}
