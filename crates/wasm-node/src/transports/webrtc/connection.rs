use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use js_sys::{Array, Object};
use peerloom_core::{
    Connection, ConnectionError, Multiaddr, PeerId, PublicKey, Stream, StreamError,
    runtime::{BoxFuture, timeout},
};
use tokio::sync::{Semaphore, watch};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{
    Event, RtcConfiguration, RtcDataChannel, RtcDataChannelEvent, RtcDataChannelInit, RtcIceConnectionState,
    RtcPeerConnection, RtcPeerConnectionState,
};

use super::{
    bindings::Channels,
    channel::{Channel, Common, DataChannelStream},
};
use crate::{
    event_listener::EventListener,
    js,
    transports::{closed::Closed, pending::Pending},
};

/// The label of a channel that is no stream: whoever dials another page opens it, so that there is something to connect for.
pub(crate) const INIT_CHANNEL: &str = "init";

/// Channels that we open at once. Chromium has 1,024 ids for both sides together, and frees one some round trips after its
/// channel was closed.
const MAX_OPENED_CHANNELS: usize = 256;

/// Streams that the remote has opened and nobody has accepted yet. One more is reset.
const ACCEPT_BACKLOG: usize = 256;

/// How long [`Connection::close`] waits for acknowledgements of what closed streams have sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A browser's RTCPeerConnection, closed when this is dropped.
pub(crate) struct PeerConnection {
    shared: Rc<Shared>,
    _listeners: [EventListener; 3],
}

struct Shared {
    pc: RtcPeerConnection,
    common: Common,
    /// Whether the remote has answered a connectivity check.
    answered: watch::Sender<bool>,
    /// Every channel that somebody may wait on.
    channels: RefCell<Vec<Weak<Channel>>>,
    backlog: RefCell<VecDeque<Rc<Channel>>>,
    /// Whether the remote's [`INIT_CHANNEL`] has come.
    init: Cell<bool>,
    acceptor: RefCell<Option<Waker>>,
    permits: Arc<Semaphore>,
    sctp_listener: OnceCell<EventListener>,
}

impl PeerConnection {
    /// One that asks these servers (`stun:<host>:<port>`) for its address.
    pub(crate) fn new(ice_servers: &[String]) -> Result<Self, JsValue> {
        let configuration = RtcConfiguration::new();
        if !ice_servers.is_empty() {
            let urls: Array = ice_servers.iter().map(|url| JsValue::from_str(url)).collect();
            let server = Object::new();
            js::set_property(&server, "urls", &urls);
            configuration.set_ice_servers(&Array::of1(&server));
        }
        let pc = RtcPeerConnection::new_with_configuration(&configuration)?;
        let common = Common {
            closed: Closed::new(),
            pending: Pending::new(),
            buffered: Rc::default(),
            joins_lengths: Rc::default(),
        };
        let shared = Rc::new(Shared {
            pc,
            common,
            answered: watch::Sender::new(false),
            channels: RefCell::default(),
            backlog: RefCell::default(),
            init: Cell::default(),
            acceptor: RefCell::default(),
            permits: Arc::new(Semaphore::new(MAX_OPENED_CHANNELS)),
            sctp_listener: OnceCell::new(),
        });
        // From the beginning, so that a stream which the remote opens right after the handshake is not missed.
        let listeners = [
            shared
                .listen("datachannel", |shared, event: RtcDataChannelEvent| shared.incoming(event.channel())),
            shared.listen("connectionstatechange", |shared, _: Event| shared.connection_state_changed()),
            shared.listen("iceconnectionstatechange", |shared, _: Event| shared.ice_state_changed()),
        ];
        Ok(Self { shared, _listeners: listeners })
    }

    pub(crate) fn pc(&self) -> &RtcPeerConnection {
        &self.shared.pc
    }

    /// Ready once the remote has answered a connectivity check.
    pub(crate) fn answered(&self) -> BoxFuture<'static, ()> {
        let mut answered = self.shared.answered.subscribe();
        Box::pin(async move {
            if answered.wait_for(|answered| *answered).await.is_err() {
                // The attempt is over; its outcome tells more than we could.
                std::future::pending().await
            }
        })
    }

    /// Why the connection is over, if it is.
    pub(crate) fn reason(&self) -> Option<Arc<ConnectionError>> {
        self.shared.common.closed.reason()
    }

    /// A channel of our own that is no stream.
    pub(crate) fn create_channel(
        &self,
        label: &str,
        options: &RtcDataChannelInit,
    ) -> Result<RtcDataChannel, JsValue> {
        self.shared.create_channel(label, options)
    }

    /// Takes what comes on one.
    pub(crate) fn adopt(&self, channel: RtcDataChannel) -> Rc<Channel> {
        self.shared.adopt(channel, None)
    }

    /// From when descriptions are set on: notices an orderly close by the remote.
    pub(crate) fn watch_sctp(&self) {
        self.shared.watch_sctp();
    }

    /// The connection, once it is made and `remote` has proved to be at the other end.
    /// A connection to `remote`. `joins_lengths` is whether that reads a long message and its length from one message of a
    /// channel.
    pub(crate) fn into_connection(
        self,
        remote: PublicKey,
        address: Multiaddr,
        joins_lengths: bool,
    ) -> WebRtcConnection {
        self.shared.watch_sctp();
        self.shared.common.joins_lengths.set(joins_lengths);
        WebRtcConnection { connection: self, peer: remote.peer_id(), remote, address }
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        self.shared.end(ConnectionError::ClosedLocally);
    }
}

impl Shared {
    fn listen<E: JsCast>(
        self: &Rc<Self>,
        kind: &'static str,
        callback: impl Fn(Rc<Self>, E) + 'static,
    ) -> EventListener {
        let shared = Rc::downgrade(self);
        EventListener::new(&self.pc, kind, move |event| {
            if let Some(shared) = shared.upgrade() {
                callback(shared, event);
            }
        })
    }

    fn create_channel(&self, label: &str, options: &RtcDataChannelInit) -> Result<RtcDataChannel, JsValue> {
        self.pc.unchecked_ref::<Channels>().create_data_channel(label, options)
    }

    fn adopt(
        &self,
        channel: RtcDataChannel,
        permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Rc<Channel> {
        let channel = Channel::new(channel, self.common.clone(), permit);
        let mut channels = self.channels.borrow_mut();
        channels.retain(|channel| channel.strong_count() > 0);
        channels.push(Rc::downgrade(&channel));
        channel
    }

    fn incoming(&self, channel: RtcDataChannel) {
        // The remote closes it. js-libp2p waits for it to open first, so it must not be closed here. There is one.
        if channel.label() == INIT_CHANNEL && !self.init.replace(true) {
            return;
        }
        if self.backlog.borrow().len() >= ACCEPT_BACKLOG {
            channel.close();
            return;
        }
        let channel = self.adopt(channel, None);
        self.backlog.borrow_mut().push_back(channel);
        self.wake_acceptor();
    }

    fn wake_acceptor(&self) {
        if let Some(waker) = self.acceptor.take() {
            waker.wake();
        }
    }

    fn connection_state_changed(&self) {
        match self.pc.connection_state() {
            RtcPeerConnectionState::Failed => self.end(match *self.answered.borrow() {
                true => ConnectionError::TimedOut,
                false => ConnectionError::Io("no answer".into()),
            }),
            RtcPeerConnectionState::Closed => self.end(ConnectionError::ClosedByRemote),
            // "disconnected" is a guess that the browser may take back.
            _ => {}
        }
    }

    fn ice_state_changed(&self) {
        use RtcIceConnectionState::{Completed, Connected, Failed};
        match self.pc.ice_connection_state() {
            Connected | Completed => _ = self.answered.send_replace(true),
            Failed => self.connection_state_changed(),
            _ => {}
        }
    }

    /// The SCTP association's end is how an orderly close by the remote shows.
    fn watch_sctp(self: &Rc<Self>) {
        if self.sctp_listener.get().is_some() {
            return;
        }
        let Some(sctp) = self.pc.unchecked_ref::<Channels>().sctp() else { return };
        if sctp.state() == "closed" {
            return self.end(ConnectionError::ClosedByRemote);
        }
        let shared = Rc::downgrade(self);
        let listener = EventListener::new(&sctp.clone(), "statechange", move |_: Event| {
            if let Some(shared) = shared.upgrade()
                && sctp.state() == "closed"
            {
                shared.end(ConnectionError::ClosedByRemote);
            }
        });
        // Was not set, as we have seen.
        let _ = self.sctp_listener.set(listener);
    }

    fn end(&self, reason: ConnectionError) {
        self.common.closed.set(reason);
        self.permits.close();
        self.pc.close();
        let reason = self.reason();
        // Browsers do not agree on whether closing a connection tells its channels.
        for channel in self.channels.take().iter().filter_map(Weak::upgrade) {
            channel.connection_lost(reason.clone());
        }
        self.backlog.take();
        self.wake_acceptor();
    }

    fn reason(&self) -> Arc<ConnectionError> {
        self.common.closed.reason_or(String::new)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<Rc<Channel>, Arc<ConnectionError>>> {
        if let Some(channel) = self.backlog.borrow_mut().pop_front() {
            return Poll::Ready(Ok(channel));
        }
        if let Some(reason) = self.common.closed.reason() {
            return Poll::Ready(Err(reason));
        }
        *self.acceptor.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    async fn open(&self) -> Result<Box<dyn Stream>, Arc<ConnectionError>> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| self.reason())?;
        let channel = self
            .create_channel("", &RtcDataChannelInit::new())
            .map_err(|error| self.common.closed.reason_or(|| js::describe(&error)))?;
        let channel = self.adopt(channel, Some(permit));
        match poll_fn(|cx| channel.poll_open(cx)).await {
            Ok(()) => Ok(Box::new(DataChannelStream::new(channel))),
            Err(StreamError::ConnectionLost(reason)) => Err(reason),
            Err(error) => Err(self.common.closed.reason_or(|| error.to_string())),
        }
    }
}

/// A connection with data channels as its streams.
pub(crate) struct WebRtcConnection {
    connection: PeerConnection,
    peer: PeerId,
    remote: PublicKey,
    address: Multiaddr,
}

impl Connection for WebRtcConnection {
    fn remote_peer(&self) -> PeerId {
        self.peer
    }

    fn remote_public_key(&self) -> &PublicKey {
        &self.remote
    }

    fn remote_address(&self) -> &Multiaddr {
        &self.address
    }

    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        let shared = self.connection.shared.clone();
        Box::pin(async move { shared.open().await })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(async {
            let channel = poll_fn(|cx| self.connection.shared.poll_accept(cx)).await?;
            Ok(Box::new(DataChannelStream::new(channel)) as Box<dyn Stream>)
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let shared = self.connection.shared.clone();
        Box::pin(async move {
            if shared.common.closed.reason().is_none() {
                let _ = timeout(CLOSE_TIMEOUT, shared.common.pending.idle()).await;
                shared.end(ConnectionError::ClosedLocally);
            }
        })
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        self.connection.shared.common.closed.wait()
    }
}
