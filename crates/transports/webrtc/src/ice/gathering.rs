//! Server-reflexive candidates: asking STUN servers where we are seen (RFC 8445 section 5.1.1.2).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Path, later, token::SessionToken};
use crate::stun::{self, Message, TransactionId};

/// STUN servers that are asked for one connection.
const MAX_SERVERS: usize = 8;

/// How often a server is asked, and the wait for its first answer, which doubles.
const MAX_TRIES: u8 = 4;
const FIRST_INTERVAL: Duration = Duration::from_millis(250);

/// Questions to STUN servers, and what they have answered.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    queries: Vec<Query>,
}

#[derive(Debug)]
struct Query {
    server: SocketAddr,
    transaction_id: TransactionId,
    tries: u8,
    interval: Duration,
    due: Instant,
}

impl Gathering {
    /// Asks these servers.
    pub(super) fn ask(&mut self, now: Instant, token: SessionToken, servers: &[SocketAddr]) {
        let query = |server: &SocketAddr| Query {
            server: *server,
            transaction_id: token.transaction_id(),
            tries: 0,
            interval: FIRST_INTERVAL,
            due: now,
        };
        self.queries = servers.iter().take(MAX_SERVERS).map(query).collect();
    }

    /// Where a server saw us, if this is the answer to one of our questions.
    pub(super) fn handle_success(&mut self, path: Path, message: &Message<'_>) -> Option<SocketAddr> {
        let asked = |query: &Query| {
            query.server == path.remote && query.tries > 0 && query.transaction_id == message.transaction_id
        };
        let index = self.queries.iter().position(asked)?;
        self.queries.swap_remove(index);
        message.mapped_address
    }

    pub(super) fn is_done(&self) -> bool {
        self.queries.is_empty()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.queries.iter().map(|query| query.due).min()
    }

    /// Asks again, and gives up those that never answer.
    pub(super) fn handle_timeout(&mut self, now: Instant, mut send: impl FnMut(Path, Vec<u8>)) {
        self.queries.retain(|query| query.due > now || query.tries < MAX_TRIES);
        for query in self.queries.iter_mut().filter(|query| query.due <= now) {
            send(Path::to(query.server), stun::server_query(query.transaction_id));
            query.tries = query.tries.saturating_add(1);
            query.due = later(now, query.interval);
            query.interval = query.interval.saturating_mul(2);
        }
    }
}
