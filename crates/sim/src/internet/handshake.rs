//! How connections begin: rounds of packets between a dialer and whoever listens, or dials at the same time.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use peerloom_core::{ConnectionError, PublicKey};

use super::{
    address::Endpoint,
    fabric::{IpProtocol, Outgoing},
    flow::{Body, CONTROL, End, EndRef, FIRST_RETRY, Flow, FlowId, Phase, Side, Signal, State},
    host::HostId,
};

impl State {
    /// Starts a connection. The caller holds its dialing end from now on.
    pub(crate) fn dial(
        &mut self,
        now: Duration,
        host: HostId,
        endpoint: Endpoint,
        secured: bool,
        key: PublicKey,
    ) -> Result<EndRef, &'static str> {
        let protocol = endpoint.service.protocol();
        let local = self.source(host, protocol, endpoint.socket).ok_or("this host has no route to it")?;
        let id = FlowId(self.next_flow);
        self.next_flow = id.0.wrapping_add(1);
        let dialer = End::new((host, self.incarnation(host)), local, endpoint.socket, key, Side::Dialer);
        let rounds = if secured { 1 } else { endpoint.service.round_trips() };
        let flow = Flow {
            service: endpoint.service,
            secured,
            rounds,
            round: 1,
            merged: None,
            dialer,
            listener: None,
        };
        self.flows.insert(id, flow);
        self.by_host.entry(host).or_default().insert(id);
        self.send_round(now, id, 1, 0);
        Ok(EndRef { flow: id, side: Side::Dialer })
    }

    /// A listener's port is the dialer's as well: QUIC has one socket for both, and TCP may share it.
    pub(super) fn source(
        &mut self,
        host: HostId,
        protocol: IpProtocol,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        let state = self.fabric.host(host)?;
        let ip = match remote.ip().is_loopback() {
            true => remote.ip(),
            false => *state.addresses.iter().find(|own| own.is_ipv4() == remote.is_ipv4())?,
        };
        let listening = self
            .listeners_of(host)
            .find(|(_, listener)| listener.service.protocol() == protocol && listener.hears(ip))
            .map(|(_, listener)| listener.port);
        let port = match listening {
            Some(port) => port,
            None => self.fabric.host_mut(host)?.assign_port(),
        };
        Some(SocketAddr::new(ip, port))
    }

    pub(super) fn send_round(&mut self, now: Duration, id: FlowId, round: u8, attempt: u32) {
        self.send(
            now,
            EndRef { flow: id, side: Side::Dialer },
            CONTROL,
            Signal::Dial { flow: id, round, attempt },
        );
        let retry = FIRST_RETRY.saturating_mul(1 << attempt.min(8));
        self.fabric.timer(now.saturating_add(retry), Signal::Dial { flow: id, round, attempt });
    }

    pub(super) fn dialed(
        &mut self,
        now: Duration,
        id: FlowId,
        round: u8,
        to: HostId,
        (local, source): (SocketAddr, SocketAddr),
    ) {
        let Some(flow) = self.flows.get(&id) else { return };
        if flow.merged.is_some() {
            return;
        }
        let at = EndRef { flow: id, side: Side::Listener };
        let (service, secured, rounds) = (flow.service, flow.secured, flow.rounds);
        if flow.listener.is_none() && round == 1 {
            let met = self.crossing(id, to, local, source);
            let listener = self.listening(to, local, service, secured);
            let (key, driven, listener) = match (&met, listener) {
                (Some((_, key)), _) => (key.clone(), true, None),
                (None, Some((id, listener))) if listener.has_room() => {
                    (listener.key.clone(), secured, Some(id))
                }
                // Whoever is too busy says nothing, and the dialer tries again.
                (None, Some(_)) => return,
                (None, None) => return self.refuse_stranger(now, id, to, (local, source)),
            };
            let mut end = End::new((to, self.incarnation(to)), local, source, key, Side::Listener);
            end.driven = driven;
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.listener = Some(end);
            }
            self.by_host.entry(to).or_default().insert(id);
            if let Some((other, _)) = met {
                self.merge(other, id);
            }
            if let Some(listener) = listener {
                self.incoming(listener, id);
            }
        }
        let Some(end) = self.end_mut(at) else { return };
        if matches!(end.phase, Phase::Over(_)) {
            return self.send(now, at, CONTROL, Signal::Refuse(at.other()));
        }
        match end.driven || round < rounds {
            true => self.send(now, at, CONTROL, Signal::Answer { flow: id, round }),
            false => end.waiting_round = Some(round),
        }
    }

    /// TCP's simultaneous open (RFC 9293, section 3.5): the host dials the very socket that dials it, from the very port.
    pub(super) fn crossing(
        &self,
        id: FlowId,
        host: HostId,
        local: SocketAddr,
        source: SocketAddr,
    ) -> Option<(FlowId, PublicKey)> {
        let secured = self.flows.get(&id).filter(|flow| flow.service.protocol() == IpProtocol::Tcp)?.secured;
        let crosses = |flow: &&Flow| {
            flow.service.protocol() == IpProtocol::Tcp
                && flow.secured == secured
                && flow.merged.is_none()
                && flow.listener.is_none()
                && matches!(flow.dialer.phase, Phase::Handshake)
                && (flow.dialer.host, flow.dialer.local, flow.dialer.remote) == (host, local, source)
        };
        let candidates = self.by_host.get(&host)?.iter().filter(|other| **other != id);
        candidates
            .filter_map(|other| Some((*other, self.flows.get(other).filter(crosses)?.dialer.key.clone())))
            .next()
    }

    /// The dial `id` goes on as the listening end of `into`.
    pub(super) fn merge(&mut self, id: FlowId, into: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.merged = Some(into);
        let woken = flow.dialer.wakers.take();
        self.woken.extend(woken);
    }

    /// A TCP port that nobody listens on says so. UDP ports say it too, but hardly anybody hears it.
    pub(super) fn refuse_stranger(
        &mut self,
        now: Duration,
        id: FlowId,
        host: HostId,
        (local, source): (SocketAddr, SocketAddr),
    ) {
        if self.flows.get(&id).is_some_and(|flow| flow.service.protocol() == IpProtocol::Tcp) {
            let payload = Signal::Refuse(EndRef { flow: id, side: Side::Dialer });
            let (protocol, length) = (IpProtocol::Tcp, CONTROL);
            let outgoing =
                Outgoing { from: host, protocol, source: local, destination: source, length, payload };
            self.fabric.send(now, outgoing);
        }
    }

    pub(super) fn refused(&mut self, now: Duration, at: EndRef) {
        let Some(end) = self.end_mut(at) else { return };
        let reason = match end.phase {
            Phase::Handshake => "connection refused",
            Phase::Open => "reset by the remote host",
            // The remote had gone before our goodbye came.
            Phase::Over(_) => return self.goodbye_heard(at),
        };
        self.over(now, at, ConnectionError::Io(reason.to_owned()));
    }

    pub(super) fn answered(&mut self, now: Duration, id: FlowId, round: u8) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if !matches!(flow.dialer.phase, Phase::Handshake) || flow.round != round {
            return;
        }
        let at = EndRef { flow: id, side: Side::Dialer };
        if round < flow.rounds {
            flow.round = round.saturating_add(1);
            self.send_round(now, id, round.saturating_add(1), 0);
        } else {
            self.open(now, at);
            self.push(now, at, Body::Confirm);
        }
    }

    /// The listening end's handshake is driven from now on.
    pub(crate) fn drive(&mut self, now: Duration, at: EndRef) {
        let Some(end) = self.end_mut(at) else { return };
        end.driven = true;
        if let Some(round) = end.waiting_round.take() {
            self.send(now, at, CONTROL, Signal::Answer { flow: at.flow, round });
        }
    }

    /// Ready with the remote's key once the connection is open; `at` may become another end on the way.
    pub(crate) fn poll_established(
        &mut self,
        at: &mut EndRef,
        cx: &Context<'_>,
    ) -> Poll<Result<PublicKey, Arc<ConnectionError>>> {
        self.follow(at);
        let remote = self.end(at.other()).map(|end| end.key.clone());
        let Some(end) = self.end_mut(*at) else {
            return Poll::Ready(Err(Arc::new(ConnectionError::ClosedLocally)));
        };
        match (&end.phase, remote) {
            (Phase::Over(reason), _) => Poll::Ready(Err(reason.clone())),
            (Phase::Open, Some(remote)) => Poll::Ready(Ok(remote)),
            _ => {
                end.wakers.register(cx);
                Poll::Pending
            }
        }
    }

    /// A dial that has met another goes on as its listening end.
    pub(super) fn follow(&mut self, at: &mut EndRef) {
        let merged = self.flows.get(&at.flow).and_then(|flow| flow.merged);
        if let Some(into) = merged.filter(|_| at.side == Side::Dialer) {
            self.remove(at.flow);
            *at = EndRef { flow: into, side: Side::Listener };
        }
    }

    /// A dial, or a handshake, is given up.
    pub(crate) fn cancel(&mut self, now: Duration, mut at: EndRef) {
        self.follow(&mut at);
        self.close(now, at, None);
        self.release(at);
    }
}
