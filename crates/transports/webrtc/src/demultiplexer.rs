//! Which session a datagram belongs to, sans-IO: by source address, for STUN requests by our user name fragment, and for
//! answers to ours by what their transactions begin with.

mod unproved;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use self::unproved::Unproved;
use crate::{
    ice::token::SessionToken,
    limits,
    stun::{self, Class, Message},
    ufrag::{Credentials, IceCredentials, IceString},
};

/// A session of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(u64);

/// Where a datagram goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To these sessions. A port that is used again has two for a while, and the wrong one cannot make sense of what it
    /// gets.
    Sessions(Vec<SessionId>),
    /// To nobody: it is a stranger's check, and this is the answer.
    Answer(Vec<u8>),
    /// It begins the session of a stranger whose check, which comes with it, was answered.
    New(Credentials, Box<[u8]>),
    /// Nowhere.
    Drop,
}

/// The sessions of a socket, each with something of type `S`.
pub(crate) struct Demultiplexer<S> {
    sessions: HashMap<SessionId, Session<S>>,
    by_ufrag: HashMap<IceString, SessionId>,
    /// Those that send checks of their own.
    by_token: HashMap<SessionToken, SessionId>,
    by_address: HashMap<SocketAddr, VecDeque<SessionId>>,
    unproved: Unproved,
    former: Recent<IceString>,
    pending: HashMap<IpAddr, usize>,
    pending_total: usize,
    new_handshakes: TokenBucket,
    unknown_checks: TokenBucket,
    next: u64,
    open: bool,
}

struct Session<S> {
    sink: S,
    ufrag: IceString,
    /// What checks are authenticated with.
    password: IceString,
    token: Option<SessionToken>,
    addresses: Vec<SocketAddr>,
    /// The source of the handshake, as long as it lasts.
    pending: Option<IpAddr>,
}

impl<S> Demultiplexer<S> {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            sessions: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_token: HashMap::new(),
            by_address: HashMap::new(),
            unproved: Unproved::default(),
            former: Recent::new(limits::MAX_FORMER_SESSIONS),
            pending: HashMap::new(),
            pending_total: 0,
            new_handshakes: TokenBucket::new(
                limits::NEW_HANDSHAKES_PER_SECOND,
                limits::NEW_HANDSHAKES_BURST,
                now,
            ),
            unknown_checks: TokenBucket::new(
                limits::UNKNOWN_CHECKS_PER_SECOND,
                limits::UNKNOWN_CHECKS_BURST,
                now,
            ),
            next: 0,
            open: true,
        }
    }

    pub(crate) fn route(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Route {
        if !stun::is_stun(datagram) {
            // Before the sessions of that address: a port that is used again has those of whoever had it before.
            if datagram.first() == Some(&DTLS_HANDSHAKE)
                && let Some(begun) = self.begin(now, from)
            {
                return begun;
            }
            return match self.by_address.get(&from) {
                Some(sessions) => Route::Sessions(sessions.iter().copied().collect()),
                None => Route::Drop,
            };
        }
        let Some(message) = Message::parse(datagram) else { return Route::Drop };
        if message.class != Class::Request {
            return self.route_answer(from, &message);
        }
        let Some(username) = message.username else { return Route::Drop };
        let ours = username.split_once(':').and_then(|(ours, _)| self.by_ufrag.get(ours)).copied();
        if let Some(id) = ours {
            return if self.has_address(now, id, from, &message) {
                Route::Sessions(vec![id])
            } else {
                Route::Drop
            };
        }
        let Some(credentials) = Credentials::parse(username) else { return Route::Drop };
        let password = credentials.server.as_str();
        let welcome = self.open
            && datagram.len() <= limits::MAX_UNPROVED_CHECK
            && !self.former.contains(&credentials.server)
            && self.unknown_checks.take(now)
            && message.is_from_holder_of(password);
        if !welcome {
            return Route::Drop;
        }
        self.unproved.insert(from, datagram);
        Route::Answer(stun::binding_success(message.transaction_id, from, password))
    }

    /// The handshake that follows an answered check; `None` if there was none, or there is no room.
    fn begin(&mut self, now: Instant, from: SocketAddr) -> Option<Route> {
        let check = self.unproved.take(from)?;
        let credentials = Message::parse(&check)?.username.and_then(Credentials::parse)?;
        // It has begun already, from another of the dialer's addresses.
        if let Some(id) = self.by_ufrag.get(credentials.server.as_str()).copied() {
            let addresses = self.sessions.get(&id).map_or(0, |session| session.addresses.len());
            let has_room = addresses < limits::MAX_ADDRESSES_PER_SESSION;
            return has_room.then(|| {
                self.add_address(id, from);
                Route::Sessions(vec![id])
            });
        }
        let of_network = self.pending.get(&network(from.ip())).copied().unwrap_or_default();
        let welcome = self.open
            && self.pending_total < limits::MAX_PENDING_HANDSHAKES
            && of_network < limits::MAX_PENDING_HANDSHAKES_PER_IP
            && self.new_handshakes.take(now);
        if !welcome {
            // There may be room when it repeats itself.
            self.unproved.insert(from, &check);
            return None;
        }
        Some(Route::New(credentials, check))
    }

    /// Who knows a token was sent a check of its session, so that what has it comes from where that session has sent to.
    fn route_answer(&mut self, from: SocketAddr, message: &Message<'_>) -> Route {
        let token = SessionToken::of(message.transaction_id);
        let Some(id) = self.by_token.get(&token).copied() else { return Route::Drop };
        let Some(session) = self.sessions.get(&id) else { return Route::Drop };
        // STUN servers do not authenticate their answers, and have nothing more to say.
        let is_peer = message.class == Class::Success && message.has_integrity();
        if is_peer
            && !session.addresses.contains(&from)
            && session.addresses.len() < limits::MAX_ADDRESSES_PER_SESSION
        {
            self.add_address(id, from);
        }
        Route::Sessions(vec![id])
    }

    /// Whether the session uses this address, or does from now on.
    fn has_address(&mut self, now: Instant, id: SessionId, from: SocketAddr, message: &Message<'_>) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        if session.addresses.contains(&from) {
            return true;
        }
        let welcome = session.addresses.len() < limits::MAX_ADDRESSES_PER_SESSION
            && self.unknown_checks.take(now)
            && message.is_from_holder_of(session.password.as_str());
        if welcome {
            self.add_address(id, from);
        }
        welcome
    }

    /// Begins a session after [`Route::New`].
    pub(crate) fn insert(&mut self, credentials: &Credentials, from: SocketAddr, sink: S) -> SessionId {
        let pending = network(from.ip());
        *self.pending.entry(pending).or_default() += 1;
        self.pending_total += 1;
        let id = self.add_session(Session {
            sink,
            ufrag: credentials.server.clone(),
            password: credentials.server.clone(),
            token: None,
            addresses: Vec::new(),
            pending: Some(pending),
        });
        self.add_address(id, from);
        id
    }

    /// Begins a session that was agreed upon elsewhere.
    pub(crate) fn insert_negotiated(
        &mut self,
        local: &IceCredentials,
        token: SessionToken,
        sink: S,
    ) -> SessionId {
        let (ufrag, password) = (local.ufrag.clone(), local.password.clone());
        self.add_session(Session {
            sink,
            ufrag,
            password,
            token: Some(token),
            addresses: Vec::new(),
            pending: None,
        })
    }

    fn add_session(&mut self, session: Session<S>) -> SessionId {
        let id = SessionId(self.next);
        self.next = self.next.wrapping_add(1);
        self.by_ufrag.insert(session.ufrag.clone(), id);
        self.by_token.extend(session.token.map(|token| (token, id)));
        self.sessions.insert(id, session);
        id
    }

    fn add_address(&mut self, id: SessionId, from: SocketAddr) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.addresses.push(from);
        let sessions = self.by_address.entry(from).or_default();
        sessions.push_back(id);
        let replaced =
            (sessions.len() > limits::MAX_SESSIONS_PER_ADDRESS).then(|| sessions.pop_front()).flatten();
        if let Some(session) = replaced.and_then(|id| self.sessions.get_mut(&id)) {
            session.addresses.retain(|address| *address != from);
        }
    }

    /// What belongs to a session.
    pub(crate) fn sink(&self, id: SessionId) -> Option<&S> {
        self.sessions.get(&id).map(|session| &session.sink)
    }

    /// The session's handshake is done and makes room for another.
    pub(crate) fn established(&mut self, id: SessionId) {
        let pending = self.sessions.get_mut(&id).and_then(|session| session.pending.take());
        self.no_longer_pending(pending);
    }

    /// The session is over. Late connectivity checks for it begin no other.
    pub(crate) fn remove(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.no_longer_pending(session.pending);
        self.by_ufrag.remove(&session.ufrag);
        match session.token {
            Some(token) => drop(self.by_token.remove(&token)),
            None => self.former.insert(session.ufrag),
        }
        for address in session.addresses {
            if let Some(sessions) = self.by_address.get_mut(&address) {
                sessions.retain(|known| *known != id);
                if sessions.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    fn no_longer_pending(&mut self, network: Option<IpAddr>) {
        let Some(network) = network else { return };
        self.pending_total = self.pending_total.saturating_sub(1);
        if let Some(count) = self.pending.get_mut(&network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.pending.remove(&network);
            }
        }
    }

    /// Begins no more sessions, and ends those whose handshake is not done.
    pub(crate) fn close(&mut self) {
        self.open = false;
        self.unproved.clear();
        let pending: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.pending.is_some())
            .map(|(id, _)| *id)
            .collect();
        pending.into_iter().for_each(|id| self.remove(id));
    }

    /// How many sessions there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}

/// The first byte of a DTLS record that belongs to a handshake: RFC 9147, section 4.
const DTLS_HANDSHAKE: u8 = 22;

/// What an attacker has plenty of addresses in: one IPv4 address, or a /64 of IPv6.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The last so many of a kind.
struct Recent<T> {
    order: VecDeque<T>,
    set: HashSet<T>,
    limit: usize,
}

impl<T: Clone + Eq + Hash> Recent<T> {
    fn new(limit: usize) -> Self {
        Self { order: VecDeque::new(), set: HashSet::new(), limit }
    }

    fn contains(&self, item: &T) -> bool {
        self.set.contains(item)
    }

    fn insert(&mut self, item: T) {
        if !self.set.insert(item.clone()) {
            return;
        }
        self.order.push_back(item);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

/// So many per second, and a burst.
struct TokenBucket {
    interval: Duration,
    burst: u32,
    tokens: u32,
    refilled: Instant,
}

impl TokenBucket {
    fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), burst, tokens: burst, refilled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled);
        let new = u32::try_from(elapsed.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u32::MAX);
        if new > 0 {
            self.tokens = self.tokens.saturating_add(new).min(self.burst);
            self.refilled = now;
        }
        let taken = self.tokens.checked_sub(1);
        self.tokens = taken.unwrap_or(0);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ufrag::WireVersion;

    const CLIENT: &str = "192.0.2.1:1000";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A check and the handshake that follows its answer; whether that begins a session.
    fn knock(
        demux: &mut Demultiplexer<()>,
        now: Instant,
        from: SocketAddr,
        credentials: &Credentials,
    ) -> bool {
        matches!(demux.route(now, from, &check(credentials)), Route::Answer(_))
            && demux.route(now, from, &[22, 1, 2])
                == Route::New(credentials.clone(), check(credentials).into())
    }

    fn check(credentials: &Credentials) -> Vec<u8> {
        let username = format!("{}:{}", credentials.server.as_str(), credentials.client_ufrag.as_str());
        stun::binding_request([1; 12], &username, 7, credentials.server.as_str())
    }

    fn fixture() -> (Demultiplexer<()>, Credentials, Instant) {
        let now = crate::test_now();
        (Demultiplexer::new(now), Credentials::generate(WireVersion::V2), now)
    }

    #[test]
    fn session_gets_what_comes_from_its_addresses() {
        let (mut demux, credentials, now) = fixture();
        let from = address(CLIENT);
        assert_eq!(demux.route(now, from, &[22, 1, 2]), Route::Drop, "nothing was answered");
        let Route::Answer(answer) = demux.route(now, from, &check(&credentials)) else {
            panic!("not answered")
        };
        assert!(Message::parse(&answer).unwrap().is_from_holder_of(credentials.server.as_str()));
        assert_eq!(demux.route(now, from, &[23, 1, 2]), Route::Drop, "no handshake");
        assert!(knock(&mut demux, now, from, &credentials));
        assert_eq!(demux.route(now, from, &[22, 1, 2]), Route::Drop, "one check begins one session");
        let id = demux.insert(&credentials, from, ());
        assert_eq!(demux.route(now, from, &check(&credentials)), Route::Sessions(vec![id]));
        assert_eq!(demux.route(now, from, &[22, 1, 2]), Route::Sessions(vec![id]));
        let other = address("192.0.2.1:1001");
        assert_eq!(demux.route(now, other, &[22, 1, 2]), Route::Drop);
        assert_eq!(demux.route(now, other, &check(&credentials)), Route::Sessions(vec![id]));
        assert_eq!(demux.route(now, other, &[22, 1, 2]), Route::Sessions(vec![id]));
        demux.remove(id);
        assert_eq!(demux.route(now, from, &[22, 1, 2]), Route::Drop);
        assert_eq!(demux.route(now, from, &check(&credentials)), Route::Drop, "it is over");
        assert!(demux.by_address.is_empty() && demux.by_ufrag.is_empty() && demux.pending.is_empty());
    }

    #[test]
    fn port_that_is_used_again_belongs_to_both_sessions_for_a_while() {
        let (mut demux, first, now) = fixture();
        let from = address(CLIENT);
        let ids: Vec<_> =
            [first, Credentials::generate(WireVersion::V1), Credentials::generate(WireVersion::V2)]
                .iter()
                .map(|credentials| {
                    assert!(knock(&mut demux, now, from, credentials));
                    demux.insert(credentials, from, ())
                })
                .collect();
        assert_eq!(demux.route(now, from, &[22]), Route::Sessions(ids[1..].to_vec()));
        ids.iter().for_each(|id| demux.remove(*id));
        assert!(demux.by_address.is_empty());
    }

    #[test]
    fn check_without_proof_or_of_no_known_version_begins_nothing() {
        let (mut demux, credentials, now) = fixture();
        let from = address(CLIENT);
        let username = format!("{}:{}", credentials.server.as_str(), credentials.client_ufrag.as_str());
        let unproved = stun::binding_request([1; 12], &username, 7, "something else");
        assert_eq!(demux.route(now, from, &unproved), Route::Drop);
        let password = "libp2p+webrtc+v9/abcdefabcdef";
        let unknown = stun::binding_request([1; 12], &format!("{password}:abcd"), 7, password);
        assert_eq!(demux.route(now, from, &unknown), Route::Drop);
        assert_eq!(demux.route(now, from, &stun::binding_success([1; 12], from, "pw")), Route::Drop);
        assert_eq!(demux.route(now, from, b""), Route::Drop);
    }

    #[test]
    fn flood_of_checks_is_bounded_in_number_per_network_and_in_rate() {
        let (mut demux, _, now) = fixture();
        let begin = |demux: &mut Demultiplexer<()>, from: SocketAddr, now| {
            let credentials = Credentials::generate(WireVersion::V2);
            knock(demux, now, from, &credentials).then(|| demux.insert(&credentials, from, ()))
        };
        let one = (1..1000).filter_map(|port| begin(&mut demux, ([192, 0, 2, 1], port).into(), now)).count();
        assert_eq!(one, limits::MAX_PENDING_HANDSHAKES_PER_IP);
        let many: Vec<_> =
            (0..=255u8).filter_map(|n| begin(&mut demux, ([198, 51, 100, n], 1).into(), now)).collect();
        assert_eq!(one + many.len(), limits::MAX_PENDING_HANDSHAKES);
        // Those that are done make room, until there were too many in too short a time.
        many.iter().for_each(|id| demux.established(*id));
        let mut later = now;
        let mut begun = limits::MAX_PENDING_HANDSHAKES as u32;
        for n in 0..2000u32 {
            later += Duration::from_micros(500);
            let from = SocketAddr::from(([203, (n >> 8) as u8, n as u8, 7], 1));
            if let Some(id) = begin(&mut demux, from, later) {
                demux.established(id);
                begun += 1;
            }
        }
        assert!(begun <= limits::NEW_HANDSHAKES_BURST + limits::NEW_HANDSHAKES_PER_SECOND + 1, "{begun}");
    }

    #[test]
    fn dialer_with_several_addresses_has_one_session() {
        let (mut demux, credentials, now) = fixture();
        let [first, second] = [CLIENT, "198.51.100.1:1000"].map(address);
        for from in [first, second] {
            assert!(matches!(demux.route(now, from, &check(&credentials)), Route::Answer(_)));
        }
        assert!(matches!(demux.route(now, first, &[22]), Route::New(..)));
        let id = demux.insert(&credentials, first, ());
        assert_eq!(demux.route(now, second, &[22]), Route::Sessions(vec![id]));
        assert_eq!(demux.route(now, second, &[23]), Route::Sessions(vec![id]));
    }

    #[test]
    fn flood_of_checks_in_others_names_leaves_room_for_who_means_it() {
        let (mut demux, honest, mut now) = fixture();
        let from = address(CLIENT);
        let mut answered = false;
        // 5,000 a second, and an honest check in the middle of them that is repeated until it is answered.
        for n in 0..50_000u32 {
            now += Duration::from_micros(200);
            let [_, a, b, c] = n.to_be_bytes();
            let forged = Credentials::generate(WireVersion::V2);
            demux.route(now, SocketAddr::from(([10, a, b, c], 1)), &check(&forged));
            if n > 20_000 && n % 500 == 0 && !answered {
                answered = matches!(demux.route(now, from, &check(&honest)), Route::Answer(_));
            } else if answered {
                // A round trip of 200 ms later.
                if n % 1000 == 0 {
                    assert!(matches!(demux.route(now, from, &[22]), Route::New(..)));
                    assert!(demux.sessions.is_empty());
                    return;
                }
            }
        }
        panic!("not let in");
    }

    #[test]
    fn negotiated_session_gets_its_checks_and_the_answers_to_its_own() {
        let (mut demux, stranger, now) = fixture();
        demux.close();
        let (local, token) = (IceCredentials::generate(), SessionToken::generate());
        let id = demux.insert_negotiated(&local, token, ());
        let from = address(CLIENT);
        let username = format!("{}:theirs", local.ufrag.as_str());
        let guessed = stun::binding_request([1; 12], &username, 7, "a guess");
        assert_eq!(demux.route(now, from, &guessed), Route::Drop);
        assert_eq!(demux.route(now, from, &[22]), Route::Drop);
        let proved = stun::binding_request([1; 12], &username, 7, local.password.as_str());
        assert_eq!(demux.route(now, from, &proved), Route::Sessions(vec![id]));
        assert_eq!(demux.route(now, from, &[22]), Route::Sessions(vec![id]));

        let (other, server) = (address("192.0.2.1:1001"), address("198.51.100.1:3478"));
        let transaction = token.transaction_id();
        let answer = stun::binding_success(transaction, from, "theirs");
        assert_eq!(demux.route(now, other, &answer), Route::Sessions(vec![id]));
        assert_eq!(demux.route(now, other, &[22]), Route::Sessions(vec![id]));
        assert_eq!(demux.route(now, other, &stun::binding_success([1; 12], from, "theirs")), Route::Drop);
        // Of a STUN server.
        let mut unauthenticated = answer[..answer.len() - 32].to_vec();
        unauthenticated[3] -= 32;
        assert_eq!(demux.route(now, server, &unauthenticated), Route::Sessions(vec![id]));
        assert_eq!(demux.route(now, server, &[22]), Route::Drop);

        assert_eq!(demux.route(now, from, &check(&stranger)), Route::Drop, "strangers begin nothing");
        demux.remove(id);
        assert_eq!(demux.route(now, from, &proved), Route::Drop);
        assert_eq!(demux.route(now, other, &answer), Route::Drop);
        assert!(demux.by_address.is_empty() && demux.by_ufrag.is_empty() && demux.by_token.is_empty());
    }

    #[test]
    fn closed_listener_keeps_established_sessions_only() {
        let (mut demux, established, now) = fixture();
        let from = address(CLIENT);
        let kept = demux.insert(&established, from, ());
        demux.established(kept);
        demux.insert(&Credentials::generate(WireVersion::V1), from, ());
        demux.close();
        assert_eq!(demux.len(), 1);
        assert_eq!(demux.route(now, from, &[22]), Route::Sessions(vec![kept]));
        assert_eq!(demux.route(now, from, &check(&Credentials::generate(WireVersion::V2))), Route::Drop);
    }

    proptest! {
        #[test]
        fn nothing_a_stranger_sends_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let (mut demux, _, now) = fixture();
            demux.route(now, address(CLIENT), &bytes);
        }
    }
}
