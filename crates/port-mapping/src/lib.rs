//! Asks the router to forward the ports that a node listens on: by PCP (RFC 6887) or NAT-PMP (RFC 6886), and where it has
//! neither, by UPnP's Internet Gateway Device.
//!
//! What is forwarded becomes one of the node's [own addresses](peerloom_node::Node::own_addresses), for AutoNAT to test. Mappings
//! are renewed at half of their lifetime, and taken back by [`PortMapper::close`]; if nobody says goodbye, they end by
//! themselves.
//!
//! ```no_run
//! # async fn example(node: peerloom_node::Node) {
//! use peerloom_port_mapping::{Config, PortMapper};
//!
//! let mapper = PortMapper::start(&node, Config::default());
//! // …
//! mapper.close().await;
//! # }
//! ```

mod gateway;
mod route;
mod wanted;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use peerloom_core::{
    Scope,
    runtime::{Instant, sleep_until, timeout},
};
use peerloom_node::{Events, Node, NodeEvent, WeakNode};
use tokio::sync::{mpsc, oneshot};

use self::{
    gateway::{Gateway, Mapping, MappingError},
    wanted::{Port, ports},
};

/// Which routers are asked, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Asks by PCP, and by NAT-PMP where the router does not know that.
    pub pcp: bool,
    /// Asks by UPnP.
    pub upnp: bool,
    /// The router; that of the system's default route, if it is not said.
    pub gateway: Option<Ipv4Addr>,
    /// Where UPnP routers are looked for; at its multicast address, if it is not said.
    pub upnp_search: Option<SocketAddr>,
    /// Takes addresses outside that are none of the internet's, too: behind two routers they reach as far as the second. For
    /// tests.
    pub private: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { pcp: true, upnp: true, gateway: None, upnp_search: None, private: false }
    }
}

/// How long a router is asked to forward a port.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Until a router that refused, or that is not there, is asked again.
const RETRY: Duration = Duration::from_secs(15 * 60);
/// Listeners come several at a time.
const SETTLE: Duration = Duration::from_millis(500);
/// What taking all mappings back may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps mappings for a node. A handle; when it is dropped, mappings are left to end by themselves.
#[derive(Debug)]
pub struct PortMapper {
    close: mpsc::Sender<oneshot::Sender<()>>,
}

impl PortMapper {
    /// From now on, the router is asked for whatever the node listens on.
    pub fn start(node: &Node, config: Config) -> Self {
        let (close, closing) = mpsc::channel(1);
        let events = node.events();
        let keeping = Keeping { node: node.downgrade(), config, mappings: BTreeMap::new(), gateway: None };
        node.spawn(keeping.run(events, closing));
        Self { close }
    }

    /// Takes the mappings back, within five seconds. To be called before the node is closed.
    pub async fn close(self) {
        let (sender, closed) = oneshot::channel();
        if self.close.send(sender).await.is_ok() {
            let _ = timeout(GOODBYE_TIMEOUT, closed).await;
        }
    }
}

struct Keeping {
    node: WeakNode,
    config: Config,
    /// The router that has done something for us.
    gateway: Option<Gateway>,
    /// At most [`MAX_PORTS`](wanted::MAX_PORTS).
    mappings: BTreeMap<Port, Kept>,
}

struct Kept {
    /// None if no router has agreed.
    mapping: Option<Mapping>,
    /// When it is renewed, or asked for again.
    next: Instant,
}

impl Keeping {
    async fn run(mut self, mut events: Events, closing: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut closing = Some(closing);
        // For what is listened on already.
        let mut look = Instant::now().checked_add(SETTLE);
        loop {
            let renew = self.mappings.values().map(|kept| kept.next).min();
            let due = async {
                match look.into_iter().chain(renew).min() {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let close = async {
                match &mut closing {
                    Some(closing) => closing.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                closed = close => match closed {
                    Some(closed) => {
                        for port in self.mappings.keys().copied().collect::<Vec<_>>() {
                            self.give_back(port).await;
                        }
                        let _ = closed.send(());
                        return;
                    }
                    // Nobody can say goodbye any more. Mappings are kept for as long as the node lives.
                    None => closing = None,
                },
                event = events.next() => match event {
                    Some(NodeEvent::ListenAddressesChanged { .. } | NodeEvent::Lagged { .. }) => {
                        look = look.or_else(|| Instant::now().checked_add(SETTLE));
                    }
                    Some(_) => {}
                    None => return,
                },
                () = due => {
                    look = None;
                    self.look().await;
                }
            }
        }
    }

    /// Asks for what is wanted and not there, or due; gives back what is no longer wanted.
    async fn look(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        let client = match route::to_gateway(self.config.gateway) {
            Some((_, client)) if self.config.private || Scope::of(client.into()) == Scope::Network => client,
            // A machine with a public address needs no router to forward anything, and one without a network has none.
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let wanted = ports(&node.own_addresses(), client);
        drop(node);
        let superfluous: Vec<_> =
            self.mappings.keys().filter(|port| !wanted.contains(port)).copied().collect();
        for port in superfluous {
            self.give_back(port).await;
        }
        for port in wanted {
            if self.mappings.get(&port).is_none_or(|kept| kept.next <= Instant::now()) {
                self.ask(port).await;
            }
        }
    }

    async fn ask(&mut self, port: Port) {
        let old = self.mappings.remove(&port).and_then(|kept| kept.mapping);
        let mapping = match (old, &self.gateway) {
            (Some(old), _) => old.renewed().await,
            (None, Some(gateway)) => gateway.map(port, LIFETIME).await,
            (None, None) => self.find(port).await,
        };
        let mapping = mapping.inspect_err(|error| tracing::debug!(%port, %error, "no port mapping")).ok();
        if mapping.is_none() {
            // The router may be another one now.
            self.gateway = None;
        }
        let reaches =
            |outside: &SocketAddr| self.config.private || Scope::of(outside.ip()) == Scope::Internet;
        let outside = mapping.as_ref().map(|mapping| mapping.outside).filter(reaches);
        let wait = mapping.as_ref().map_or(RETRY, |mapping| mapping.lifetime / 2);
        let now = Instant::now();
        self.mappings.insert(port, Kept { mapping, next: now.checked_add(wait).unwrap_or(now) });
        self.tell(port, outside);
    }

    /// The first router that agrees, and what it agrees to.
    async fn find(&mut self, port: Port) -> Result<Mapping, MappingError> {
        let mut outcome = Err(MappingError::NoGateway);
        if let Some(gateway) = Gateway::pcp(&self.config) {
            outcome = self.try_gateway(gateway, port).await;
        }
        if outcome.is_err()
            && let Some(gateway) = Gateway::upnp(&self.config).await
        {
            outcome = self.try_gateway(gateway, port).await;
        }
        outcome
    }

    async fn try_gateway(&mut self, gateway: Gateway, port: Port) -> Result<Mapping, MappingError> {
        let mapping = gateway.map(port, LIFETIME).await?;
        self.gateway = Some(gateway);
        Ok(mapping)
    }

    async fn give_back(&mut self, port: Port) {
        let Some(kept) = self.mappings.remove(&port) else { return };
        self.tell(port, None);
        if let Some(mapping) = kept.mapping
            && let Err(error) = mapping.give_back().await
        {
            tracing::debug!(%port, %error, "a port mapping is left to end by itself");
        }
    }

    fn tell(&self, port: Port, outside: Option<SocketAddr>) {
        if let Some(outside) = outside {
            tracing::info!(%port, %outside, "the router forwards a port");
        }
        if let Some(node) = self.node.upgrade() {
            node.set_port_mapping(port.protocol, port.inside, outside);
        }
    }
}
