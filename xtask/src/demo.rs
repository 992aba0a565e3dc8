//! `cargo xtask demo`: a server, and the page that connects to it.

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::peerloom_server::{self, PeerloomServer};
use crate::static_server::{Response, StaticServer};
use crate::tools::{announce, node};
use crate::{background, npm};

/// Runs the demo until Ctrl-C, on `port` or, if that is taken, on a free one.
pub(crate) fn run(shell: &Shell, port: u16) -> Result<()> {
    background::end_with_xtask()?;
    build_page(shell)?;
    let binary = peerloom_server::build(shell)?;
    // Kept, so that the server is the same peer whenever the demo runs.
    let data = npm::target_folder(shell)?.join("demo");
    let mut server = PeerloomServer::start_in(&binary, &data)?;
    let site = serve(shell, &server, port).or_else(|taken| {
        eprintln!("{taken:#}: using a free port instead");
        serve(shell, &server, 0)
    })?;
    println!("\nThe demo is at {}   (Ctrl-C ends it)", site.url());
    server.wait()
}

/// Builds the package and the page that uses it, into examples/web/dist/.
pub(crate) fn build_page(shell: &Shell) -> Result<()> {
    npm::package(shell)?;
    let vite = node::npm_program(shell, "vite")?;
    announce("Building the demo page");
    cmd!(shell, "{vite} build --logLevel warn examples/web").run()?;
    Ok(())
}

/// Serves the page; it reads from /peerloom.json which peer to connect to.
pub(crate) fn serve(shell: &Shell, server: &PeerloomServer, port: u16) -> Result<StaticServer> {
    let description = server.describe();
    let handler = move |_: &str, path: &str| (path == "/peerloom.json").then(|| Response::json(&description));
    StaticServer::start(port, Some(shell.current_dir().join("examples/web/dist")), Box::new(handler))
}
