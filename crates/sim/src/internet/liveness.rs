//! Whether connections live on when the network or a host changes.

use std::time::Duration;

use peerloom_core::ConnectionError;

use super::{
    fabric::{HostState, Power},
    flow::{Body, End, EndRef, FlowId, Phase, Side, Signal, State},
    host::HostId,
    trace::What,
};

impl State {
    pub(super) fn keep_mapping(&mut self, now: Duration, at: EndRef, keep: bool) {
        let Some(protocol) = self.flows.get(&at.flow).map(|flow| flow.service.protocol()) else { return };
        let Some(end) = self.end(at) else { return };
        let (host, local, remote) = (end.host, end.local, end.remote);
        if end.keeps_mapping == keep {
            return;
        }
        let Some(router) = self.fabric.translator(host, local, remote) else { return };
        let table = self.fabric.router_mut(router).map(|router| &mut router.table);
        let kept = table.is_some_and(|table| table.keep(now, protocol, local, remote, keep)) && keep;
        if let Some(end) = self.end_mut(at) {
            end.keeps_mapping = kept;
        }
    }

    /// Whether what one end sends reaches the other.
    pub(super) fn reaches(&self, now: Duration, from: EndRef) -> bool {
        let Some(flow) = self.flows.get(&from.flow) else { return false };
        let Some((ours, theirs)) = self.end(from).zip(self.end(from.other())) else { return false };
        let protocol = flow.service.protocol();
        let mapped = |end: &End| match self.fabric.translator(end.host, end.local, end.remote) {
            None => true,
            Some(router) => {
                let router = self.fabric.routers.get(router.0 as usize);
                router.is_some_and(|router| router.table.is_kept(now, protocol, end.local, end.remote))
            }
        };
        self.fabric.is_connected(protocol, ours.host, theirs.host) && mapped(ours) && mapped(theirs)
    }

    /// The network, or one of the ends, has changed: does each end still hear the other?
    pub(super) fn assess(&mut self, now: Duration, id: FlowId) {
        for side in [Side::Dialer, Side::Listener] {
            let at = EndRef { flow: id, side };
            let hears = self.reaches(now, at.other());
            let is_heard = self.reaches(now, at);
            let remote_is_gone = self.end(at.other()).is_none_or(|end| matches!(end.phase, Phase::Over(_)));
            let (idle_timeout, keep_alive) = (self.idle_timeout, self.keep_alive);
            let Some(end) = self.end_mut(at) else { continue };
            let waits = match end.phase {
                Phase::Open => true,
                // A dialer counts its attempts instead.
                Phase::Handshake => side == Side::Listener,
                Phase::Over(_) => false,
            };
            if !waits {
                continue;
            }
            let silent = remote_is_gone || !hears;
            if silent && !end.silent {
                end.silences = end.silences.wrapping_add(1);
                let number = end.silences;
                self.fabric.timer(now.saturating_add(idle_timeout), Signal::Silence(at, number));
            }
            let Some(end) = self.end_mut(at) else { continue };
            end.silent = silent;
            if remote_is_gone && hears && is_heard && !end.probing {
                end.probing = true;
                let wait = self.fabric.random.duration(keep_alive);
                self.fabric.timer(now.saturating_add(wait), Signal::Probe(at));
            }
        }
    }

    pub(crate) fn assess_all(&mut self, now: Duration) {
        let all: Vec<FlowId> = self.flows.keys().copied().collect();
        all.into_iter().for_each(|flow| self.assess(now, flow));
    }

    pub(super) fn flows_of(&self, host: HostId) -> Vec<FlowId> {
        self.by_host.get(&host).map(|flows| flows.iter().copied().collect()).unwrap_or_default()
    }

    pub(super) fn ends_of(&self, host: HostId) -> Vec<EndRef> {
        let both = |flow| [Side::Dialer, Side::Listener].map(|side| EndRef { flow, side });
        let ends = self.flows_of(host).into_iter().flat_map(both);
        ends.filter(|at| self.end(*at).is_some_and(|end| end.host == host)).collect()
    }

    pub(crate) fn crash(&mut self, now: Duration, host: HostId) {
        let Some(state) = self.fabric.host_mut(host) else { return };
        state.power = Power::Off;
        state.incarnation = state.incarnation.wrapping_add(1);
        self.fabric.note(now, What::Crashed, host);
        self.asleep.remove(&host);
        self.wake_tasks(host);
        self.end_listeners(now, host);
        for at in self.ends_of(host) {
            self.over(now, at, ConnectionError::Io("the host crashed".to_owned()));
        }
        self.assess_host(now, host);
    }

    pub(crate) fn restart(&mut self, now: Duration, host: HostId) {
        if let Some(state) = self.fabric.host_mut(host).filter(|host| host.power == Power::Off) {
            state.power = Power::On;
            self.fabric.note(now, What::Restarted, host);
            self.assess_host(now, host);
        }
    }

    pub(crate) fn sleep(&mut self, now: Duration, host: HostId, duration: Duration) {
        let Some(state) = self.fabric.host_mut(host).filter(|host| host.power != Power::Off) else { return };
        state.power = Power::Asleep;
        state.sleeps = state.sleeps.wrapping_add(1);
        let sleep = state.sleeps;
        self.fabric.note(now, What::FellAsleep, host);
        self.fabric.timer(now.saturating_add(duration), Signal::WakeUp(host, sleep));
        for at in self.ends_of(host) {
            self.keep_mapping(now, at, false);
        }
        self.assess_host(now, host);
    }

    pub(super) fn alarm(&mut self, now: Duration, host: HostId, sleep: u32) {
        if self.fabric.host(host).is_some_and(|host| host.sleeps == sleep) {
            self.wake(now, host);
        }
    }

    pub(crate) fn wake(&mut self, now: Duration, host: HostId) {
        let asleep = |host: &&mut HostState| host.power == Power::Asleep;
        let Some(state) = self.fabric.host_mut(host).filter(asleep) else { return };
        state.power = Power::On;
        self.fabric.note(now, What::WokeUp, host);
        self.wake_tasks(host);
        for segment in self.asleep.remove(&host).unwrap_or_default() {
            self.transmit(now, segment);
        }
        for at in self.ends_of(host) {
            self.keep_mapping(now, at, true);
            let Some(end) = self.end_mut(at) else { continue };
            // What was not heard while it slept does not count.
            end.silent = false;
            match (&end.phase, at.side) {
                (Phase::Open, _) => self.push(now, at, Body::KeepAlive),
                (Phase::Handshake, Side::Dialer) => {
                    let round = self.flows.get(&at.flow).map_or(1, |flow| flow.round);
                    self.send_round(now, at.flow, round, 0);
                }
                _ => {}
            }
        }
        self.assess_host(now, host);
    }

    pub(crate) fn assess_host(&mut self, now: Duration, host: HostId) {
        self.flows_of(host).into_iter().for_each(|flow| self.assess(now, flow));
    }
}
