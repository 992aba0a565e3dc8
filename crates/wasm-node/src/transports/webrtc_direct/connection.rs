use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use peerloom_core::{
    Connection, ConnectionError, Multiaddr, PeerId, PublicKey, Stream, StreamError,
    runtime::{BoxFuture, timeout},
};
use peerloom_upgrade::noise::RemoteIdentity;
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

/// Channels that we open at once. Chromium has 1,024 ids for both sides together, and frees one some round trips after its
/// channel was closed.
const MAX_OPENED_CHANNELS: usize = 256;

/// Streams that the remote has opened and nobody has accepted yet. One more is reset.
const ACCEPT_BACKLOG: usize = 256;

/// How long [`Connection::close`] waits for acknowledgements of what closed streams have sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A browser's RTCPeerConnection, closed when this is dropped.
pub(super) struct PeerConnection {
    shared: Rc<Shared>,
    handshake: Rc<Channel>,
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
    acceptor: RefCell<Option<Waker>>,
    permits: Arc<Semaphore>,
    sctp_listener: OnceCell<EventListener>,
}

impl PeerConnection {
    pub(super) fn new() -> Result<Self, JsValue> {
        // No ICE servers: the remote is at the address, and learns ours from the checks.
        let pc = RtcPeerConnection::new_with_configuration(&RtcConfiguration::new())?;
        let common = Common { closed: Closed::new(), pending: Pending::new(), buffered: Rc::default() };
        let shared = Rc::new(Shared {
            pc,
            common,
            answered: watch::Sender::new(false),
            channels: RefCell::default(),
            backlog: RefCell::default(),
            acceptor: RefCell::default(),
            permits: Arc::new(Semaphore::new(MAX_OPENED_CHANNELS)),
            sctp_listener: OnceCell::new(),
        });
        // From before the handshake on, so that a stream which the remote opens right after it is not missed.
        let listeners = [
            shared
                .listen("datachannel", |shared, event: RtcDataChannelEvent| shared.incoming(event.channel())),
            shared.listen("connectionstatechange", |shared, _: Event| shared.connection_state_changed()),
            shared.listen("iceconnectionstatechange", |shared, _: Event| shared.ice_state_changed()),
        ];
        let options = RtcDataChannelInit::new();
        options.set_negotiated(true);
        options.set_id(0);
        match shared.create_channel(&options) {
            Ok(channel) => {
                let handshake = shared.adopt(channel, None);
                Ok(Self { shared, handshake, _listeners: listeners })
            }
            Err(error) => {
                shared.pc.close();
                Err(error)
            }
        }
    }

    pub(super) fn pc(&self) -> &RtcPeerConnection {
        &self.shared.pc
    }

    /// Ready once the remote has answered a connectivity check.
    pub(super) fn answered(&self) -> BoxFuture<'static, ()> {
        let mut answered = self.shared.answered.subscribe();
        Box::pin(async move {
            if answered.wait_for(|answered| *answered).await.is_err() {
                // The attempt is over; its outcome tells more than we could.
                std::future::pending().await
            }
        })
    }

    /// The stream for the handshake, once ICE, DTLS and SCTP are through.
    pub(super) async fn handshake_stream(&self) -> Result<DataChannelStream, String> {
        match poll_fn(|cx| self.handshake.poll_open(cx)).await {
            Ok(()) => {
                self.shared.watch_sctp();
                Ok(DataChannelStream::new(self.handshake.clone()))
            }
            Err(StreamError::ConnectionLost(reason)) => Err(reason.to_string()),
            Err(error) => Err(error.to_string()),
        }
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

    fn create_channel(&self, options: &RtcDataChannelInit) -> Result<RtcDataChannel, JsValue> {
        self.pc.unchecked_ref::<Channels>().create_data_channel("", options)
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
        let Some(sctp) = self.pc.unchecked_ref::<Channels>().sctp() else { return };
        let shared = Rc::downgrade(self);
        let listener = EventListener::new(&sctp.clone(), "statechange", move |_: Event| {
            if let Some(shared) = shared.upgrade()
                && sctp.state() == "closed"
            {
                shared.end(ConnectionError::ClosedByRemote);
            }
        });
        // Called once.
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
            .create_channel(&RtcDataChannelInit::new())
            .map_err(|error| self.common.closed.reason_or(|| js::describe(&error)))?;
        let channel = self.adopt(channel, Some(permit));
        match poll_fn(|cx| channel.poll_open(cx)).await {
            Ok(()) => Ok(Box::new(DataChannelStream::new(channel))),
            Err(StreamError::ConnectionLost(reason)) => Err(reason),
            Err(error) => Err(self.common.closed.reason_or(|| error.to_string())),
        }
    }
}

pub(super) struct WebRtcConnection {
    connection: PeerConnection,
    remote: RemoteIdentity,
    address: Multiaddr,
}

impl WebRtcConnection {
    pub(super) fn new(connection: PeerConnection, remote: RemoteIdentity, address: Multiaddr) -> Self {
        Self { connection, remote, address }
    }
}

impl Connection for WebRtcConnection {
    fn remote_peer(&self) -> PeerId {
        self.remote.peer_id
    }

    fn remote_public_key(&self) -> &PublicKey {
        &self.remote.public_key
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
