//! A multiplexed connection and its streams: handles to a session that a driver runs.

use std::{
    any::Any,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use peerloom_core::{
    CloseReason, Connection, ConnectionError, Multiaddr, PeerId, PublicKey, Stream, StreamError,
    runtime::{BoxFuture, Instant, MaybeSend, Task, spawn},
};
use tokio::sync::{Semaphore, watch};

use crate::{
    noise::RemoteIdentity,
    yamux::{
        Events, GoAwayCode, Session, StreamId,
        limits::{ACK_BACKLOG, MAX_OUTBOUND_STREAMS},
    },
};

/// What the handles and the driver of a connection share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Permits for streams of ours that live, and for those not acknowledged. Fair, unlike a list of wakers.
    outbound: Semaphore,
    backlog: Semaphore,
    end: watch::Sender<Option<Arc<ConnectionError>>>,
}

struct State {
    session: Session,
    driver: Option<Waker>,
    /// The driver has nothing to send, and waits for a handle that has. Otherwise it waits for the pipe, and is only woken
    /// to close.
    driver_idle: bool,
}

impl Shared {
    /// Uses the session and then wakes whoever that concerns, without holding the lock.
    fn with<R>(&self, use_session: impl FnOnce(&mut Session) -> R) -> R {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let result = use_session(&mut state.session);
        let events = state.session.take_events();
        state.session.take_wakers(&mut wakers);
        let wake_driver = events.transmit && std::mem::take(&mut state.driver_idle) || events.closing;
        let driver = if wake_driver { state.driver.clone() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        self.settle(events, &mut wakers);
        result
    }

    /// The same for the driver, which need not wake itself, and brings a buffer that it uses again.
    pub(crate) fn drive<R>(&self, wakers: &mut Vec<Waker>, use_session: impl FnOnce(&mut Session) -> R) -> R {
        let mut state = self.lock();
        let result = use_session(&mut state.session);
        let events = state.session.take_events();
        state.session.take_wakers(wakers);
        drop(state);
        self.settle(events, wakers);
        result
    }

    /// The driver waits for the pipe, or, if it has nothing to send, also for a handle that has: then true.
    pub(crate) fn park_driver(&self, waker: &Waker, has_output: impl FnOnce(&mut Session) -> bool) -> bool {
        let mut state = self.lock();
        match &mut state.driver {
            Some(known) => known.clone_from(waker),
            None => state.driver = Some(waker.clone()),
        }
        state.driver_idle = !has_output(&mut state.session);
        state.driver_idle
    }

    /// Ends the connection for its handles at once.
    pub(crate) fn terminate(&self, reason: &Arc<ConnectionError>) {
        self.with(|session| session.terminate(reason.clone()));
        self.outbound.close();
        self.backlog.close();
    }

    /// Tells those who wait for the end of the connection.
    pub(crate) fn publish(&self, reason: Arc<ConnectionError>) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(reason);
            first
        });
    }

    fn settle(&self, events: Events, wakers: &mut Vec<Waker>) {
        if events.acknowledged > 0 {
            self.backlog.add_permits(events.acknowledged);
        }
        if events.closed > 0 {
            self.outbound.add_permits(events.closed);
        }
        wakers.drain(..).for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves no invariant of the session broken that could harm more than this connection.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reason(&self) -> Arc<ConnectionError> {
        let end = self.lock().session.end().cloned();
        end.unwrap_or_else(|| Arc::new(ConnectionError::ClosedLocally))
    }
}

/// An authenticated connection that Noise secures and Yamux multiplexes.
pub(crate) struct MuxedConnection {
    shared: Arc<Shared>,
    remote: RemoteIdentity,
    remote_address: Multiaddr,
    driver: Option<Task>,
}

impl MuxedConnection {
    pub(crate) fn new(
        session: Session,
        remote: RemoteIdentity,
        remote_address: Multiaddr,
    ) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { session, driver: None, driver_idle: false }),
            outbound: Semaphore::new(MAX_OUTBOUND_STREAMS),
            backlog: Semaphore::new(ACK_BACKLOG),
            end: watch::Sender::new(None),
        });
        (Self { shared: shared.clone(), remote, remote_address, driver: None }, shared)
    }

    /// Starts the driver, which lives as long as this connection.
    pub(crate) fn driven_by(mut self, driver: impl Future<Output = ()> + MaybeSend + 'static) -> Self {
        self.driver = Some(spawn(driver));
        self
    }
}

impl Connection for MuxedConnection {
    fn remote_peer(&self) -> PeerId {
        self.remote.peer_id
    }

    fn remote_public_key(&self) -> &PublicKey {
        &self.remote.public_key
    }

    fn remote_address(&self) -> &Multiaddr {
        &self.remote_address
    }

    fn open_stream(&self) -> BoxFuture<'static, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let (Ok(outbound), Ok(backlog)) =
                (shared.outbound.acquire().await, shared.backlog.acquire().await)
            else {
                return Err(shared.reason());
            };
            let id = shared.with(Session::open)?;
            // The session says when the stream no longer counts.
            outbound.forget();
            backlog.forget();
            Ok(Box::new(MuxedStream { shared: shared.clone(), id, is_reset: false }) as Box<dyn Stream>)
        })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, Arc<ConnectionError>>> {
        Box::pin(poll_fn(|cx| {
            let accepted = self.shared.with(|session| session.accept(cx.waker()));
            match accepted {
                Ok(Some(id)) => {
                    let stream = MuxedStream { shared: self.shared.clone(), id, is_reset: false };
                    Poll::Ready(Ok(Box::new(stream) as Box<dyn Stream>))
                }
                Ok(None) => Poll::Pending,
                Err(reason) => Poll::Ready(Err(reason)),
            }
        }))
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.close_with(GoAwayCode::Normal)
    }

    fn close_for(&self, reason: CloseReason) -> BoxFuture<'static, ()> {
        self.close_with(GoAwayCode::Other(reason.code()))
    }

    fn closed(&self) -> BoxFuture<'static, Arc<ConnectionError>> {
        let mut end = self.shared.end.subscribe();
        Box::pin(async move {
            let reason = end.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            // The sender is gone only together with the connection and its driver.
            reason.unwrap_or_else(|| Arc::new(ConnectionError::ClosedLocally))
        })
    }
}

impl MuxedConnection {
    fn close_with(&self, code: GoAwayCode) -> BoxFuture<'static, ()> {
        self.shared.with(|session| session.close_for(Instant::now(), code));
        self.shared.outbound.close();
        self.shared.backlog.close();
        let closed = self.closed();
        Box::pin(async move {
            closed.await;
        })
    }
}

impl Drop for MuxedConnection {
    fn drop(&mut self) {
        let reason = Arc::new(ConnectionError::ClosedLocally);
        self.shared.terminate(&reason);
        self.shared.publish(reason);
    }
}

impl fmt::Debug for MuxedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxedConnection").field("remote_peer", &self.remote.peer_id).finish_non_exhaustive()
    }
}

/// A stream of a [`MuxedConnection`].
struct MuxedStream {
    shared: Arc<Shared>,
    id: StreamId,
    is_reset: bool,
}

impl Stream for MuxedStream {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.check()?;
        self.shared.with(|session| session.poll_read(self.id, cx.waker()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        self.check()?;
        self.shared.with(|session| session.poll_write(self.id, data, cx.waker()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check()?;
        self.shared.with(|session| session.poll_flush(self.id, cx.waker()))
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check()?;
        self.shared.with(|session| session.poll_close_write(self.id, cx.waker()))
    }

    fn reset(&mut self, code: u32) {
        if !self.is_reset {
            self.is_reset = true;
            self.shared.with(|session| session.reset_stream(self.id, code));
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl MuxedStream {
    /// The session has forgotten a stream that was reset, and may use its id again.
    fn check(&self) -> Result<(), StreamError> {
        if self.is_reset { Err(StreamError::Reset { code: 0 }) } else { Ok(()) }
    }
}

impl Drop for MuxedStream {
    fn drop(&mut self) {
        if !self.is_reset {
            self.shared.with(|session| session.drop_stream(self.id, Instant::now()));
        }
    }
}
