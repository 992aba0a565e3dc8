//! ICE of WebRTC-direct, with one candidate pair: the lite agent of a listener and the controlling agent of a dialer.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Path, later};
use crate::{
    limits,
    stun::{self, Class, Message, TransactionId},
    ufrag::{Credentials, random},
};

/// When the first connectivity check is repeated; the interval doubles up to [`SLOWEST_CHECK`].
const FIRST_CHECK_INTERVAL: Duration = Duration::from_millis(50);
const SLOWEST_CHECK: Duration = Duration::from_millis(800);

/// How often a connected dialer asks whether the listener still wants to hear it (RFC 7675 section 5.1).
const CONSENT_INTERVAL: Duration = Duration::from_secs(5);

/// The agent of either side.
#[derive(Debug)]
pub(crate) struct DirectAgent {
    credentials: Credentials,
    /// Where to send: the path last nominated.
    path: Option<Path>,
    role: Role,
    transmits: VecDeque<(Path, Vec<u8>)>,
}

#[derive(Debug)]
enum Role {
    /// Answers checks and sends none: RFC 8445 section 2.5.
    Lite {
        addresses: Vec<SocketAddr>,
    },
    Controlling(Controlling),
}

#[derive(Debug)]
struct Controlling {
    tie_breaker: u64,
    /// The check that was not answered yet.
    pending: Option<TransactionId>,
    interval: Duration,
    next_check: Instant,
    connected: bool,
}

impl DirectAgent {
    /// The agent of a listener, for the session with these credentials.
    pub(crate) fn lite(credentials: Credentials) -> Self {
        Self {
            credentials,
            path: None,
            role: Role::Lite { addresses: Vec::new() },
            transmits: VecDeque::new(),
        }
    }

    /// The agent of a dialer that is told the listener's address.
    pub(crate) fn controlling(credentials: Credentials, remote: SocketAddr, now: Instant) -> Self {
        let controlling = Controlling {
            tie_breaker: u64::from_be_bytes(random()),
            pending: None,
            interval: FIRST_CHECK_INTERVAL,
            next_check: now,
            connected: false,
        };
        let role = Role::Controlling(controlling);
        Self { credentials, path: Some(Path::to(remote)), role, transmits: VecDeque::new() }
    }

    /// Takes a STUN message. Returns whether it proves that the remote is there.
    pub(crate) fn handle_message(&mut self, now: Instant, path: Path, message: &Message<'_>) -> bool {
        match message.class {
            Class::Request => self.handle_request(path, message),
            Class::Success => self.handle_success(now, path.remote, message),
            // Nothing that we ask can be refused for a reason that we could mend.
            Class::Error => false,
        }
    }

    fn handle_request(&mut self, path: Path, message: &Message<'_>) -> bool {
        let from = path.remote;
        let (ours, theirs, password) = match &self.role {
            Role::Lite { .. } => {
                (&self.credentials.server, &self.credentials.client_ufrag, &self.credentials.server)
            }
            Role::Controlling(_) => {
                (&self.credentials.client_ufrag, &self.credentials.server, &self.credentials.client_password)
            }
        };
        let named = message.username.and_then(|username| username.split_once(':'));
        if named != Some((ours.as_str(), theirs.as_str())) || !message.is_from_holder_of(password.as_str()) {
            return false;
        }
        if let Role::Lite { addresses } = &mut self.role {
            if !addresses.contains(&from) {
                if addresses.len() >= limits::MAX_ADDRESSES_PER_SESSION {
                    return false;
                }
                addresses.push(from);
            }
            // The first address will do until the dialer nominates one.
            if message.use_candidate || self.path.is_none() {
                self.path = Some(path);
            }
        } else if self.remote() != Some(from) {
            return false;
        }
        self.transmits
            .push_back((path, stun::binding_success(message.transaction_id, from, password.as_str())));
        true
    }

    fn handle_success(&mut self, now: Instant, from: SocketAddr, message: &Message<'_>) -> bool {
        let remote = self.remote();
        let Role::Controlling(agent) = &mut self.role else { return false };
        let expected = remote == Some(from) && agent.pending == Some(message.transaction_id);
        if !expected || !message.is_from_holder_of(self.credentials.server.as_str()) {
            return false;
        }
        agent.pending = None;
        agent.connected = true;
        agent.interval = FIRST_CHECK_INTERVAL;
        agent.next_check = later(now, CONSENT_INTERVAL);
        true
    }

    /// Whether there is a way to the remote.
    pub(crate) fn is_connected(&self) -> bool {
        match &self.role {
            Role::Lite { .. } => self.path.is_some(),
            Role::Controlling(agent) => agent.connected,
        }
    }

    /// Where to send what is not STUN.
    pub(crate) fn path(&self) -> Option<Path> {
        self.path
    }

    fn remote(&self) -> Option<SocketAddr> {
        self.path.map(|path| path.remote)
    }

    /// Whether a datagram from there belongs to this session.
    pub(crate) fn knows(&self, from: SocketAddr) -> bool {
        match &self.role {
            Role::Lite { addresses } => addresses.contains(&from),
            Role::Controlling(_) => self.remote() == Some(from),
        }
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.role {
            Role::Lite { .. } => None,
            Role::Controlling(agent) => Some(agent.next_check),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let (Role::Controlling(agent), Some(path)) = (&mut self.role, self.path) else { return };
        if now < agent.next_check {
            return;
        }
        // A repetition keeps its transaction (RFC 8489 section 6.2.1), so that a late answer counts.
        let transaction_id = *agent.pending.get_or_insert_with(random);
        let username =
            format!("{}:{}", self.credentials.server.as_str(), self.credentials.client_ufrag.as_str());
        let password = self.credentials.server.as_str();
        let check = stun::binding_request(transaction_id, &username, agent.tie_breaker, password);
        self.transmits.push_back((path, check));
        agent.next_check = later(now, agent.interval);
        agent.interval = agent.interval.saturating_mul(2).min(SLOWEST_CHECK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ufrag::WireVersion;

    const CLIENT: &str = "192.0.2.1:1000";
    const SERVER: &str = "192.0.2.2:2000";

    fn pair(version: WireVersion, now: Instant) -> (DirectAgent, DirectAgent) {
        let credentials = Credentials::generate(version);
        let client = DirectAgent::controlling(credentials.clone(), SERVER.parse().unwrap(), now);
        (client, DirectAgent::lite(credentials))
    }

    fn deliver(from: &str, sender: &mut DirectAgent, receiver: &mut DirectAgent, now: Instant) -> usize {
        std::iter::from_fn(|| sender.poll_transmit())
            .filter(|(_, bytes)| {
                receiver.handle_message(now, Path::to(from.parse().unwrap()), &Message::parse(bytes).unwrap())
            })
            .count()
    }

    #[test]
    fn check_and_answer_connect_both_in_either_version() {
        for version in [WireVersion::V1, WireVersion::V2] {
            let now = crate::test_now();
            let (mut client, mut server) = pair(version, now);
            client.handle_timeout(now);
            assert!(!client.is_connected());
            assert_eq!(deliver(CLIENT, &mut client, &mut server, now), 1);
            assert_eq!(server.remote(), Some(CLIENT.parse().unwrap()));
            assert_eq!(deliver(SERVER, &mut server, &mut client, now), 1);
            assert!(client.is_connected());
        }
    }

    #[test]
    fn check_is_repeated_until_answered() {
        let start = crate::test_now();
        let (mut client, _) = pair(WireVersion::V2, start);
        let mut sent = Vec::new();
        while let Some(due) = client.poll_timeout().filter(|due| *due < start + Duration::from_secs(2)) {
            client.handle_timeout(due);
            sent.extend(client.poll_transmit());
        }
        assert!((5..9).contains(&sent.len()), "{}", sent.len());
    }

    #[test]
    fn check_of_another_session_is_not_answered() {
        let now = crate::test_now();
        let (mut client, _) = pair(WireVersion::V2, now);
        let (_, mut server) = pair(WireVersion::V2, now);
        client.handle_timeout(now);
        assert_eq!(deliver(CLIENT, &mut client, &mut server, now), 0);
        assert!(server.poll_transmit().is_none() && !server.is_connected());
    }

    #[test]
    fn answer_from_elsewhere_does_not_connect() {
        let now = crate::test_now();
        let (mut client, mut server) = pair(WireVersion::V1, now);
        client.handle_timeout(now);
        deliver(CLIENT, &mut client, &mut server, now);
        assert_eq!(deliver("192.0.2.3:2000", &mut server, &mut client, now), 0);
        assert!(!client.is_connected());
    }

    #[test]
    fn addresses_of_a_session_are_bounded() {
        let now = crate::test_now();
        let (mut client, mut server) = pair(WireVersion::V2, now);
        client.handle_timeout(now);
        let (_, check) = client.poll_transmit().unwrap();
        let check = Message::parse(&check).unwrap();
        let answered = (1..100)
            .filter(|port| server.handle_message(now, Path::to(([192, 0, 2, 1], *port).into()), &check))
            .count();
        assert_eq!(answered, limits::MAX_ADDRESSES_PER_SESSION);
        assert!(
            server.knows("192.0.2.1:1".parse().unwrap()) && !server.knows("192.0.2.1:99".parse().unwrap())
        );
    }
}
