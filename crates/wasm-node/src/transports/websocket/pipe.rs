use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::runtime::{BoxFuture, sleep};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use web_sys::{BinaryType, CloseEvent, Event, MessageEvent, WebSocket};

use crate::{event_listener::EventListener, js};

/// Bytes that the browser may hold unsent before writes wait. A browser's socket drains a MiB within one timer tick even on
/// loopback, and Yamux's windows bound what is worth gathering on a long path.
const SEND_BUFFER: u32 = 1024 * 1024;

/// Received bytes that may wait to be read. A browser cannot hold a WebSocket back, but the Yamux driver always reads, and
/// its windows bound what a remote may have under way; one that sends more than this is misbehaving.
const RECEIVE_BUFFER: usize = 32 * 1024 * 1024;

/// How soon a writer looks again whether the browser has sent something; there is no event for it. Doubles up to the second
/// value. Background pages get their timers late, so an arriving message (Yamux window updates come while we send) also looks.
const POLL_FIRST: Duration = Duration::from_millis(4);
const POLL_LAST: Duration = Duration::from_millis(64);

/// A browser's WebSocket as a byte pipe. Dropping it closes the socket.
pub(super) struct WebSocketPipe {
    socket: WebSocket,
    shared: Rc<RefCell<Shared>>,
    /// The wait for the send buffer to drain, and how long it is.
    drain: Option<(BoxFuture<'static, ()>, Duration)>,
    _listeners: [EventListener; 4],
}

#[derive(Default)]
struct Shared {
    received: VecDeque<Bytes>,
    received_len: usize,
    state: State,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default, Clone)]
enum State {
    #[default]
    Connecting,
    Open,
    /// The remote closed it in order, or we did.
    Closed,
    Failed(String),
}

impl Shared {
    fn enter(&mut self, state: State) {
        if !matches!(self.state, State::Closed | State::Failed(_)) {
            self.state = state;
        }
        self.wake_all();
    }

    fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn receive(&mut self, message: Bytes) {
        if self.received_len.saturating_add(message.len()) > RECEIVE_BUFFER {
            self.received.clear();
            self.enter(State::Failed("the remote sent more than its windows allow".into()));
            return;
        }
        self.received_len = self.received_len.saturating_add(message.len());
        if !message.is_empty() {
            self.received.push_back(message);
        }
        self.wake_all();
    }
}

impl WebSocketPipe {
    /// Opens a socket. Dropping the future closes it.
    pub(super) async fn open(url: &str) -> Result<Self, String> {
        let socket = WebSocket::new(url).map_err(|error| js::describe(&error))?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let mut pipe = Self::new(socket);
        match poll_fn(|cx| pipe.poll_open(cx)).await {
            State::Failed(reason) => Err(reason),
            State::Closed => Err("the remote closed the WebSocket at once".into()),
            State::Connecting | State::Open => Ok(pipe),
        }
    }

    fn new(socket: WebSocket) -> Self {
        let shared = Rc::new(RefCell::new(Shared::default()));
        let on = |shared: &Rc<RefCell<Shared>>| Rc::downgrade(shared);
        let listeners = [
            EventListener::new(&socket, "open", {
                let shared = on(&shared);
                move |_: Event| {
                    if let Some(shared) = shared.upgrade() {
                        shared.borrow_mut().enter(State::Open);
                    }
                }
            }),
            EventListener::new(&socket, "message", {
                let shared = on(&shared);
                let socket = socket.clone();
                move |event: MessageEvent| {
                    let Some(shared) = shared.upgrade() else { return };
                    let mut shared = shared.borrow_mut();
                    match js::binary_message(&event) {
                        Some(data) => shared.receive(data),
                        None => shared.enter(State::Failed("the remote sent a text message".into())),
                    }
                    if let State::Failed(_) = shared.state {
                        let _ = socket.close();
                    }
                }
            }),
            // The browser says why only in its console; the close event that follows has a code at least.
            EventListener::new(&socket, "error", |_: Event| {}),
            EventListener::new(&socket, "close", {
                let shared = on(&shared);
                move |event: CloseEvent| {
                    let Some(shared) = shared.upgrade() else { return };
                    let state = match event.was_clean() {
                        true => State::Closed,
                        false => State::Failed(
                            ["the WebSocket failed with code ", &event.code().to_string()].concat(),
                        ),
                    };
                    shared.borrow_mut().enter(state);
                }
            }),
        ];
        Self { socket, shared, drain: None, _listeners: listeners }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<State> {
        let mut shared = self.shared.borrow_mut();
        if let State::Connecting = shared.state {
            shared.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(shared.state.clone())
    }

    /// Ready when the browser has room for more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            {
                let mut shared = self.shared.borrow_mut();
                match &shared.state {
                    State::Connecting | State::Open => {}
                    State::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    State::Failed(reason) => {
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::ConnectionAborted,
                            reason.clone(),
                        )));
                    }
                }
                if self.socket.buffered_amount() < SEND_BUFFER {
                    self.drain = None;
                    return Poll::Ready(Ok(()));
                }
                shared.writer = Some(cx.waker().clone());
            }
            let (timer, delay) = self.drain.get_or_insert_with(|| (sleep(POLL_FIRST), POLL_FIRST));
            ready!(timer.as_mut().poll(cx));
            let delay = delay.saturating_mul(2).min(POLL_LAST);
            self.drain = Some((sleep(delay), delay));
        }
    }
}

impl AsyncRead for WebSocketPipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.shared.borrow_mut();
        if shared.received.is_empty() {
            return match &shared.state {
                State::Closed => Poll::Ready(Ok(())),
                State::Failed(reason) => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone())))
                }
                State::Connecting | State::Open => {
                    shared.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        while buffer.remaining() > 0
            && let Some(front) = shared.received.front_mut()
        {
            let take = front.len().min(buffer.remaining());
            let rest = front.len().saturating_sub(take);
            if rest == 0 {
                if let Some(chunk) = shared.received.pop_front() {
                    buffer.put_slice(&chunk);
                }
            } else {
                buffer.put_slice(&front.split_to(take));
            }
            shared.received_len = shared.received_len.saturating_sub(take);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocketPipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        // The browser copies the message while it is handed over.
        match self.socket.send_with_u8_array(data) {
            Ok(()) => Poll::Ready(Ok(data.len())),
            Err(error) => Poll::Ready(Err(io::Error::other(js::describe(&error)))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The browser sends what it holds, then the close frame.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.socket.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for WebSocketPipe {
    fn drop(&mut self) {
        // Throws on no state that a socket can be in.
        let _ = self.socket.close();
    }
}
