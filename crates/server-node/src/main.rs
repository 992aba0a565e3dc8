//! `peerloom`: a libp2p node for operators and for programs in other languages, and the two commands that measure one from
//! outside.

mod autonat;
mod cli;
mod client;
mod config;
mod daemon;
mod echo;
mod gating;
mod identity;
mod limits;
mod liveness;
mod network;
mod open_files;
mod perf;
mod ping;
mod port_mapping;
mod relay;
mod resource_metrics;
mod run;
mod status;
mod webrtc;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            cli::Command::Run(arguments) => run::run(arguments).await,
            cli::Command::Daemon(arguments) => daemon::daemon(arguments).await,
            cli::Command::Id(arguments) => identity::print(&arguments),
            cli::Command::Ping(arguments) => ping::ping(arguments).await,
            cli::Command::Perf(arguments) => perf::perf(arguments).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One line that names the key, the address or the file, and exit code 1.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("peerloom: {error:#}");
    ExitCode::FAILURE
}
