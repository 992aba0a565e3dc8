//! The books: what each scope holds. Nothing here waits, sends or knows the time.

#![warn(clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, HashMap};

use super::{
    Amounts, LimitExceeded, Refused, Resource, ResourceLimits, ResourceScope, ScopeKind, ScopeUsage,
};

/// Names an open account. What it names is gone with the last reservation in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AccountId(usize);

/// The accounts of a node. A scope has one for as long as anything is reserved in it, so that there are never more accounts than
/// the limits of the system let connections and streams be.
#[derive(Debug)]
pub(super) struct Accounts {
    limits: ResourceLimits,
    /// Looked up for each stream. Its order is seen by nobody.
    by_scope: HashMap<ResourceScope, AccountId>,
    /// With gaps, which are filled first.
    accounts: Vec<Option<Account>>,
    gaps: Vec<AccountId>,
    refused: BTreeMap<(ScopeKind, Resource), u64>,
}

#[derive(Debug)]
struct Account {
    scope: ResourceScope,
    limits: Amounts,
    held: Amounts,
    reservations: usize,
}

impl Accounts {
    pub(super) fn new(limits: ResourceLimits) -> Self {
        Self {
            limits,
            by_scope: HashMap::new(),
            accounts: Vec::new(),
            gaps: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    pub(super) fn limits(&self) -> &ResourceLimits {
        &self.limits
    }

    /// Reserves `amounts` in all of the scopes, or in none of them. To be given back by [`release`](Self::release).
    pub(super) fn reserve(
        &mut self,
        scopes: &[ResourceScope],
        amounts: &Amounts,
    ) -> Result<Vec<AccountId>, LimitExceeded> {
        let found = self.check(scopes, amounts)?;
        Ok(self.open(scopes, found, amounts))
    }

    /// The same in the place of another reservation, which stays if this one cannot be had.
    pub(super) fn exchange(
        &mut self,
        (held_in, held): (&[AccountId], &Amounts),
        scopes: &[ResourceScope],
        amounts: &Amounts,
    ) -> Result<Vec<AccountId>, LimitExceeded> {
        self.change(held_in, |account| account.subtract(held));
        match self.check(scopes, amounts) {
            Ok(found) => {
                let opened = self.open(scopes, found, amounts);
                self.change(held_in, |account| account.add(held));
                self.release(held_in, held);
                Ok(opened)
            }
            Err(refused) => {
                self.change(held_in, |account| account.add(held));
                Err(refused)
            }
        }
    }

    /// Adds to a reservation.
    pub(super) fn extend(&mut self, ids: &[AccountId], more: &Amounts) -> Result<(), LimitExceeded> {
        let refused = ids.iter().filter_map(|id| self.get(*id)).find_map(|account| account.refusal(more));
        match refused {
            Some(refused) => Err(self.note(refused)),
            None => {
                self.change(ids, |held| held.add(more));
                Ok(())
            }
        }
    }

    /// Takes from a reservation, which stays.
    pub(super) fn reduce(&mut self, ids: &[AccountId], less: &Amounts) {
        self.change(ids, |held| held.subtract(less));
    }

    /// Ends a reservation, of which `amounts` are left.
    pub(super) fn release(&mut self, ids: &[AccountId], amounts: &Amounts) {
        for id in ids {
            let Some(slot) = self.accounts.get_mut(id.0) else { continue };
            let Some(account) = slot else { continue };
            account.held.subtract(amounts);
            account.reservations = account.reservations.saturating_sub(1);
            if account.reservations == 0 {
                self.by_scope.remove(&account.scope);
                *slot = None;
                self.gaps.push(*id);
            }
        }
    }

    /// What `scope` may hold.
    pub(super) fn limit(&self, scope: &ResourceScope) -> Amounts {
        match self.by_scope.get(scope).and_then(|id| self.get(*id)) {
            Some(account) => account.limits,
            None => self.limits.of(scope),
        }
    }

    pub(super) fn usage(&self) -> Vec<ScopeUsage> {
        let open = self.accounts.iter().flatten();
        let mut usage: Vec<_> = open
            .map(|account| ScopeUsage {
                scope: account.scope.clone(),
                held: account.held,
                limits: account.limits,
            })
            .collect();
        usage.sort_unstable_by(|one, other| one.scope.cmp(&other.scope));
        usage
    }

    pub(super) fn refused(&self) -> Vec<Refused> {
        let refused = self.refused.iter();
        refused.map(|(&(kind, resource), &times)| Refused { kind, resource, times }).collect()
    }

    /// The accounts of the scopes that have one, unless `amounts` is too much for any of them.
    fn check(
        &mut self,
        scopes: &[ResourceScope],
        amounts: &Amounts,
    ) -> Result<Vec<Option<AccountId>>, LimitExceeded> {
        let found: Vec<_> = scopes.iter().map(|scope| self.by_scope.get(scope).copied()).collect();
        let refused = scopes.iter().zip(&found).find_map(|(scope, found)| match found {
            Some(id) => self.get(*id)?.refusal(amounts),
            None => refusal(scope, &Amounts::NONE, &self.limits.of(scope), amounts),
        });
        match refused {
            Some(refused) => Err(self.note(refused)),
            None => Ok(found),
        }
    }

    fn note(&mut self, refused: LimitExceeded) -> LimitExceeded {
        let times = self.refused.entry((refused.scope.kind(), refused.resource)).or_default();
        *times = times.saturating_add(1);
        refused
    }

    fn open(
        &mut self,
        scopes: &[ResourceScope],
        found: Vec<Option<AccountId>>,
        amounts: &Amounts,
    ) -> Vec<AccountId> {
        let mut opened = Vec::with_capacity(scopes.len());
        for (scope, found) in scopes.iter().zip(found) {
            let id = found.unwrap_or_else(|| self.insert(scope));
            if let Some(account) = self.accounts.get_mut(id.0).and_then(Option::as_mut) {
                account.held.add(amounts);
                account.reservations = account.reservations.saturating_add(1);
            }
            opened.push(id);
        }
        opened
    }

    fn insert(&mut self, scope: &ResourceScope) -> AccountId {
        let account = Account {
            scope: scope.clone(),
            limits: self.limits.of(scope),
            held: Amounts::NONE,
            reservations: 0,
        };
        let id = self.gaps.pop().unwrap_or(AccountId(self.accounts.len()));
        match self.accounts.get_mut(id.0) {
            Some(gap) => *gap = Some(account),
            None => self.accounts.push(Some(account)),
        }
        self.by_scope.insert(scope.clone(), id);
        id
    }

    fn get(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id.0)?.as_ref()
    }

    fn change(&mut self, ids: &[AccountId], change: impl Fn(&mut Amounts)) {
        for id in ids {
            if let Some(account) = self.accounts.get_mut(id.0).and_then(Option::as_mut) {
                change(&mut account.held);
            }
        }
    }
}

impl Account {
    fn refusal(&self, more: &Amounts) -> Option<LimitExceeded> {
        refusal(&self.scope, &self.held, &self.limits, more)
    }
}

fn refusal(scope: &ResourceScope, held: &Amounts, limits: &Amounts, more: &Amounts) -> Option<LimitExceeded> {
    let resource = held.exceeds(more, limits)?;
    Some(LimitExceeded {
        scope: scope.clone(),
        resource,
        current: held.of(resource),
        limit: limits.of(resource),
        wanted: more.of(resource),
    })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use std::collections::BTreeMap;

    use peerloom_core::{Keypair, PeerId, ProtocolName};
    use proptest::prelude::*;

    use super::*;

    fn peer(number: u8) -> PeerId {
        Keypair::from_seed([number; 32]).peer_id()
    }

    fn amounts(connections: usize, streams: usize, memory: usize) -> Amounts {
        Amounts {
            connections,
            inbound_connections: connections,
            streams,
            inbound_streams: streams,
            memory,
            ..Amounts::NONE
        }
    }

    fn limits() -> ResourceLimits {
        let mut limits = ResourceLimits::unlimited();
        limits.system.connections = 12;
        limits.system.memory = 500;
        limits.transient.inbound_connections = 4;
        limits.peer.streams = 6;
        limits.protocol.inbound_streams = 9;
        limits.protocol_peer.memory = 100;
        limits
    }

    /// Some of a few scopes, each once.
    fn scopes() -> impl Strategy<Value = Vec<ResourceScope>> {
        let protocol = ProtocolName::from_static("/echo/1.0.0");
        let all = vec![
            ResourceScope::System,
            ResourceScope::Transient,
            ResourceScope::Peer(peer(1)),
            ResourceScope::Peer(peer(2)),
            ResourceScope::Protocol(protocol.clone()),
            ResourceScope::ProtocolPeer(protocol.clone(), peer(1)),
            ResourceScope::ProtocolPeer(protocol, peer(2)),
        ];
        proptest::sample::subsequence(all, 1..=7)
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(Vec<ResourceScope>, Amounts),
        Exchange(usize, Vec<ResourceScope>, Amounts),
        Extend(usize, usize),
        Reduce(usize, usize),
        Release(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let some = || (0..3usize, 0..3usize, 0..60usize).prop_map(|(c, s, m)| amounts(c, s, m));
        prop_oneof![
            4 => (scopes(), some()).prop_map(|(scopes, amounts)| Step::Reserve(scopes, amounts)),
            1 => (any::<usize>(), scopes(), some()).prop_map(|(at, scopes, amounts)| Step::Exchange(at, scopes, amounts)),
            1 => (any::<usize>(), 0..60usize).prop_map(|(at, memory)| Step::Extend(at, memory)),
            1 => (any::<usize>(), 0..60usize).prop_map(|(at, memory)| Step::Reduce(at, memory)),
            2 => any::<usize>().prop_map(Step::Release),
        ]
    }

    struct Held {
        scopes: Vec<ResourceScope>,
        ids: Vec<AccountId>,
        amounts: Amounts,
    }

    /// What all that is held comes to, scope by scope.
    fn expected(held: &[Held]) -> BTreeMap<ResourceScope, Amounts> {
        let mut sums = BTreeMap::new();
        for held in held {
            for scope in &held.scopes {
                sums.entry(scope.clone()).or_insert(Amounts::NONE).add(&held.amounts);
            }
        }
        sums
    }

    fn fits(held: &[Held], limits: &ResourceLimits, scopes: &[ResourceScope], more: &Amounts) -> bool {
        let sums = expected(held);
        scopes.iter().all(|scope| {
            let now = sums.get(scope).copied().unwrap_or(Amounts::NONE);
            now.exceeds(more, &limits.of(scope)).is_none()
        })
    }

    proptest! {
        /// Whatever is done: each scope holds the sum of what was reserved in it and not released, never more than it may; a
        /// refusal changes nothing; and in the end there is nothing left.
        #[test]
        fn the_books_balance(steps in proptest::collection::vec(step(), 1..80)) {
            let limits = limits();
            let mut accounts = Accounts::new(limits.clone());
            let mut held: Vec<Held> = Vec::new();
            for step in steps {
                match step {
                    Step::Reserve(scopes, amounts) => {
                        let may = fits(&held, &limits, &scopes, &amounts);
                        let got = accounts.reserve(&scopes, &amounts);
                        prop_assert_eq!(got.is_ok(), may);
                        if let Ok(ids) = got {
                            held.push(Held { scopes, ids, amounts });
                        }
                    }
                    Step::Exchange(at, scopes, amounts) if !held.is_empty() => {
                        let old = held.remove(at % held.len());
                        let may = fits(&held, &limits, &scopes, &amounts);
                        let got = accounts.exchange((&old.ids, &old.amounts), &scopes, &amounts);
                        prop_assert_eq!(got.is_ok(), may);
                        held.push(got.map_or(old, |ids| Held { scopes, ids, amounts }));
                    }
                    Step::Extend(at, memory) if !held.is_empty() => {
                        let at = at % held.len();
                        let more = amounts(0, 0, memory);
                        let may = fits(&held, &limits, &held[at].scopes, &more);
                        let got = accounts.extend(&held[at].ids, &more);
                        prop_assert_eq!(got.is_ok(), may);
                        if may {
                            held[at].amounts.add(&more);
                        }
                    }
                    Step::Reduce(at, memory) if !held.is_empty() => {
                        let at = at % held.len();
                        let less = amounts(0, 0, memory.min(held[at].amounts.memory));
                        accounts.reduce(&held[at].ids, &less);
                        held[at].amounts.subtract(&less);
                    }
                    Step::Release(at) if !held.is_empty() => {
                        let old = held.remove(at % held.len());
                        accounts.release(&old.ids, &old.amounts);
                    }
                    _ => {}
                }
                let usage = accounts.usage();
                for scope in &usage {
                    prop_assert!(Amounts::NONE.exceeds(&scope.held, &scope.limits).is_none(), "{scope:?}");
                }
                let now: BTreeMap<_, _> = usage.into_iter().map(|scope| (scope.scope, scope.held)).collect();
                prop_assert_eq!(now, expected(&held));
            }
            for old in held.drain(..) {
                accounts.release(&old.ids, &old.amounts);
            }
            prop_assert!(accounts.usage().is_empty());
            prop_assert!(accounts.accounts.iter().all(Option::is_none));
            prop_assert_eq!(accounts.gaps.len(), accounts.accounts.len());
        }
    }

    #[test]
    fn a_refusal_says_whose_limit_it_was_and_how_it_stands() {
        let mut accounts = Accounts::new(limits());
        let scopes = [ResourceScope::Peer(peer(1))];
        accounts.reserve(&scopes, &amounts(0, 6, 0)).unwrap();
        let error = accounts.reserve(&scopes, &amounts(0, 1, 0)).unwrap_err();
        assert_eq!(error.to_string(), format!("peer {}: 6 of 6 streams", peer(1)));
        let error = accounts.reserve(&[ResourceScope::System], &amounts(0, 0, 501)).unwrap_err();
        assert_eq!(error.to_string(), "the node: 0 of 500 bytes of memory, and 501 more wanted");
        let refused: Vec<_> =
            accounts.refused().iter().map(|refused| (refused.kind, refused.times)).collect();
        assert_eq!(refused, [(ScopeKind::System, 1), (ScopeKind::Peer, 1)]);
    }

    #[test]
    fn one_protocol_or_peer_can_have_limits_of_its_own() {
        let mut limits = ResourceLimits::unlimited();
        limits.peer.streams = 1;
        limits.peers.insert(peer(1), Amounts { streams: 3, ..Amounts::UNLIMITED });
        let mut accounts = Accounts::new(limits);
        let three = amounts(0, 3, 0);
        accounts.reserve(&[ResourceScope::Peer(peer(1))], &three).unwrap();
        accounts.reserve(&[ResourceScope::Peer(peer(2))], &three).unwrap_err();
    }
}
