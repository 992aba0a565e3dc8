//! Ports that hosts listen on.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};

use peerloom_core::PublicKey;

use super::{
    address::{Endpoint, Service},
    flow::{EndRef, FlowId, Side, State, Wakers},
    host::HostId,
};

/// Dialers that a listener has not accepted yet; the packets of further ones are dropped.
const BACKLOG: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListenerId {
    host: HostId,
    number: u64,
}

#[derive(Debug)]
pub(crate) struct ListenerState {
    ip: IpAddr,
    pub(super) port: u16,
    pub(super) service: Service,
    secured: bool,
    pub(super) key: PublicKey,
    waiting: VecDeque<FlowId>,
    wakers: Wakers,
    /// The host has crashed.
    dead: bool,
}

impl ListenerState {
    pub(super) fn hears(&self, ip: IpAddr) -> bool {
        !self.dead && (self.ip == ip || self.ip.is_unspecified() && self.ip.is_ipv4() == ip.is_ipv4())
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < BACKLOG
    }
}

impl State {
    /// Starts to listen; says at which addresses.
    pub(crate) fn listen(
        &mut self,
        host: HostId,
        endpoint: Endpoint,
        secured: bool,
        key: PublicKey,
    ) -> Result<(ListenerId, Vec<Endpoint>), &'static str> {
        let (ip, service) = (endpoint.socket.ip(), endpoint.service);
        let own = self.fabric.host(host).map(|host| host.addresses.clone()).unwrap_or_default();
        let own: Vec<IpAddr> = match ip.is_unspecified() {
            true => own.into_iter().filter(|own| own.is_ipv4() == ip.is_ipv4()).collect(),
            false => vec![ip],
        };
        let has_it = |ip: &IpAddr| {
            ip.is_loopback() || self.fabric.host(host).is_some_and(|host| host.addresses.contains(ip))
        };
        if own.is_empty() || !own.iter().all(has_it) {
            return Err("the host does not have this address");
        }
        let port = match endpoint.socket.port() {
            0 => self.fabric.host_mut(host).ok_or("no such host")?.assign_port(),
            port => port,
        };
        let taken = |listener: &ListenerState| {
            (listener.port, listener.service) == (port, service)
                && own.iter().any(|own| listener.hears(*own) || listener.ip.is_unspecified())
        };
        if self.listeners_of(host).any(|(_, listener)| taken(listener)) {
            return Err("the port is in use");
        }
        let id = ListenerId { host, number: self.next_listener };
        self.next_listener = id.number.wrapping_add(1);
        let (waiting, wakers) = (VecDeque::new(), Wakers::default());
        let listener = ListenerState { ip, port, service, secured, key, waiting, wakers, dead: false };
        self.listeners.insert(id, listener);
        let endpoints =
            own.into_iter().map(|ip| Endpoint { socket: SocketAddr::new(ip, port), service }).collect();
        Ok((id, endpoints))
    }

    pub(super) fn listeners_of(&self, host: HostId) -> impl Iterator<Item = (ListenerId, &ListenerState)> {
        let all = ListenerId { host, number: 0 }..=ListenerId { host, number: u64::MAX };
        self.listeners.range(all).filter(|(_, listener)| !listener.dead).map(|(id, listener)| (*id, listener))
    }

    pub(super) fn listening(
        &self,
        host: HostId,
        local: SocketAddr,
        service: Service,
        secured: bool,
    ) -> Option<(ListenerId, &ListenerState)> {
        self.listeners_of(host).find(|(_, listener)| {
            (listener.port, listener.service, listener.secured) == (local.port(), service, secured)
                && listener.hears(local.ip())
        })
    }

    pub(super) fn incoming(&mut self, id: ListenerId, flow: FlowId) {
        let Some(listener) = self.listeners.get_mut(&id) else { return };
        listener.waiting.push_back(flow);
        let woken = listener.wakers.take();
        self.woken.extend(woken);
    }

    /// The next dialer; `None` once the host has crashed. The caller holds its end from now on.
    pub(crate) fn poll_incoming(&mut self, id: ListenerId, cx: &Context<'_>) -> Poll<Option<EndRef>> {
        let Some(listener) = self.listeners.get_mut(&id).filter(|listener| !listener.dead) else {
            return Poll::Ready(None);
        };
        if let Some(flow) = listener.waiting.pop_front() {
            return Poll::Ready(Some(EndRef { flow, side: Side::Listener }));
        }
        listener.wakers.register(cx);
        Poll::Pending
    }

    pub(crate) fn unlisten(&mut self, now: Duration, id: ListenerId) {
        let Some(listener) = self.listeners.remove(&id) else { return };
        for flow in listener.waiting {
            self.cancel(now, EndRef { flow, side: Side::Listener });
        }
    }

    /// The host has crashed.
    pub(super) fn end_listeners(&mut self, now: Duration, host: HostId) {
        let all: Vec<ListenerId> = self.listeners_of(host).map(|(id, _)| id).collect();
        for id in all {
            let Some(listener) = self.listeners.get_mut(&id) else { continue };
            listener.dead = true;
            let (woken, waiting) = (listener.wakers.take(), std::mem::take(&mut listener.waiting));
            self.woken.extend(woken);
            for flow in waiting {
                self.cancel(now, EndRef { flow, side: Side::Listener });
            }
        }
    }
}
