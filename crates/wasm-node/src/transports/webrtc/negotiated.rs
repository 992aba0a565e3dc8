//! Page to page: both sides' descriptions are exchanged, and the browser makes and checks them.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use js_sys::JSON;
use peerloom_core::{Connection, ConnectionError, Multiaddr, PublicKey, runtime::BoxFuture};
use peerloom_webrtc_signaling::{
    PeerConnection as Negotiation, PeerConnectionEvent, PeerConnectionFactory, SignalingRole,
};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    Event, EventTarget, RtcDataChannel, RtcDataChannelInit, RtcDataChannelState, RtcIceCandidateInit,
    RtcPeerConnectionIceEvent, RtcPeerConnectionState, RtcSdpType, RtcSessionDescriptionInit,
};

use super::connection::{INIT_CHANNEL, PeerConnection};
use crate::{event_listener::EventListener, js, sdp};

/// Makes connections between pages with the browser's RTCPeerConnection.
pub struct BrowserPeerConnections {
    ice_servers: Vec<String>,
}

impl BrowserPeerConnections {
    /// `ice_servers` (`stun:<host>:<port>`) tell pages behind a NAT what they look like from outside; none means that only
    /// pages of one network, or with public addresses, reach each other.
    pub fn new(ice_servers: Vec<String>) -> Self {
        Self { ice_servers }
    }
}

impl PeerConnectionFactory for BrowserPeerConnections {
    fn create(&self, _: SignalingRole) -> Result<Box<dyn Negotiation>, String> {
        if !js::has_global("RTCPeerConnection") {
            return Err("there is no WebRTC here (workers have none)".to_owned());
        }
        let connection = PeerConnection::new(&self.ice_servers).map_err(|error| js::describe(&error))?;
        Ok(Box::new(BrowserPeerConnection::new(connection)))
    }
}

/// Local candidates that wait to be told; a browser finds some dozens at most.
const MAX_WAITING_CANDIDATES: usize = 128;

struct BrowserPeerConnection {
    connection: PeerConnection,
    /// The [`INIT_CHANNEL`], if we are the one to open it, and the listener on it.
    init: Option<(RtcDataChannel, EventListener)>,
    progress: Rc<Progress>,
    is_connected: bool,
    _listeners: [EventListener; 4],
}

/// What the browser's events have told, read or not.
#[derive(Default)]
struct Progress {
    candidates: RefCell<VecDeque<String>>,
    /// A channel has come, so there is a connection.
    channel_came: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Progress {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Every event is a reason to look at the state anew: which of them come, and in which order, is up to the browser.
    fn listen(self: &Rc<Self>, target: &EventTarget, kind: &'static str) -> EventListener {
        let progress = self.clone();
        EventListener::new(target, kind, move |_: Event| progress.wake())
    }

    fn candidate(&self, event: &RtcPeerConnectionIceEvent) {
        // None, or an empty one, says that there are no more. The remote need not know.
        let Some(candidate) = event.candidate().filter(|candidate| !candidate.candidate().is_empty()) else {
            return;
        };
        let mut waiting = self.candidates.borrow_mut();
        if let Ok(json) = JSON::stringify(&candidate)
            && waiting.len() < MAX_WAITING_CANDIDATES
        {
            waiting.push_back(json.into());
        }
    }
}

impl BrowserPeerConnection {
    fn new(connection: PeerConnection) -> Self {
        let progress = Rc::<Progress>::default();
        let pc = connection.pc();
        let listeners = [
            EventListener::new(pc, "icecandidate", {
                let progress = progress.clone();
                move |event: RtcPeerConnectionIceEvent| {
                    progress.candidate(&event);
                    progress.wake();
                }
            }),
            EventListener::new(pc, "datachannel", {
                let progress = progress.clone();
                move |_: Event| {
                    progress.channel_came.set(true);
                    progress.wake();
                }
            }),
            progress.listen(pc, "connectionstatechange"),
            progress.listen(pc, "iceconnectionstatechange"),
        ];
        Self { connection, init: None, progress, is_connected: false, _listeners: listeners }
    }

    /// Any sign will do: Chromium may open channels before it tells of the state, and may have closed them by then.
    fn is_connected(&self) -> bool {
        let state = self.connection.pc().connection_state();
        let opened = |(channel, _): &(RtcDataChannel, _)| channel.ready_state() == RtcDataChannelState::Open;
        state == RtcPeerConnectionState::Connected
            || self.progress.channel_came.get()
            || self.init.as_ref().is_some_and(opened)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<PeerConnectionEvent> {
        if let Some(reason) = self.connection.reason() {
            return Poll::Ready(PeerConnectionEvent::Failed(match &*reason {
                ConnectionError::Io(reason) => reason.clone(),
                other => other.to_string(),
            }));
        }
        if !self.is_connected && self.is_connected() {
            self.is_connected = true;
            return Poll::Ready(PeerConnectionEvent::Connected);
        }
        if let Some(candidate) = self.progress.candidates.borrow_mut().pop_front() {
            return Poll::Ready(PeerConnectionEvent::Candidate(candidate));
        }
        *self.progress.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    async fn set_remote(&self, kind: RtcSdpType, sdp: &str) -> Result<(), String> {
        // The browser would make tracks of other media, and events of them.
        if !sdp::has_only_data(sdp) {
            return Err("the remote's description is not that of a data channel".to_owned());
        }
        let description = RtcSessionDescriptionInit::new(kind);
        description.set_sdp(sdp);
        settled(self.connection.pc().set_remote_description(&description)).await.map(drop)
    }

    /// Makes what the browser proposes the local description.
    async fn set_local(&self, kind: RtcSdpType, proposal: &JsValue) -> Result<String, String> {
        let sdp = js::property(proposal, "sdp").as_string().unwrap_or_default();
        let description = RtcSessionDescriptionInit::new(kind);
        description.set_sdp(&sdp);
        settled(self.connection.pc().set_local_description(&description)).await?;
        Ok(sdp)
    }
}

async fn settled(promise: impl Into<JsFuture>) -> Result<JsValue, String> {
    promise.into().await.map_err(|error| js::describe(&error))
}

impl Negotiation for BrowserPeerConnection {
    fn create_offer(&mut self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async {
            let init = self.connection.create_channel(INIT_CHANNEL, &RtcDataChannelInit::new());
            let init = init.map_err(|error| js::describe(&error))?;
            let opened = self.progress.listen(&init, "open");
            self.init = Some((init, opened));
            let offer = settled(self.connection.pc().create_offer()).await?;
            self.set_local(RtcSdpType::Offer, &offer).await
        })
    }

    fn accept_offer(&mut self, offer: String) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            self.set_remote(RtcSdpType::Offer, &offer).await?;
            let answer = settled(self.connection.pc().create_answer()).await?;
            self.set_local(RtcSdpType::Answer, &answer).await
        })
    }

    fn accept_answer(&mut self, answer: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.set_remote(RtcSdpType::Answer, &answer).await })
    }

    fn add_candidate(&mut self, candidate: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let candidate = JSON::parse(&candidate).map_err(|error| js::describe(&error))?;
            let candidate: &RtcIceCandidateInit = candidate.unchecked_ref();
            let pc = self.connection.pc();
            settled(pc.add_ice_candidate_with_opt_rtc_ice_candidate_init(Some(candidate))).await.map(drop)
        })
    }

    fn next(&mut self) -> BoxFuture<'_, PeerConnectionEvent> {
        Box::pin(poll_fn(|cx| self.poll_next(cx)))
    }

    fn into_connection(self: Box<Self>, remote: PublicKey, address: Multiaddr) -> Box<dyn Connection> {
        if let Some((init, _)) = &self.init {
            init.close();
        }
        // go-libp2p, which does not, has no connections of this kind.
        Box::new(self.connection.into_connection(remote, address, true))
    }
}
