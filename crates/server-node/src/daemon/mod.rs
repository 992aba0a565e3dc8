//! `peerloom daemon`: a node that programs in any language drive, over the control protocol of libp2p's daemon (p2pd).
//!
//! A client connects to the control socket and sends requests, one answer each. A stream has a socket of its own: the control
//! connection on which it was asked for, or one that the daemon makes to the client that handles its protocol.

mod address;
mod control;
mod handlers;
mod pipe;
mod protocol;
mod socket;
mod wire;

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use peerloom_core::runtime::{TaskSet, sleep};
use tokio::sync::Semaphore;

pub(crate) use self::address::LocalAddress;
use self::{control::Daemon, handlers::Handlers, socket::Listener};
use crate::{cli::DaemonArguments, config::Config, run::Running};

/// Control connections at one time, the streams that clients have opened among them. Further clients wait to be accepted.
const MAX_CONTROL_CONNECTIONS: usize = 1024;
/// What the process has too few of, such as file descriptors, may be there again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Of the control socket, in the data directory.
const SOCKET_NAME: &str = "control.sock";

pub(crate) async fn daemon(arguments: DaemonArguments) -> anyhow::Result<()> {
    let config = Config::load(arguments.node)?;
    let control = arguments.listen_control.unwrap_or_else(|| default_address(&config.data_dir));
    let mut running = Running::prepare(config).await?;
    let listener = Listener::bind(&control).await?;
    running.listen().await?;
    println!("control {}", listener.address().context("control")?);
    println!("ready");

    let daemon = Daemon {
        // The protocols are up to the clients, as far as they are not the node's own.
        node: running.node.clone(),
        handlers: Handlers::new(),
        trim_to: arguments.trim_to,
    };
    tokio::select! {
        outcome = running.until_terminated() => outcome,
        never = serve(&listener, Arc::new(daemon)) => match never {},
    }
}

fn default_address(data_dir: &Path) -> LocalAddress {
    LocalAddress::unix(&std::path::absolute(data_dir).unwrap_or(data_dir.to_owned()).join(SOCKET_NAME))
}

/// Serves clients until the future is dropped, and they with it.
async fn serve(listener: &Listener, daemon: Arc<Daemon>) -> Infallible {
    let clients = TaskSet::default();
    let slots = Arc::new(Semaphore::new(MAX_CONTROL_CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await;
        match listener.accept().await {
            Ok(socket) => {
                let daemon = daemon.clone();
                clients.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = daemon.serve(socket).await {
                        tracing::debug!(%error, "a client's control connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no client can be accepted");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
