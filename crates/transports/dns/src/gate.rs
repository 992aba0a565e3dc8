//! Addresses that are not to be dialed, whoever's name stands for them.

use std::sync::Arc;

use peerloom_core::{Connection, DialError, ListenError, Listener, Multiaddr, Transport, runtime::BoxFuture};

/// Says whether an address may be dialed, and if not, why.
pub(crate) type Permit = Arc<dyn Fn(Multiaddr) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A transport that asks before it dials.
pub(crate) struct GatedTransport {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) permit: Permit,
}

impl Transport for GatedTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        self.transport.can_dial(address)
    }

    fn can_listen(&self, address: &Multiaddr) -> bool {
        self.transport.can_listen(address)
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let (transport, permitted) = (self.transport.clone(), (self.permit)(address.clone()));
        Box::pin(async move {
            match permitted.await {
                Ok(()) => transport.dial(address).await,
                Err(reason) => Err(DialError::Denied { address, reason }),
            }
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        self.transport.listen(address)
    }
}
