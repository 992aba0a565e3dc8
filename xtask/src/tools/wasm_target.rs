//! The standard library for wasm32-unknown-unknown.
//!
//! rustup brings it. Where rustup cannot download, it is built from the sources that Debian packages for the same
//! version of rustc: cargo's `-Z build-std` compiles them, and the result is put where rustup would have put it, so
//! that every later command is plain `cargo build --target wasm32-unknown-unknown`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use xshell::{Cmd, Shell, cmd};

use super::{announce, on_path, run_at_most};

const TARGET: &str = "wasm32-unknown-unknown";

/// A download takes seconds; a network that drops packets silently would hold rustup up for ever.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// Suites of Debian that carry a rustc as new as ours, in the order of trying.
const SUITES: [&str; 4] = ["trixie-backports", "forky", "sid", "trixie"];

/// Makes sure that the toolchain in use can compile for wasm32; returns the folder of the libraries.
pub(crate) fn wasm_target(shell: &Shell) -> Result<PathBuf> {
    let sysroot = PathBuf::from(cmd!(shell, "rustc --print sysroot").quiet().read()?);
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    if has_std(&libraries) {
        return Ok(libraries);
    }
    announce(&format!("Installing the standard library for {TARGET}"));
    if on_path(&["rustup"]).is_some() {
        let rustup = cmd!(shell, "rustup target add {TARGET}");
        eprintln!("$ {rustup}");
        match run_at_most(RUSTUP_LIMIT, &mut rustup.into())? {
            Some(status) if status.success() && has_std(&libraries) => return Ok(libraries),
            Some(status) => eprintln!("rustup did not bring it ({status})"),
            None => eprintln!("rustup was stopped after {} s", RUSTUP_LIMIT.as_secs()),
        }
    }
    eprintln!("Building it from the sources that Debian packages");
    let scratch = shell.create_temp_dir()?;
    let sources = debian_sources(shell, scratch.path())?;
    build(shell, scratch.path(), &sources, &sysroot, &libraries)?;
    ensure!(has_std(&libraries), "the build left no libstd in {}", libraries.display());
    // Artefacts that were built against another std do not link with this one.
    let stale = shell.current_dir().join("target").join(TARGET);
    if stale.exists() {
        fs::remove_dir_all(stale)?;
    }
    Ok(libraries)
}

fn has_std(libraries: &Path) -> bool {
    let Ok(files) = fs::read_dir(libraries) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Unpacks Debian's package `rust-src` of the version of our rustc; returns its folder `library`.
///
/// The package comes from the mirrors that the machine uses already, read by an apt configuration of our own: the
/// system's list of sources and its state stay as they are, and no root is needed.
fn debian_sources(shell: &Shell, scratch: &Path) -> Result<PathBuf> {
    ensure!(
        on_path(&["apt-get"]).is_some() && on_path(&["dpkg"]).is_some(),
        "neither rustup nor apt-get can bring it"
    );
    let version = rustc_version(shell)?;
    let lists = scratch.join("lists");
    let cache = scratch.join("cache");
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(cache.join("archives/partial"))?;
    let source_list = scratch.join("sources.list");
    let settings = [
        format!("-oDir::State::Lists={}", lists.display()),
        format!("-oDir::Cache={}", cache.display()),
        format!("-oDir::Etc::SourceList={}", source_list.display()),
        "-oDir::Etc::SourceParts=/dev/null".to_owned(),
        // As root, apt would download as a user who may not read our scratch folder.
        "-oAPT::Sandbox::User=root".to_owned(),
    ];
    let settings = &settings;
    let _folder = shell.push_dir(scratch);
    for mirror in debian_mirrors()? {
        for suite in SUITES {
            let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
            fs::write(&source_list, format!("deb [signed-by={keyring}] {mirror} {suite} main\n"))?;
            let package = format!("rust-src={version}*");
            let fetched = cmd!(shell, "apt-get {settings...} update").run().is_ok()
                && cmd!(shell, "apt-get {settings...} download {package}").run().is_ok();
            if !fetched {
                continue;
            }
            let package = fs::read_dir(scratch)?
                .flatten()
                .map(|entry| entry.path())
                .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
                .context("apt-get download left no package")?;
            let unpacked = scratch.join("unpacked");
            cmd!(shell, "dpkg -x {package} {unpacked}").run()?;
            return Ok(unpacked.join(format!("usr/src/rustc-{version}/library")));
        }
    }
    bail!(
        "no suite of Debian that this machine reaches has rust-src {version}; run `rustup target add {TARGET}`"
    )
}

fn rustc_version(shell: &Shell) -> Result<String> {
    let printed = cmd!(shell, "rustc --version --verbose").quiet().read()?;
    let release = printed.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.context("rustc does not tell its release")?.to_owned())
}

/// The Debian mirrors in the machine's own apt sources (not those of the security archive, which has no such suites).
fn debian_mirrors() -> Result<Vec<String>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.flatten().map(|part| part.path()));
    }
    let mut mirrors = Vec::new();
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        for mirror in mirrors_in(&text) {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    ensure!(!mirrors.is_empty(), "the apt sources of this machine name no Debian mirror");
    Ok(mirrors)
}

/// Understands both formats of sources.list(5): `deb … URI suite …` and `URIs: URI …`.
fn mirrors_in(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace)
        .filter(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
        .collect()
}

/// Compiles std for wasm32 and copies it, and its sources, to where the toolchain looks for them.
fn build(shell: &Shell, scratch: &Path, sources: &Path, sysroot: &Path, libraries: &Path) -> Result<()> {
    let rust_src = sysroot.join("lib/rustlib/src/rust");
    fs::create_dir_all(&rust_src)
        .with_context(|| format!("cannot write into the toolchain at {}", sysroot.display()))?;
    cmd!(shell, "cp -rT {sources} {rust_src}/library").run()?;

    let crate_folder = scratch.join("build");
    fs::create_dir_all(crate_folder.join("src"))?;
    fs::write(crate_folder.join("src/lib.rs"), "")?;
    fs::write(
        crate_folder.join("Cargo.toml"),
        "[package]\nname = \"nothing\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n",
    )?;
    let _folder = shell.push_dir(&crate_folder);
    let build: Cmd<'_> = cmd!(shell, "cargo build --release --target {TARGET}")
        .arg("-Zbuild-std=std,test,panic_abort,panic_unwind,proc_macro")
        .env("RUSTC_BOOTSTRAP", "1")
        // Without bitcode, whatever is built with `lto = true` fails to link.
        .env("RUSTFLAGS", "-Cembed-bitcode=yes")
        .env("CARGO_TARGET_DIR", crate_folder.join("target"));
    build.run()?;

    fs::create_dir_all(libraries)?;
    let built = crate_folder.join("target").join(TARGET).join("release/deps");
    for file in fs::read_dir(&built)?.flatten().map(|entry| entry.path()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libnothing-") {
            fs::copy(&file, libraries.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_in_both_formats_of_apt_sources() {
        let one_line = "# deb http://old.example/debian sid main\n\
                        deb [arch=amd64] http://mirror.example/debian bookworm main\n\
                        deb http://mirror.example/debian-security bookworm-security main\n";
        assert_eq!(mirrors_in(one_line), ["http://mirror.example/debian"]);
        let deb822 =
            "Types: deb\nURIs: https://one.example/debian/ https://two.example/ubuntu\nSuites: bookworm\n";
        assert_eq!(mirrors_in(deb822), ["https://one.example/debian/"]);
    }
}
