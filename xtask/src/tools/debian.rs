//! Browsers and what else comes as a package of Debian.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use super::{announce, on_path};

/// The browsers that tests run in, and the driver that belongs to the first.
pub(crate) struct Browsers {
    pub(crate) chromium: PathBuf,
    pub(crate) chromedriver: PathBuf,
    pub(crate) firefox: PathBuf,
}

/// Finds the browsers and their driver, installing those that are missing.
pub(crate) fn browsers(shell: &Shell) -> Result<Browsers> {
    let [chromium, chromedriver, firefox] = programs(
        shell,
        [
            (&["chromium", "google-chrome-stable", "google-chrome"], "chromium"),
            (&["chromedriver"], "chromium-driver"),
            (&["firefox-esr", "firefox"], "firefox-esr"),
        ],
    )?;
    Ok(Browsers { chromium, chromedriver, firefox })
}

/// `ip`, with which tests and benches make network namespaces.
pub(crate) fn iproute2(shell: &Shell) -> Result<PathBuf> {
    let [ip] = programs(shell, [(&["ip"], "iproute2")])?;
    Ok(ip)
}

/// Finds one program for each list of names, after installing the packages of those that are missing.
fn programs<const N: usize>(shell: &Shell, wanted: [(&[&str], &str); N]) -> Result<[PathBuf; N]> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(names, _)| on_path(names).is_none()).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        install(shell, &missing)?;
    }
    let mut found = Vec::with_capacity(N);
    for (names, package) in wanted {
        found
            .push(on_path(names).with_context(|| format!("package {package} brought no program {names:?}"))?);
    }
    found.try_into().map_err(|_| anyhow::anyhow!("one program for each wish"))
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
