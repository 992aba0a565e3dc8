//! Node, and the packages that the JavaScript in this repository is built and tested with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use super::{Version, announce, cached, on_path, version_of};

/// What the build needs; a machine brings it.
const OLDEST_NODE: Version = Version(20, 19, 0);

/// js-libp2p 3 asks for Node 22 or later.
const OLDEST_NODE_FOR_PEERS: Version = Version(22, 12, 0);
const NODE_FOR_PEERS: &str = "24.21.0";

/// The Node that the machine has.
pub(crate) fn node(shell: &Shell) -> Result<PathBuf> {
    let node = on_path(&["node"]).with_context(|| format!("install Node {OLDEST_NODE} or later"))?;
    let version = version_of(shell, &node).with_context(|| format!("{} does not run", node.display()))?;
    ensure!(version >= OLDEST_NODE, "Node {version} is too old: install {OLDEST_NODE} or later");
    ensure!(on_path(&["npm"]).is_some(), "install npm, which usually comes with Node");
    Ok(node)
}

/// A Node that runs js-libp2p: the machine's, or one of our own where that is too old.
pub(crate) fn node_for_peers(shell: &Shell) -> Result<PathBuf> {
    let theirs = node(shell)?;
    if version_of(shell, &theirs).is_some_and(|version| version >= OLDEST_NODE_FOR_PEERS) {
        return Ok(theirs);
    }
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => bail!("install Node {OLDEST_NODE_FOR_PEERS} or later: no package carries it for {other}"),
    };
    // A package that is nothing but the program of Node.
    let package = format!("node-linux-{architecture}");
    let root = cached(&package, NODE_FOR_PEERS)?;
    let program = |root: &Path| root.join("node_modules").join(&package).join("bin/node");
    if !program(&root).is_file() {
        announce(&format!("Installing Node {NODE_FOR_PEERS} for js-libp2p into {}", root.display()));
        let partial = cached(&package, &format!("{NODE_FOR_PEERS}.partial"))?;
        fs::create_dir_all(&partial)?;
        {
            let _folder = shell.push_dir(&partial);
            cmd!(
                shell,
                "npm install --prefix {partial} --no-save --no-package-lock {package}@{NODE_FOR_PEERS}"
            )
            .run()?;
        }
        ensure!(program(&partial).is_file(), "the package {package} holds no bin/node");
        fs::rename(&partial, &root)?;
    }
    Ok(program(&root))
}

/// Makes `node_modules` in `folder` what its package-lock.json says.
pub(crate) fn npm_packages(shell: &Shell, folder: &Path) -> Result<()> {
    node(shell)?;
    if up_to_date(folder)? {
        return Ok(());
    }
    announce(&format!("Installing npm packages into {}", folder.join("node_modules").display()));
    let _folder = shell.push_dir(folder);
    cmd!(shell, "npm ci").run()?;
    Ok(())
}

/// A program of an npm package of this repository.
pub(crate) fn npm_program(shell: &Shell, name: &str) -> Result<PathBuf> {
    let root = shell.current_dir();
    npm_packages(shell, &root)?;
    let program = root.join("node_modules/.bin").join(name);
    ensure!(program.is_file(), "no npm package brought {name}");
    Ok(program)
}

/// Whether every package of the lock file is installed in its version. Optional ones are for other platforms, or not
/// to be had here: npm decides.
fn up_to_date(folder: &Path) -> Result<bool> {
    let lock = folder.join("package-lock.json");
    let locked = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let locked: Value =
        serde_json::from_str(&locked).with_context(|| format!("{} is no JSON", lock.display()))?;
    // npm's own record of what it installed.
    let Ok(installed) = fs::read_to_string(folder.join("node_modules/.package-lock.json")) else {
        return Ok(false);
    };
    let installed: Value = serde_json::from_str(&installed).unwrap_or_default();
    let packages =
        locked.get("packages").and_then(Value::as_object).context("package-lock.json lists no packages")?;
    Ok(packages.iter().filter(|(path, _)| path.starts_with("node_modules/")).all(|(path, package)| {
        let is = |key: &str| package.get(key).is_some_and(|value| value == true);
        let here = installed.get("packages").and_then(|packages| packages.get(path));
        is("optional")
            || here.is_some_and(|here| {
                here.get("version") == package.get("version") && here.get("link") == package.get("link")
            })
    }))
}
