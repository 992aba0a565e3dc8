//! A full ICE agent (RFC 8445) of one component, sans-IO, with trickled candidates (RFC 8838) and consent (RFC 7675).
//!
//! A remote can name any address as a candidate of its own, so what is sent there is bounded: so many addresses for a
//! session, so many checks for an address, and so many checks in a second, of some 120 bytes each.
//!
//! What is left out of RFC 8445, as browsers do: there are no foundations to freeze pairs by, for one check list of a few
//! pairs is through in a moment. And our side of a pair is chosen by the kernel's routes, as long as the remote has not
//! shown by which of our addresses it reaches us.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    Path,
    candidate::{Candidate, Kind, check_priority},
    gathering::Gathering,
    later,
    pair::{Check, Pair, PairState, Purpose},
    token::SessionToken,
};
use crate::{
    limits,
    stun::{self, AgentRole, Class, Message},
    ufrag::{IceCredentials, random},
};

/// Between two datagrams of the agent's own accord (Ta of RFC 8445 section 14.2, which asks for 5 ms at least).
const PACE: Duration = Duration::from_millis(20);

/// For how long a better pair than the first that works is waited for.
const NOMINATION_PATIENCE: Duration = Duration::from_millis(100);

/// The shortest time after which the remote is asked again whether it still wants to hear us, by how much that
/// varies, and how long an answer holds (RFC 7675 section 5.1).
const CONSENT_INTERVAL: Duration = Duration::from_secs(4);
const CONSENT_VARIATION: Duration = Duration::from_secs(2);
const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Which addresses of ours there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LocalAddresses {
    /// Of the interfaces, the best first.
    pub(crate) host: Vec<SocketAddr>,
    /// Whether STUN servers will be named, or that there are none.
    pub(crate) expects_servers: bool,
}

/// What the application tells the remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathered {
    Candidate(Candidate),
    Done,
}

/// The agent of one end of a connection.
#[derive(Debug)]
pub(crate) struct Agent {
    token: SessionToken,
    local: IceCredentials,
    remote: Option<IceCredentials>,
    controlling: bool,
    tie_breaker: u64,
    host: Vec<Candidate>,
    gathering: Gathering,
    /// What STUN servers have said; each says one thing.
    reflexive: Vec<SocketAddr>,
    /// Whether the STUN servers were named, if there are any.
    servers_known: bool,
    gathering_done: bool,
    gathered: VecDeque<Gathered>,
    remote_candidates: usize,
    pairs: Vec<Pair>,
    /// Checks that came before we knew who the remote is.
    early: Vec<Early>,
    /// Pairs to check before all others, because the remote has just checked them.
    triggered: VecDeque<usize>,
    next_send: Instant,
    first_valid: Option<Instant>,
    nominated: Option<usize>,
    /// Of a controlled agent: what the remote has nominated last.
    remote_choice: Option<usize>,
    next_consent: Option<Instant>,
    consent_until: Option<Instant>,
    lost_consent: bool,
    transmits: VecDeque<(Path, Vec<u8>)>,
}

#[derive(Debug)]
struct Early {
    path: Path,
    priority: u32,
    nominates: bool,
}

impl Agent {
    /// An agent of these credentials. The one that offers is controlling, the other controlled.
    pub(crate) fn new(
        local: IceCredentials,
        token: SessionToken,
        addresses: &LocalAddresses,
        controlling: bool,
        now: Instant,
    ) -> Self {
        let host = addresses.host.iter().take(limits::MAX_LOCAL_CANDIDATES);
        let host = (0..).zip(host).map(|(rank, address)| Candidate::local(*address, Kind::Host, rank, None));
        let mut agent = Self {
            token,
            local,
            remote: None,
            controlling,
            tie_breaker: u64::from_be_bytes(random()),
            host: host.collect(),
            gathering: Gathering::default(),
            reflexive: Vec::new(),
            servers_known: false,
            gathering_done: false,
            gathered: VecDeque::new(),
            remote_candidates: 0,
            pairs: Vec::new(),
            early: Vec::new(),
            triggered: VecDeque::new(),
            next_send: now,
            first_valid: None,
            nominated: None,
            remote_choice: None,
            next_consent: None,
            consent_until: None,
            lost_consent: false,
            transmits: VecDeque::new(),
        };
        if !addresses.expects_servers {
            agent.ask_servers(now, &[]);
        }
        agent
    }

    pub(crate) fn local_credentials(&self) -> &IceCredentials {
        &self.local
    }

    /// The candidates that there are from the beginning.
    pub(crate) fn host_candidates(&self) -> &[Candidate] {
        &self.host
    }

    /// Whether no more candidates of ours will follow.
    pub(crate) fn is_gathering_done(&self) -> bool {
        self.gathering_done
    }

    /// Candidates beyond those of the hosts, and their end.
    pub(crate) fn poll_gathered(&mut self) -> Option<Gathered> {
        self.gathered.pop_front()
    }

    /// Asks these STUN servers where we are seen; later calls have no effect.
    pub(crate) fn ask_servers(&mut self, now: Instant, servers: &[SocketAddr]) {
        if !std::mem::replace(&mut self.servers_known, true) {
            let usable: Vec<_> =
                servers.iter().copied().filter(|server| self.speaks_family_of(server.ip())).collect();
            self.gathering.ask(now, self.token, &usable);
            self.check_gathering_done();
        }
    }

    /// Who the remote is; checks begin. An agent that is lite never controls.
    pub(crate) fn set_remote(&mut self, now: Instant, remote: IceCredentials, is_lite: bool) {
        self.remote = Some(remote);
        self.controlling |= is_lite;
        self.next_send = now;
        for early in std::mem::take(&mut self.early) {
            self.checked_by_remote(now, early.path, early.priority, early.nominates);
        }
    }

    /// An address at which the remote says that it may be reached. Those that make no sense and those beyond the bound are
    /// passed over.
    pub(crate) fn add_remote_candidate(&mut self, candidate: Candidate) {
        if self.remote_candidates >= limits::MAX_REMOTE_CANDIDATES || !self.may_reach(candidate.address) {
            return;
        }
        self.remote_candidates = self.remote_candidates.saturating_add(1);
        if !self.pairs.iter().any(|pair| pair.path.remote == candidate.address) {
            self.add_pair(Path::to(candidate.address), candidate.priority);
        }
    }

    /// Takes a STUN message. Returns whether it proves that the remote is there.
    pub(crate) fn handle_message(&mut self, now: Instant, path: Path, message: &Message<'_>) -> bool {
        match message.class {
            Class::Request => self.handle_request(now, path, message),
            Class::Success if !message.has_integrity() => {
                if let Some(mapped) = self.gathering.handle_success(path, message) {
                    self.found_reflexive(mapped);
                }
                self.check_gathering_done();
                false
            }
            Class::Success => self.handle_success(now, path, message),
            Class::Error => {
                self.handle_error(path, message);
                false
            }
        }
    }

    /// The path to send by: the nominated pair's or, until there is one, the best that works.
    pub(crate) fn selected(&self) -> Option<Path> {
        self.selected_pair().and_then(|index| self.pairs.get(index)).map(|pair| pair.path)
    }

    /// Whether the remote has used or answered at this address.
    pub(crate) fn knows(&self, from: SocketAddr) -> bool {
        self.pairs.iter().any(|pair| pair.is_heard && pair.path.remote == from)
            || self.early.iter().any(|early| early.path.remote == from)
    }

    /// Whether the remote has not answered for so long that nothing more is sent to it.
    pub(crate) fn has_lost_consent(&self) -> bool {
        self.lost_consent
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.lost_consent {
            return None;
        }
        let repetition = self.pairs.iter().filter_map(Pair::due).min();
        let send = if self.next_first_check().is_some() { Some(self.next_send) } else { repetition };
        let send = send.map(|due| due.max(self.next_send));
        let nomination = self.nomination_due();
        let gathering = self.gathering.poll_timeout();
        [send, nomination, gathering, self.next_consent, self.consent_until].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.lost_consent |= self.consent_until.is_some_and(|until| until <= now);
        if self.lost_consent {
            return;
        }
        let transmits = &mut self.transmits;
        self.gathering.handle_timeout(now, |path, query| transmits.push_back((path, query)));
        self.check_gathering_done();
        self.nominate(now);
        if self.next_consent.is_some_and(|due| due <= now) {
            self.next_consent = Some(next_consent(now));
            if let Some(selected) = self.selected_pair() {
                self.begin_check(now, selected, Purpose::Consent);
            }
        }
        if now >= self.next_send {
            self.send_one(now);
        }
    }

    fn handle_request(&mut self, now: Instant, path: Path, message: &Message<'_>) -> bool {
        let Some((ours, theirs)) = message.username.and_then(|username| username.split_once(':')) else {
            return false;
        };
        let expected = ours == self.local.ufrag.as_str()
            && self.remote.as_ref().is_none_or(|remote| remote.ufrag.as_str() == theirs);
        if !expected || !message.is_from_holder_of(self.local.password.as_str()) {
            return false;
        }
        if self.settle_roles(message.role) == Settled::RemoteIsToSwitch {
            let answer = stun::role_conflict(message.transaction_id, self.local.password.as_str());
            self.transmits.push_back((path, answer));
            return true;
        }
        let priority = message.priority.unwrap_or_default();
        let nominates = message.use_candidate && !self.controlling;
        let known = if self.remote.is_some() {
            self.checked_by_remote(now, path, priority, nominates)
        } else {
            self.checked_early(Early { path, priority, nominates })
        };
        if known {
            let password = self.local.password.as_str();
            let answer = stun::binding_success(message.transaction_id, path.remote, password);
            self.transmits.push_back((path, answer));
        }
        known
    }

    /// RFC 8445 section 7.3.1.1.
    fn settle_roles(&mut self, remote: Option<AgentRole>) -> Settled {
        let keeps_role = match (self.controlling, remote) {
            (true, Some(AgentRole::Controlling(theirs))) => self.tie_breaker >= theirs,
            (false, Some(AgentRole::Controlled(theirs))) => self.tie_breaker < theirs,
            _ => return Settled::Agreed,
        };
        if keeps_role {
            return Settled::RemoteIsToSwitch;
        }
        self.switch_role();
        Settled::Agreed
    }

    fn switch_role(&mut self) {
        self.controlling = !self.controlling;
        self.nominated = None;
        self.remote_choice = None;
        // What is under way was begun in the other role, and an answer that refuses it must not be taken for one that
        // refuses the new role.
        for pair in &mut self.pairs {
            pair.check = None;
            if pair.state == PairState::InProgress {
                pair.state = PairState::Waiting;
            }
        }
    }

    /// RFC 8445 section 7.3: "If the agent has not yet received the candidates", it answers and remembers.
    fn checked_early(&mut self, check: Early) -> bool {
        if let Some(known) = self.early.iter_mut().find(|known| known.path == check.path) {
            known.nominates |= check.nominates;
            return true;
        }
        let room = self.early.len() < limits::MAX_REMOTE_CANDIDATES;
        if room {
            self.early.push(check);
        }
        room
    }

    /// The remote reaches us on this path. False if there is no room for it.
    fn checked_by_remote(&mut self, now: Instant, path: Path, priority: u32, nominates: bool) -> bool {
        let Some(index) = self.pair_of(path).or_else(|| self.add_pair(path, priority)) else { return false };
        let Some(pair) = self.pairs.get_mut(index) else { return false };
        pair.path = path;
        pair.is_heard = true;
        if pair.state != PairState::Succeeded && pair.checks < limits::MAX_CHECKS_PER_PAIR {
            if pair.state == PairState::Failed {
                pair.state = PairState::Waiting;
                pair.check = None;
            }
            if !self.triggered.contains(&index) {
                self.triggered.push_back(index);
            }
        }
        if nominates {
            self.remote_choice = Some(index);
            self.follow_remote_choice(now);
        }
        true
    }

    /// The pair of a path on which something has arrived: the very same, or one that has not yet been used from our side.
    fn pair_of(&self, path: Path) -> Option<usize> {
        let unused = |pair: &Pair| pair.path.remote == path.remote && pair.path.local.is_none();
        let same = self.pairs.iter().position(|pair| pair.path == path);
        same.or_else(|| self.pairs.iter().position(unused))
    }

    fn handle_success(&mut self, now: Instant, path: Path, message: &Message<'_>) -> bool {
        let Some(remote) = &self.remote else { return false };
        let answered = |pair: &Pair| pair.is_answered_by(path, message.transaction_id);
        let Some(index) = self.pairs.iter().position(answered) else { return false };
        if !message.is_from_holder_of(remote.password.as_str()) {
            return false;
        }
        let Some(pair) = self.pairs.get_mut(index) else { return false };
        let Some(check) = pair.check.take() else { return false };
        pair.path.local = pair.path.local.or(path.local);
        pair.state = PairState::Succeeded;
        pair.is_heard = true;
        self.first_valid.get_or_insert(now);
        if check.purpose == Purpose::Nomination && self.controlling {
            self.nominated = Some(index);
        }
        self.follow_remote_choice(now);
        if self.selected_pair() == Some(index) {
            self.consented(now);
        }
        self.next_consent.get_or_insert(next_consent(now));
        self.nominate(now);
        true
    }

    /// What the remote has nominated is used once it works for us, too.
    fn follow_remote_choice(&mut self, now: Instant) {
        let Some(choice) = self.remote_choice.filter(|_| !self.controlling) else { return };
        let works = self.pairs.get(choice).is_some_and(|pair| pair.state == PairState::Succeeded);
        if works && self.nominated != Some(choice) {
            self.nominated = Some(choice);
            self.consented(now);
        }
    }

    fn consented(&mut self, now: Instant) {
        self.consent_until = Some(later(now, CONSENT_TIMEOUT));
    }

    fn handle_error(&mut self, path: Path, message: &Message<'_>) {
        let Some(remote) = &self.remote else { return };
        let refused = |pair: &Pair| pair.is_answered_by(path, message.transaction_id);
        let Some(index) = self.pairs.iter().position(refused) else { return };
        // Nothing else can be refused for a reason that we could mend, and the checks end by themselves.
        if message.error_code != Some(stun::ROLE_CONFLICT)
            || !message.is_from_holder_of(remote.password.as_str())
        {
            return;
        }
        let check = self.pairs.get_mut(index).and_then(|pair| pair.check.take());
        // RFC 8445 section 7.2.5.1: unless another conflict has settled it meanwhile.
        if check.is_some_and(|check| check.controlling == self.controlling) {
            self.switch_role();
            self.tie_breaker = u64::from_be_bytes(random());
        }
        if let Some(pair) = self.pairs.get_mut(index).filter(|pair| pair.state == PairState::InProgress) {
            pair.state = PairState::Waiting;
            self.triggered.push_back(index);
        }
    }

    fn selected_pair(&self) -> Option<usize> {
        self.nominated.or_else(|| self.best_valid())
    }

    fn best_valid(&self) -> Option<usize> {
        let valid = self.pairs.iter().enumerate().filter(|(_, pair)| pair.state == PairState::Succeeded);
        // The first of equals.
        valid.rev().max_by_key(|(_, pair)| pair.priority).map(|(index, _)| index)
    }

    /// When the best pair that works is good enough.
    fn nomination_due(&self) -> Option<Instant> {
        let under_way = |pair: &Pair| pair.is_checked_for(Purpose::Nomination);
        if !self.controlling || self.nominated.is_some() || self.pairs.iter().any(under_way) {
            return None;
        }
        let best = self.pairs.get(self.best_valid()?)?;
        let better = |pair: &Pair| {
            pair.priority > best.priority && matches!(pair.state, PairState::Waiting | PairState::InProgress)
        };
        let patience = if self.pairs.iter().any(better) { NOMINATION_PATIENCE } else { Duration::ZERO };
        self.first_valid.map(|since| later(since, patience))
    }

    fn nominate(&mut self, now: Instant) {
        if self.nomination_due().is_some_and(|due| due <= now)
            && let Some(best) = self.best_valid()
        {
            self.begin_check(now, best, Purpose::Nomination);
        }
    }

    /// A pair that was never checked, the most urgent one.
    fn next_first_check(&self) -> Option<usize> {
        self.remote.as_ref()?;
        self.triggered.front().copied().or_else(|| {
            let waiting = self.pairs.iter().enumerate().filter(|(_, pair)| pair.state == PairState::Waiting);
            waiting.rev().max_by_key(|(_, pair)| pair.priority).map(|(index, _)| index)
        })
    }

    /// Sends the one check that is most urgent, if there is one.
    fn send_one(&mut self, now: Instant) {
        if let Some(index) = self.next_first_check() {
            self.triggered.retain(|triggered| *triggered != index);
            let Some(pair) = self.pairs.get_mut(index) else { return };
            match &mut pair.check {
                // Under way: sent again now, in the same transaction, so that its first answer counts.
                Some(check) => check.due = check.due.map(|_| now),
                None if pair.state != PairState::Succeeded => {
                    pair.state = PairState::InProgress;
                    self.begin_check(now, index, Purpose::Connectivity);
                }
                None => {}
            }
        }
        let due = |pair: &Pair| pair.due().filter(|due| *due <= now);
        let first = self.pairs.iter().enumerate().filter_map(|(index, pair)| Some((due(pair)?, index))).min();
        if let Some((_, index)) = first {
            self.send_check(now, index);
        }
    }

    fn begin_check(&mut self, now: Instant, index: usize, purpose: Purpose) {
        let check = Check::new(self.token, purpose, now);
        let Some(pair) = self.pairs.get_mut(index) else { return };
        // A question for consent takes the place of the last one, and of nothing else.
        let in_the_way = |under_way: &Check| purpose == Purpose::Consent && under_way.purpose != purpose;
        if !pair.check.as_ref().is_some_and(in_the_way) {
            pair.check = Some(check);
        }
    }

    fn send_check(&mut self, now: Instant, index: usize) {
        let role = if self.controlling {
            AgentRole::Controlling(self.tie_breaker)
        } else {
            AgentRole::Controlled(self.tie_breaker)
        };
        let (Some(remote), Some(pair)) = (&self.remote, self.pairs.get_mut(index)) else { return };
        let Some(check) = &mut pair.check else { return };
        let exhausted = match check.purpose {
            Purpose::Connectivity => pair.checks >= limits::MAX_CHECKS_PER_PAIR,
            Purpose::Nomination => check.tries >= limits::MAX_CHECKS_PER_PAIR,
            Purpose::Consent => false,
        };
        if exhausted {
            pair.state = PairState::Failed;
            pair.check = None;
            return;
        }
        let username = format!("{}:{}", remote.ufrag.as_str(), self.local.ufrag.as_str());
        let message = stun::connectivity_check(
            check.transaction_id,
            &username,
            role,
            check.purpose == Purpose::Nomination,
            check_priority(pair.path.remote),
            remote.password.as_str(),
        );
        self.transmits.push_back((pair.path, message));
        check.sent(now, self.controlling);
        if check.purpose == Purpose::Connectivity {
            pair.checks = pair.checks.saturating_add(1);
        }
        self.next_send = later(now, PACE);
    }

    fn add_pair(&mut self, path: Path, priority: u32) -> Option<usize> {
        let index = self.pairs.len();
        if index >= limits::MAX_PAIRS {
            return None;
        }
        self.pairs.push(Pair::new(path, priority));
        Some(index)
    }

    /// Whether a check may be sent to an address that a remote has named.
    fn may_reach(&self, address: SocketAddr) -> bool {
        let ip = address.ip();
        let sensible = match ip {
            IpAddr::V4(ip) => !ip.is_broadcast(),
            // Means nothing without a zone, which candidates do not have.
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        let loops = ip.is_loopback() && !self.host.iter().any(|ours| ours.address.ip().is_loopback());
        sensible
            && !loops
            && address.port() != 0
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && self.speaks_family_of(ip)
    }

    fn speaks_family_of(&self, ip: IpAddr) -> bool {
        self.host.iter().any(|ours| ours.address.is_ipv4() == ip.is_ipv4())
    }

    fn found_reflexive(&mut self, mapped: SocketAddr) {
        let base = self.host.iter().find(|ours| ours.address.is_ipv4() == mapped.is_ipv4());
        let Some(base) = base.map(|base| base.address) else { return };
        // Several servers see the same, and without a NAT they see what is known.
        if self.reflexive.contains(&mapped) || self.host.iter().any(|ours| ours.address == mapped) {
            return;
        }
        self.reflexive.push(mapped);
        let candidate = Candidate::local(mapped, Kind::ServerReflexive, 0, Some(base));
        self.gathered.push_back(Gathered::Candidate(candidate));
    }

    fn check_gathering_done(&mut self) {
        if !self.gathering_done && self.gathering.is_done() && self.servers_known {
            self.gathering_done = true;
            self.gathered.push_back(Gathered::Done);
        }
    }
}

/// RFC 7675 section 5.1: "randomized between 0.8 and 1.2 times the basic period", which is five seconds.
fn next_consent(now: Instant) -> Instant {
    let [high, low] = random::<2>();
    // Of 65,536 parts.
    let part = u32::from(u16::from_be_bytes([high, low]));
    let varies = CONSENT_VARIATION.checked_div(1 << 16).unwrap_or_default().saturating_mul(part);
    later(now, CONSENT_INTERVAL.saturating_add(varies))
}

#[derive(Debug, PartialEq, Eq)]
enum Settled {
    Agreed,
    RemoteIsToSwitch,
}

#[cfg(test)]
mod tests;
