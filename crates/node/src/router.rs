//! Which handler an inbound stream goes to, by protocol name.

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::RwLock;
use peerloom_core::{
    ProtocolName,
    multistream_select::NegotiatedStream,
    runtime::{BoxFuture, MaybeSend, MaybeSync},
};

use crate::connections::ConnectionInfo;

/// A stream that a remote opened for a protocol that this node handles.
pub struct IncomingStream {
    /// The stream, negotiated.
    pub stream: NegotiatedStream,
    /// The connection it belongs to; says which peer.
    pub connection: ConnectionInfo,
}

impl fmt::Debug for IncomingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// A stream that this node opened.
pub struct OpenedStream {
    /// The stream, negotiated or about to be.
    pub stream: NegotiatedStream,
    /// The connection that was chosen for it.
    pub connection: ConnectionInfo,
}

impl fmt::Debug for OpenedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedStream").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// Why a protocol cannot be handled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// There is a handler for it.
    #[error("{protocol} has a handler already")]
    AlreadyHandled {
        /// The protocol.
        protocol: ProtocolName,
    },
    /// [`Limits::protocols`](crate::Limits::protocols) is reached.
    #[error("cannot handle {protocol}: the limit of {limit} protocols is reached")]
    TooMany {
        /// The protocol.
        protocol: ProtocolName,
        /// The limit.
        limit: usize,
    },
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) type Handler = Arc<dyn Fn(IncomingStream) -> BoxFuture<'static, ()> + Send + Sync>;
#[cfg(target_arch = "wasm32")]
pub(crate) type Handler = Arc<dyn Fn(IncomingStream) -> BoxFuture<'static, ()>>;

pub(crate) fn boxed_handler<F, Fut>(handler: F) -> Handler
where
    F: Fn(IncomingStream) -> Fut + MaybeSend + MaybeSync + 'static,
    Fut: Future<Output = ()> + MaybeSend + 'static,
{
    Arc::new(move |incoming| Box::pin(handler(incoming)))
}

#[derive(Default)]
pub(crate) struct Router(RwLock<BTreeMap<ProtocolName, Entry>>);

struct Entry {
    handler: Handler,
    /// Whether streams may come over limited connections.
    on_limited: bool,
}

impl Router {
    pub(crate) fn insert(
        &self,
        protocol: ProtocolName,
        handler: Handler,
        on_limited: bool,
        limit: usize,
    ) -> Result<(), HandleError> {
        let mut handlers = self.0.write();
        if handlers.contains_key(&protocol) {
            return Err(HandleError::AlreadyHandled { protocol });
        }
        if handlers.len() >= limit {
            return Err(HandleError::TooMany { protocol, limit });
        }
        handlers.insert(protocol, Entry { handler, on_limited });
        Ok(())
    }

    pub(crate) fn remove(&self, protocol: &ProtocolName) -> bool {
        self.0.write().remove(protocol).is_some()
    }

    /// The protocol as it was registered (a remote's name for it is never kept), if it may run on the connection.
    pub(crate) fn supports(&self, name: &str, limited_connection: bool) -> Option<ProtocolName> {
        let handlers = self.0.read();
        let (protocol, entry) = handlers.get_key_value(name)?;
        (entry.on_limited || !limited_connection).then(|| protocol.clone())
    }

    pub(crate) fn handler(&self, protocol: &ProtocolName) -> Option<Handler> {
        self.0.read().get(protocol).map(|entry| entry.handler.clone())
    }

    /// In the order of their names, so that two identify messages of one state are equal.
    pub(crate) fn protocols(&self) -> Vec<ProtocolName> {
        self.0.read().keys().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.0.write().clear();
    }
}
