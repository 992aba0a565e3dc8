use std::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{
    ConnectionError, Stream, StreamError,
    runtime::timeout,
    webrtc_stream::{Half, WebRtcStream, channel_messages},
};
use tokio::sync::OwnedSemaphorePermit;
use wasm_bindgen::JsCast;
use web_sys::{Event, MessageEvent, RtcDataChannel, RtcDataChannelState, RtcDataChannelType};

use crate::{
    event_listener::EventListener,
    js,
    transports::{closed::Closed, pending::Pending},
};

/// Bytes that the browser may hold unsent for one stream before writes wait, and those at which they go on.
const SEND_BUFFER: u32 = 256 * 1024;
const SEND_BUFFER_LOW: u32 = 64 * 1024;

/// Received bytes that may wait to be read, of one stream and of all streams of a connection. A page cannot hold a data
/// channel back, so a stream whose reader lags by more than this is reset.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
const CONNECTION_RECEIVE_BUFFER: usize = 64 * 1024 * 1024;

/// How long a stream that nobody holds any more waits for the remote to acknowledge its end.
const FIN_ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// What the streams of one connection share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) closed: Closed,
    pub(crate) pending: Pending,
    /// Received bytes that wait to be read.
    pub(crate) buffered: Rc<Cell<usize>>,
    /// Whether the remote reads a long message and its length from one message of a channel.
    pub(crate) joins_lengths: Rc<Cell<bool>>,
}

/// A data channel with a stream on it. Messages are taken from the moment that this exists, read or not.
pub(crate) struct Channel {
    channel: RtcDataChannel,
    common: Common,
    state: RefCell<State>,
    listeners: OnceCell<[EventListener; 4]>,
    /// The right to have this channel among those that we open.
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct State {
    framing: WebRtcStream,
    received: VecDeque<Bytes>,
    received_len: usize,
    /// Why there is nothing more to be had from the channel.
    end: Option<StreamError>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Channel {
    pub(crate) fn new(
        channel: RtcDataChannel,
        common: Common,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Rc<Self> {
        channel.set_binary_type(RtcDataChannelType::Arraybuffer);
        channel.set_buffered_amount_low_threshold(SEND_BUFFER_LOW);
        let channel = Rc::new(Self {
            channel,
            common,
            state: RefCell::default(),
            listeners: OnceCell::new(),
            _permit: permit,
        });
        let listeners = [
            channel.listen("message", |channel, event: MessageEvent| {
                // Text messages are no part of the protocol.
                match js::binary_message(&event) {
                    Some(data) => channel.receive(data),
                    None => channel.fail(StreamError::Protocol("text on a data channel")),
                }
            }),
            channel.listen("open", |channel, _: Event| channel.state.borrow_mut().wake()),
            channel.listen("bufferedamountlow", |channel, _: Event| channel.state.borrow_mut().wake()),
            channel.listen("close", |channel, _: Event| channel.end(StreamError::Reset { code: 0 })),
        ];
        // Set nowhere else.
        let _ = channel.listeners.set(listeners);
        channel
    }

    fn listen<E: JsCast>(
        self: &Rc<Self>,
        kind: &'static str,
        callback: impl Fn(Rc<Self>, E) + 'static,
    ) -> EventListener {
        let channel = Rc::downgrade(self);
        EventListener::new(&self.channel, kind, move |event| {
            if let Some(channel) = channel.upgrade() {
                callback(channel, event);
            }
        })
    }

    /// Ready when messages can be sent.
    pub(crate) fn poll_open(&self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut state = self.state.borrow_mut();
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone()));
        }
        if self.channel.ready_state() != RtcDataChannelState::Connecting {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The connection under the channel is over.
    pub(crate) fn connection_lost(&self, reason: Arc<ConnectionError>) {
        self.end(StreamError::ConnectionLost(reason));
    }

    pub(crate) fn close(&self) {
        self.end(StreamError::Reset { code: 0 });
        self.channel.close();
    }

    fn receive(&self, message: Bytes) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let before = state.received_len;
        let received = state.framing.receive(message, |payload| {
            state.received_len = state.received_len.saturating_add(payload.len());
            state.received.push_back(payload);
        });
        let acknowledgement = state.framing.acknowledgement();
        if state.framing.read_half() == Half::Abandoned {
            state.received.clear();
            state.received_len = 0;
        }
        state.wake();
        let (len, buffered) = (state.received_len, self.common.buffered.get());
        let buffered = buffered.saturating_sub(before).saturating_add(len);
        self.common.buffered.set(buffered);
        if let Some(acknowledgement) = acknowledgement {
            self.send(&acknowledgement);
        }
        if let Err(error) = received {
            self.abandon(state, StreamError::Protocol(error.0));
        } else if len > RECEIVE_BUFFER || buffered > CONNECTION_RECEIVE_BUFFER && len > before {
            tracing::warn!("a WebRTC stream was read too slowly to hold what arrived, and was reset");
            self.abandon(state, StreamError::Reset { code: 0 });
        }
    }

    fn fail(&self, error: StreamError) {
        self.abandon(&mut self.state.borrow_mut(), error);
    }

    /// Gives up both halves, and the channel.
    fn abandon(&self, state: &mut State, error: StreamError) {
        let code = match &error {
            StreamError::Reset { code } => *code,
            _ => 0,
        };
        for message in [state.framing.reset(code), state.framing.stop(code)].into_iter().flatten() {
            self.send(&message);
        }
        self.discard(state);
        state.end = Some(error);
        state.wake();
        // What was sent goes out first.
        self.channel.close();
    }

    fn end(&self, error: StreamError) {
        let mut state = self.state.borrow_mut();
        state.end.get_or_insert(error);
        state.wake();
    }

    fn discard(&self, state: &mut State) {
        state.received.clear();
        let len = std::mem::take(&mut state.received_len);
        self.common.buffered.set(self.common.buffered.get().saturating_sub(len));
    }

    /// A message in a channel that is closing is lost, which the remote can tell from the close.
    fn send(&self, message: &[u8]) {
        if self.channel.ready_state() == RtcDataChannelState::Open {
            let _ = self.channel.send_with_u8_array(message);
        }
    }

    /// Ready when the remote has all that we wrote, or cannot get it any more.
    fn poll_acknowledged(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.end.is_some() || state.framing.is_write_acknowledged() {
            return Poll::Ready(());
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl State {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.channel.close();
        self.discard(&mut self.state.take());
    }
}

/// A stream on a data channel.
pub(crate) struct DataChannelStream {
    /// `None` once the channel has been left to itself.
    channel: Option<Rc<Channel>>,
    reset: Option<u32>,
}

impl DataChannelStream {
    pub(crate) fn new(channel: Rc<Channel>) -> Self {
        Self { channel: Some(channel), reset: None }
    }

    /// Ends the stream without the framing's goodbyes; the channel belongs to whoever else holds it.
    pub(crate) fn leave_open(mut self) {
        self.channel = None;
    }

    fn channel(&self) -> Result<&Rc<Channel>, StreamError> {
        match (&self.channel, self.reset) {
            (Some(channel), None) => Ok(channel),
            (_, code) => Err(StreamError::Reset { code: code.unwrap_or(0) }),
        }
    }
}

impl Stream for DataChannelStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let channel = self.channel()?;
        let mut state = channel.state.borrow_mut();
        if let Some(chunk) = state.received.pop_front() {
            state.received_len = state.received_len.saturating_sub(chunk.len());
            let buffered = &channel.common.buffered;
            buffered.set(buffered.get().saturating_sub(chunk.len()));
            return Poll::Ready(Ok(Some(chunk)));
        }
        match (state.framing.read_half(), &state.end) {
            (Half::Finished, _) => Poll::Ready(Ok(None)),
            (_, Some(end)) => Poll::Ready(Err(end.clone())),
            (Half::Abandoned, None) => {
                Poll::Ready(Err(StreamError::Reset { code: state.framing.reset_code() }))
            }
            (Half::Open, None) => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let channel = self.channel()?;
        ready!(channel.poll_open(cx))?;
        let mut state = channel.state.borrow_mut();
        match state.framing.write_half() {
            Half::Open => {}
            Half::Finished => return Poll::Ready(Err(StreamError::WriteClosed)),
            Half::Abandoned => {
                return Poll::Ready(Err(StreamError::Reset { code: state.framing.reset_code() }));
            }
        }
        let mut sent = data.is_empty();
        while !data.is_empty() {
            if channel.channel.buffered_amount() >= SEND_BUFFER {
                break;
            }
            let message = state.framing.data(data);
            let mut messages = channel_messages(&message, channel.common.joins_lengths.get());
            if let Err(error) = messages.try_for_each(|message| channel.channel.send_with_u8_array(message)) {
                let reason = channel.common.closed.reason_or(|| js::describe(&error));
                return Poll::Ready(Err(StreamError::ConnectionLost(reason)));
            }
            sent = true;
        }
        if sent {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        // The layer below is the browser, and it has everything.
        Poll::Ready(self.channel().map(drop))
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let channel = self.channel()?;
        if channel.state.borrow().framing.write_half() == Half::Finished {
            return Poll::Ready(Ok(()));
        }
        ready!(channel.poll_open(cx))?;
        let mut state = channel.state.borrow_mut();
        match state.framing.finish() {
            Some(message) => channel.send(&message),
            None => return Poll::Ready(Err(StreamError::Reset { code: state.framing.reset_code() })),
        }
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u32) {
        self.reset = Some(code);
        if let Some(channel) = self.channel.take() {
            channel.fail(StreamError::Reset { code });
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Drop for DataChannelStream {
    fn drop(&mut self) {
        let Some(channel) = self.channel.take() else { return };
        let acknowledged = {
            let mut state = channel.state.borrow_mut();
            let abandoned = match state.framing.write_half() {
                Half::Open => state.framing.reset(0),
                Half::Finished | Half::Abandoned => None,
            };
            for message in [abandoned, state.framing.stop(0)].into_iter().flatten() {
                channel.send(&message);
            }
            channel.discard(&mut state);
            state.framing.write_half() == Half::Abandoned || state.framing.is_write_acknowledged()
        };
        if acknowledged {
            channel.close();
            return;
        }
        // "The node MAY close the datachannel without receiving a FIN_ACK", but only after it has waited for one.
        let pending = channel.common.pending.clone();
        pending.add(async move {
            let _ = timeout(FIN_ACK_TIMEOUT, poll_fn(|cx| channel.poll_acknowledged(cx))).await;
            channel.close();
        });
    }
}
