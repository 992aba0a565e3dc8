use std::{
    cell::RefCell,
    future::poll_fn,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use peerloom_core::{
    CloseReason, Connection, ConnectionError, Multiaddr, PeerId, PublicKey, Stream,
    runtime::{BoxFuture, Task, sleep, spawn, timeout},
};
use peerloom_upgrade::noise::RemoteIdentity;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use web_sys::ReadableStreamDefaultReader;

use super::{WebTransportStream, bindings::WebTransport};
use crate::{
    js,
    transports::{closed::Closed, pending::Pending},
};

/// How long [`Connection::close`] waits for what closed streams still have to send.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long after a refusal by the browser a stream is asked for again: at first, and at most.
const REOPEN_DELAY: Duration = Duration::from_millis(5);
const MAX_REOPEN_DELAY: Duration = Duration::from_millis(100);

/// A session that is closed when this is dropped: a failed one that nobody closes counts against Chromium's limit.
pub(super) struct Session {
    transport: WebTransport,
    pub(super) closed: Closed,
    /// Learns of the session's end. Also keeps its rejections out of the console.
    _watch: Task,
}

impl Session {
    pub(super) fn new(transport: WebTransport) -> Self {
        let closed = Closed::new();
        let ended = JsFuture::from(transport.closed());
        let watch = spawn({
            let closed = closed.clone();
            async move {
                closed.set(match ended.await {
                    Ok(info) => match js::property(&info, "closeCode").as_f64().map(|code| code as u32) {
                        Some(code) => match CloseReason::from_code(code) {
                            Some(reason) => ConnectionError::ClosedFor { reason, by_remote: true },
                            None => ConnectionError::ClosedByRemote,
                        },
                        None => ConnectionError::ClosedByRemote,
                    },
                    Err(error) => ConnectionError::Io(js::describe(&error)),
                });
            }
        });
        Self { transport, closed, _watch: watch }
    }
}

impl Deref for Session {
    type Target = WebTransport;
    fn deref(&self) -> &WebTransport {
        &self.transport
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.closed.set(ConnectionError::ClosedLocally);
        // Throws on no state that a session can be in.
        let _ = self.transport.close();
    }
}

/// A stream that the browser is opening. If nobody waits for it any more, it is reset once it is there.
struct Opening {
    promise: Option<JsFuture>,
    closed: Closed,
    pending: Pending,
}

impl Future for Opening {
    type Output = Result<JsValue, JsValue>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(promise) = &mut self.promise else { return Poll::Pending };
        let result = ready!(Pin::new(promise).poll(cx));
        self.promise = None;
        Poll::Ready(result)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(promise) = self.promise.take() {
            let closed = self.closed.clone();
            self.pending.add(async move {
                if let Ok(stream) = promise.await {
                    drop(WebTransportStream::new(&stream, closed));
                }
            });
        }
    }
}

pub(super) struct WebTransportConnection {
    session: Session,
    remote: RemoteIdentity,
    address: Multiaddr,
    pending: Pending,
    incoming: RefCell<Incoming>,
}

struct Incoming {
    reader: Option<ReadableStreamDefaultReader>,
    /// Kept when the future that awaits it is dropped, so that no stream is lost.
    under_way: Option<JsFuture>,
}

impl Incoming {
    /// The next stream that the remote opened; `None` when there can be no more.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<JsValue>> {
        let Some(reader) = &self.reader else { return Poll::Ready(None) };
        let read = self.under_way.get_or_insert_with(|| JsFuture::from(reader.read()));
        let result = ready!(Pin::new(read).poll(cx));
        self.under_way = None;
        match result {
            Ok(result) if !js::property(&result, "done").is_truthy() => {
                Poll::Ready(Some(js::property(&result, "value")))
            }
            _ => {
                self.reader = None;
                Poll::Ready(None)
            }
        }
    }
}

impl WebTransportConnection {
    pub(super) fn new(session: Session, remote: RemoteIdentity, address: Multiaddr) -> Self {
        let reader = ReadableStreamDefaultReader::new(&session.incoming_bidirectional_streams()).ok();
        Self {
            session,
            remote,
            address,
            pending: Pending::new(),
            incoming: RefCell::new(Incoming { reader, under_way: None }),
        }
    }
}

impl Connection for WebTransportConnection {
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
        let transport = self.session.deref().clone();
        let closed = self.session.closed.clone();
        let pending = self.pending.clone();
        Box::pin(async move {
            let failed = |error: JsValue| closed.reason_or(|| js::describe(&error));
            let mut delay = REOPEN_DELAY;
            loop {
                let promise = transport.create_bidirectional_stream().map_err(failed)?;
                let opening = Opening {
                    promise: Some(JsFuture::from(promise)),
                    closed: closed.clone(),
                    pending: pending.clone(),
                };
                match opening.await {
                    Ok(stream) => return into_stream(&stream, &closed, &pending),
                    // Chromium refuses where the standard has it wait: while the server's limit on streams is reached.
                    Err(error) if closed.reason().is_none() && js::is_named(&error, "NetworkError") => {
                        sleep(delay).await;
                        delay = (delay * 2).min(MAX_REOPEN_DELAY);
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(async {
            match poll_fn(|cx| self.incoming.borrow_mut().poll_next(cx)).await {
                Some(stream) => into_stream(&stream, &self.session.closed, &self.pending),
                // The session's streams end with the session, whose own promise says why.
                None => Err(self.session.closed.wait().await),
            }
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let transport = self.session.deref().clone();
        let closed = self.session.closed.clone();
        let pending = self.pending.clone();
        Box::pin(async move {
            if closed.reason().is_none() {
                let _ = timeout(CLOSE_TIMEOUT, pending.idle()).await;
                closed.set(ConnectionError::ClosedLocally);
                let _ = transport.close();
            }
        })
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        self.session.closed.wait()
    }
}

fn into_stream(
    stream: &JsValue,
    closed: &Closed,
    pending: &Pending,
) -> Result<Box<dyn Stream>, Arc<ConnectionError>> {
    match WebTransportStream::new(stream, closed.clone()) {
        Ok(stream) => Ok(Box::new(stream.with_pending(pending.clone()))),
        Err(error) => Err(Arc::new(ConnectionError::Io(error.to_string()))),
    }
}
