//! Tools that are crates: built once by `cargo install` into the cache of tools.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use super::{Version, announce, cached, on_path, prepend_to_path, version_of};

/// Runs the tests of a wasm crate in browsers.
pub(crate) fn wasm_pack(shell: &Shell) -> Result<PathBuf> {
    let fits = |version| version >= Version(0, 13, 0);
    installed(
        shell,
        &Tool { package: "wasm-pack", binary: "wasm-pack", version: "0.15.1", locked: true },
        fits,
    )
}

/// Drives Firefox for wasm-pack.
pub(crate) fn geckodriver(shell: &Shell) -> Result<PathBuf> {
    let fits = |version| version >= Version(0, 35, 0);
    installed(
        shell,
        &Tool { package: "geckodriver", binary: "geckodriver", version: "0.37.1", locked: true },
        fits,
    )
}

/// Checks licences, bans and sources of the dependencies. Older ones do not know all keys of our deny.toml.
pub(crate) fn cargo_deny(shell: &Shell) -> Result<PathBuf> {
    let fits = |version| version >= Version(0, 19, 0);
    installed(
        shell,
        &Tool { package: "cargo-deny", binary: "cargo-deny", version: "0.20.2", locked: true },
        fits,
    )
}

/// Makes the JavaScript side of the bindings. Its version must be that of the crate `wasm-bindgen` in Cargo.lock, to the digit.
pub(crate) fn wasm_bindgen(shell: &Shell) -> Result<PathBuf> {
    let version = locked_version(shell, "wasm-bindgen")?;
    let wanted = Version::find(&version).with_context(|| format!("{version} in Cargo.lock is no version"))?;
    // Not --locked: the lock file of the published crate has named versions that were withdrawn since.
    let tool = Tool { package: "wasm-bindgen-cli", binary: "wasm-bindgen", version: &version, locked: false };
    let program = installed(shell, &tool, |version| version == wanted)?;
    // wasm-pack looks for this one beside it.
    ensure!(
        program.with_file_name("wasm-bindgen-test-runner").is_file(),
        "{} lacks its companion wasm-bindgen-test-runner",
        program.display()
    );
    Ok(program)
}

struct Tool<'a> {
    package: &'a str,
    binary: &'a str,
    version: &'a str,
    locked: bool,
}

fn installed(shell: &Shell, tool: &Tool<'_>, fits: impl Fn(Version) -> bool) -> Result<PathBuf> {
    let Tool { package, binary, version, locked } = tool;
    let root = cached(package, version)?;
    // cargo moves a binary to its place only when it is complete.
    let ours = root.join("bin").join(binary);
    if !ours.is_file() {
        if let Some(found) = on_path(&[binary])
            && version_of(shell, &found).is_some_and(&fits)
        {
            return Ok(found);
        }
        announce(&format!("Building {package} {version} (once; some minutes) into {}", root.display()));
        fs::create_dir_all(&root)?;
        let locked = locked.then_some("--locked");
        // From the folder of the tool, so that no setting of this repository takes part. A tool that runs for
        // seconds does not repay the minutes that full optimisation takes.
        let _folder = shell.push_dir(&root);
        cmd!(shell, "cargo install {package} --version ={version} {locked...} --root {root}")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .run()?;
    }
    prepend_to_path(shell, &ours)?;
    Ok(ours)
}

/// The version of `package` in Cargo.lock.
fn locked_version(shell: &Shell, package: &str) -> Result<String> {
    let lock = shell.read_file("Cargo.lock")?;
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \""));
    let version = version.with_context(|| format!("{package} is not in Cargo.lock"))?;
    Ok(version.trim_end_matches('"').to_owned())
}
