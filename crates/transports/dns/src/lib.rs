//! Names in addresses: [`DnsTransport`] asks DNS what `/dns`, `/dns4`, `/dns6` and `/dnsaddr` stand for and hands the
//! addresses to other transports. libp2p spec, addressing/README.md, "IP and Name Resolution".
//!
//! In an address of a WebSocket inside of TLS the name stays as `/sni`, so that the certificate is compared with it. A
//! WebSocket without TLS is asked for by its IP address.

mod dial;
mod gate;
mod resolution;
mod resolver;
mod system;

use std::{net::Ipv4Addr, sync::Arc};

use peerloom_core::{
    Connection, DialError, ListenError, Listener, Multiaddr, PeerId, Transport, runtime::BoxFuture,
};

use crate::{
    gate::{GatedTransport, Permit},
    resolution::Name,
};
pub use crate::{
    resolution::{MAX_ADDRESSES, MAX_NAMES, MAX_RECURSION, RESOLUTION_TIMEOUT, ResolutionError, resolve},
    resolver::{LookupError, Resolver},
    system::{SystemResolver, SystemResolverError},
};

/// Transports that are dialed by name, too. Addresses without a name go to them as they are.
#[derive(Clone)]
pub struct DnsTransport {
    transports: Vec<Arc<dyn Transport>>,
    resolver: Arc<dyn Resolver>,
    permit: Option<Permit>,
}

impl DnsTransport {
    /// Asks `resolver` for names.
    pub fn new(resolver: impl Resolver) -> Self {
        Self { transports: Vec::new(), resolver: Arc::new(resolver), permit: None }
    }

    /// Dials and listens with `transport`; of several that could, with the first.
    pub fn with_transport(mut self, transport: impl Transport) -> Self {
        self.transports.push(Arc::new(transport));
        self
    }

    /// Asks `permit` before each address that a name stands for is dialed: whoever owns a name may have it lead anywhere, also
    /// into the network that this machine is in. An error says why not ([`DialError::Denied`]).
    pub fn with_gate<F, Fut>(mut self, permit: F) -> Self
    where
        F: Fn(Multiaddr) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.permit = Some(Arc::new(move |address| Box::pin(permit(address))));
        self
    }

    /// The transport for an address that a name stands for.
    fn gated_dialer(&self, address: &Multiaddr) -> Option<Arc<dyn Transport>> {
        let transport = self.dialer(address)?;
        Some(match &self.permit {
            Some(permit) => Arc::new(GatedTransport { transport, permit: permit.clone() }),
            None => transport,
        })
    }

    fn dialer(&self, address: &Multiaddr) -> Option<Arc<dyn Transport>> {
        self.transports.iter().find(|transport| transport.can_dial(address)).cloned()
    }
}

impl Transport for DnsTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        match Name::parse(address) {
            None => self.dialer(address).is_some(),
            // What is behind it, DNS will tell.
            Some(Name::Dnsaddr { .. }) => true,
            Some(Name::Host(host)) => {
                // The transports do not care which address it is.
                self.dialer(&host.with_ip(Ipv4Addr::UNSPECIFIED.into())).is_some()
            }
        }
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        self.transports.iter().any(|transport| transport.can_listen(address))
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        if Name::parse(&address).is_none()
            && let Some(transport) = self.dialer(&address)
        {
            return transport.dial(address);
        }
        let this = self.clone();
        Box::pin(async move {
            let resolved = match resolve(&*this.resolver, &address).await {
                Ok(resolved) => resolved,
                Err(error) => return Err(DialError::Unreachable { address, reason: error.to_string() }),
            };
            let dials =
                resolved.into_iter().filter_map(|address| Some((this.gated_dialer(&address)?, address)));
            match dial::race(dials.collect()).await {
                Some(outcome) => outcome,
                None => {
                    let reason = "no transport for any address that the name stands for";
                    Err(DialError::UnsupportedAddress { address, reason })
                }
            }
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        match self.transports.iter().find(|transport| transport.can_listen(&address)) {
            Some(transport) => transport.listen(address),
            None => Box::pin(std::future::ready(Err(ListenError::UnsupportedAddress {
                address,
                reason: "no transport listens on such an address",
            }))),
        }
    }

    fn routes(&self, peer: PeerId) -> Vec<Multiaddr> {
        self.transports.iter().flat_map(|transport| transport.routes(peer)).collect()
    }
}
