//! An internet in memory; see [`Internet`].

mod address;
mod connection;
mod fabric;
mod flow;
mod handshake;
mod host;
mod in_use;
mod link;
mod listener;
mod liveness;
mod nat;
mod random;
mod run;
mod stream;
mod trace;
mod transport;

use std::{
    collections::BTreeSet,
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use peerloom_core::runtime::{Instant, Task, sleep_until, spawn};

use self::{
    fabric::{HostState, Power},
    flow::State,
    host::{RouterId, nth_address},
    nat::{NatTable, RouterState},
};
pub use self::{
    host::{Behind, Host, HostConfig, HostId, Router},
    in_use::InUse,
    link::{LinkConfig, PACKET_OVERHEAD, PACKET_PAYLOAD},
    nat::{MAPPING_LIFETIME, MAX_MAPPINGS, MAX_REMOTES, Nat},
    run::HostCrashed,
    stream::{MAX_STREAMS, MAX_UNACCEPTED, STREAM_WINDOW},
    trace::{MAX_TRACE_EVENTS, Trace, TraceEvent, What},
    transport::InternetTransport,
};

/// Hosts with addresses, links between them, and routers in front of them, on tokio's clock and one seed.
///
/// A handle; clones are the same network. It ends when the last handle is gone: hosts, transports and connections are
/// handles, too.
#[derive(Clone)]
pub struct Internet(Arc<Owner>);

/// What is behind the handles. The driver holds the inner part only, so it ends with the last of them.
struct Owner {
    shared: Arc<Shared>,
    seed: u64,
    _driver: Task,
}

struct Shared {
    state: Mutex<State>,
    driver: Mutex<Driver>,
    start: Instant,
}

#[derive(Default)]
struct Driver {
    waker: Option<Waker>,
    /// What it sleeps until.
    deadline: Option<Duration>,
}

impl fmt::Debug for Internet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Internet").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}

/// Public addresses are given away from here on.
const FIRST_PUBLIC: [u8; 4] = [20, 0, 0, 1];
/// And behind each router from here on.
const FIRST_PRIVATE: [u8; 4] = [10, 0, 0, 2];

impl Internet {
    /// An empty network in which links take 20 ms, unless they are told otherwise. All that happens by chance in it depends
    /// on `seed`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(seed: u64) -> Self {
        let state = Mutex::new(State::new(seed));
        let shared = Arc::new(Shared { state, driver: Mutex::default(), start: Instant::now() });
        let driver = spawn(drive(shared.clone()));
        Self(Arc::new(Owner { shared, seed, _driver: driver }))
    }

    /// What it was made with.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// How long it has been there, on its own clock.
    pub fn now(&self) -> Duration {
        self.0.shared.start.elapsed()
    }

    /// A new host.
    ///
    /// # Panics
    /// If one of the addresses is another host's.
    #[allow(clippy::panic)] // A mistake in the set-up of a test.
    pub fn host(&self, config: HostConfig) -> Host {
        let router = config.behind.map(|behind| match behind {
            Behind::Own(nat) => self.router(nat).id,
            Behind::Shared(router) => router.id,
        });
        let mut state = self.lock();
        let fabric = &mut state.fabric;
        let id = HostId(u32::try_from(fabric.hosts.len()).unwrap_or(u32::MAX));
        fabric.hosts.push(HostState {
            addresses: Vec::new(),
            router,
            takes_udp: !config.udp_blocked,
            power: Power::On,
            incarnation: 0,
            sleeps: 0,
            next_port: 0,
        });
        let mut addresses = config.addresses;
        if addresses.is_empty() {
            let (first, mut number) = match router.and_then(|id| fabric.router_mut(id)) {
                Some(router) => (FIRST_PRIVATE, router.assigned),
                None => (FIRST_PUBLIC, state.addresses_given),
            };
            while !state.fabric.is_free(router, nth_address(first, number)) {
                number = number.wrapping_add(1);
            }
            addresses.push(nth_address(first, number));
            let next = number.wrapping_add(1);
            match router.and_then(|id| state.fabric.router_mut(id)) {
                Some(router) => router.assigned = next,
                None => state.addresses_given = next,
            }
        }
        for address in &addresses {
            assert!(state.fabric.claim(id, *address), "{address} is another host's");
        }
        if let Some(host) = state.fabric.host_mut(id) {
            host.addresses = addresses;
        }
        drop(state);
        Host { internet: self.clone(), id }
    }

    /// A new router with a public address, for hosts to be [behind](HostConfig::behind).
    pub fn router(&self, nat: Nat) -> Router {
        let mut state = self.lock();
        let id = RouterId(u32::try_from(state.fabric.routers.len()).unwrap_or(u32::MAX));
        let mut outside = nth_address(FIRST_PUBLIC, state.addresses_given);
        while !state.fabric.claim_outside(id, outside) {
            state.addresses_given = state.addresses_given.wrapping_add(1);
            outside = nth_address(FIRST_PUBLIC, state.addresses_given);
        }
        let table = NatTable::new(nat);
        state.fabric.routers.push(RouterState { outside, table, hairpin: false, assigned: 0 });
        drop(state);
        Router { internet: self.clone(), id }
    }

    /// How all links are that are not told otherwise.
    pub fn default_link(&self, link: LinkConfig) {
        self.with(|state, now| {
            state.fabric.default_link = link;
            state.assess_all(now);
        });
    }

    /// How the link between two hosts is from now on.
    pub fn link(&self, one: &Host, other: &Host, link: LinkConfig) {
        self.with(|state, now| {
            state.fabric.set_link(one.id, other.id, link);
            state.assess_host(now, one.id);
        });
    }

    /// From now on nothing gets from one of these hosts to one of those, in silence. Several partitions add up.
    pub fn partition<'a>(
        &self,
        these: impl IntoIterator<Item = &'a Host>,
        those: impl IntoIterator<Item = &'a Host>,
    ) {
        let these: BTreeSet<HostId> = these.into_iter().map(|host| host.id).collect();
        let those: BTreeSet<HostId> = those.into_iter().map(|host| host.id).collect();
        self.with(|state, now| {
            state.fabric.partition(now, these, those);
            state.assess_all(now);
        });
    }

    /// Ends every partition.
    pub fn heal(&self) {
        self.with(|state, now| {
            state.fabric.heal(now);
            state.assess_all(now);
        });
    }

    /// After how long a connection on which nothing comes through is given up; 30 s, if nobody says.
    pub fn idle_timeout(&self, timeout: Duration) {
        self.lock().idle_timeout = timeout;
    }

    /// What has happened so far.
    pub fn trace(&self) -> Trace {
        self.with(|state, _| state.fabric.trace.clone())
    }

    /// Connections of which at least one end is left, those being made included.
    pub fn connections(&self) -> usize {
        self.with(|state, _| state.flows())
    }

    /// What is in use at this moment, for tests that expect nothing to be left.
    pub fn in_use(&self) -> InUse {
        self.with(|state, _| state.in_use())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.shared.state.lock()
    }

    /// Does something to the network after all that had to happen before it, and tells whom it concerns.
    fn with<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> R {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        let now = shared.start.elapsed();
        state.advance(now);
        let result = act(&mut state, now);
        let (woken, deadline) = (std::mem::take(&mut state.woken), state.fabric.next_deadline());
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        let mut driver = shared.driver.lock();
        let is_early = match (deadline, driver.deadline) {
            (Some(next), Some(planned)) => next < planned,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let waker = driver.waker.take_if(|_| is_early);
        drop(driver);
        waker.into_iter().for_each(Waker::wake);
        result
    }
}

/// Lets everything happen in its time.
async fn drive(shared: Arc<Shared>) {
    let mut sleeping = None;
    poll_fn(|cx| {
        loop {
            let mut state = shared.state.lock();
            state.advance(shared.start.elapsed());
            let (woken, deadline) = (std::mem::take(&mut state.woken), state.fabric.next_deadline());
            drop(state);
            woken.into_iter().for_each(Waker::wake);
            let mut driver = shared.driver.lock();
            if driver.deadline != deadline || sleeping.is_none() {
                driver.deadline = deadline;
                sleeping = deadline.map(|deadline| sleep_until(shared.start + deadline));
            }
            driver.waker = Some(cx.waker().clone());
            drop(driver);
            let is_due = sleeping.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
            if !is_due {
                return Poll::<()>::Pending;
            }
            sleeping = None;
        }
    })
    .await;
}
