//! Dialers that have not said yet what they want.
//!
//! Every dialer of libp2p speaks first, and its first bytes follow the connection at once. One that says nothing must not
//! take the place of one that does: so many may be silent, and for one more the one that has been silent for longest goes.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::{
    StreamExt as _,
    future::{AbortHandle, Abortable, abortable},
    stream::FuturesUnordered,
};
use peerloom_core::{
    HandshakeError, Prefixed,
    runtime::{BoxFuture, timeout},
};
use tokio::net::TcpStream;

use super::port::{Service, classify};

/// Dialers that may be silent at one time. Each has a descriptor and some hundred bytes of memory. As many can come while the
/// first bytes of an honest one are on their way.
const MAX_SILENT: usize = 256;
/// How long a dialer may be silent where nobody needs its place.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);

/// A dialer of whom something has been heard: where it is, and what it wants or why that is not known.
pub(super) type Heard = (SocketAddr, Result<(Service, Prefixed<TcpStream>), HandshakeError>);
type Hearing = Abortable<BoxFuture<'static, (u64, Option<Heard>)>>;

#[derive(Default)]
pub(super) struct Newcomers {
    listening: FuturesUnordered<Hearing>,
    /// The longest silent first.
    silent: BTreeMap<u64, AbortHandle>,
    next: u64,
}

impl Newcomers {
    /// Hears what this dialer wants.
    pub(super) fn admit(&mut self, stream: TcpStream, remote: SocketAddr) {
        if self.silent.len() >= MAX_SILENT
            && let Some((_, oldest)) = self.silent.pop_first()
        {
            oldest.abort();
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        let hearing: BoxFuture<'static, _> = Box::pin(async move {
            let heard = timeout(FIRST_BYTES_TIMEOUT, classify(stream)).await;
            (id, heard.ok().map(|service| (remote, service)))
        });
        let (hearing, handle) = abortable(hearing);
        self.listening.push(hearing);
        self.silent.insert(id, handle);
    }

    /// The next dialer of whom something is heard; never, while there are none. Cancel-safe.
    pub(super) async fn heard(&mut self) -> Heard {
        loop {
            match self.listening.next().await {
                Some(Ok((id, heard))) => {
                    self.silent.remove(&id);
                    if let Some(heard) = heard {
                        return heard;
                    }
                }
                // It has made room.
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }
}
