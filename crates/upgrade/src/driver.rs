//! The one task of a connection: it runs Noise and Yamux, fused, over any pipe; or Yamux alone, over TLS.
//!
//! Yamux frames are written straight into the outgoing Noise frame, which is sealed in place; many frames leave in one
//! write. What is read is opened once, and its streams get slices of the plaintext. Idle, there are no buffers.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use peerloom_core::{
    ConnectionError,
    runtime::{BoxFuture, Instant, sleep_until, timeout},
};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};

use crate::{
    connection::Shared,
    noise::{MAX_PLAINTEXT, NoiseError},
    plaintexts::Plaintexts,
    protection::Protection,
    upgrade::{Muxer, Pipe},
    yamux::{GoAwayCode, Header, Session, Violation, limits::CLOSE_TIMEOUT},
};

/// What is read at once, at first and at most, in bytes. It grows while reads fill it.
const SMALLEST_READ: usize = 4 * 1024;
const LARGEST_READ: usize = 256 * 1024;
/// Sealed frames that are gathered for one write, in bytes; one more frame may come on top.
const GATHER: usize = 128 * 1024;
/// Writes or reads in a row before other tasks have their turn.
const TURNS: usize = 4;
/// Buffers that were not used for so long are given back.
const IDLE: Duration = Duration::from_secs(1);
/// How long the last words, and the remote's end of the pipe, are waited for.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) struct Driver {
    io: Box<dyn Pipe>,
    shared: Arc<Shared>,
    protection: Protection,
    /// Read but not opened.
    input: BytesMut,
    read_size: usize,
    plaintexts: Plaintexts,
    /// Until the muxer is agreed on, and what has come after that has been delivered.
    muxer: Option<Muxer>,
    /// Sealed; the first `written` bytes are written.
    output: Vec<u8>,
    written: usize,
    needs_flush: bool,
    used_at: Instant,
    give_up_at: Option<Instant>,
    timer: Option<(Instant, BoxFuture<'static, ()>)>,
    wakers: Vec<Waker>,
    finished: bool,
}

/// Why the loop of a driver ended.
enum End {
    /// GOAWAY is on its way, after everything that streams had to send.
    Drained,
    /// The remote is to be told that it broke the protocol.
    Violation(Violation),
    /// There is nobody to tell anything.
    Lost(ConnectionError),
    /// The session knows why.
    Session,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(ConnectionError::Io(error.to_string()))
    }
}

impl From<NoiseError> for End {
    fn from(error: NoiseError) -> Self {
        Self::Lost(ConnectionError::Protocol(format!("noise: {error}")))
    }
}

impl Driver {
    /// `unread` was read beyond the handshake.
    pub(crate) fn new(
        io: Box<dyn Pipe>,
        protection: Protection,
        shared: Arc<Shared>,
        unread: BytesMut,
        muxer: Muxer,
    ) -> Self {
        Self {
            io,
            shared,
            protection,
            input: unread,
            read_size: SMALLEST_READ,
            plaintexts: Plaintexts::default(),
            muxer: Some(muxer),
            output: Vec::new(),
            written: 0,
            needs_flush: false,
            used_at: Instant::now(),
            give_up_at: None,
            timer: None,
            wakers: Vec::new(),
            finished: false,
        }
    }

    /// Runs the connection to its end.
    pub(crate) async fn run(mut self) {
        let end = match self.start() {
            Ok(()) => std::future::poll_fn(|cx| self.poll(cx)).await,
            Err(end) => end,
        };
        self.finished = true;
        let reason = match &end {
            End::Drained => Arc::new(ConnectionError::ClosedLocally),
            End::Violation(violation) => Arc::new(ConnectionError::Protocol(violation.to_string())),
            End::Lost(ConnectionError::Io(reason)) => Arc::new(ConnectionError::Io(reason.clone())),
            End::Lost(ConnectionError::Protocol(reason)) => {
                Arc::new(ConnectionError::Protocol(reason.clone()))
            }
            End::Lost(_) => Arc::new(ConnectionError::TimedOut),
            End::Session => self.shared.reason(),
        };
        self.shared.terminate(&reason);
        if matches!(end, End::Violation(_)) {
            self.shared.drive(&mut self.wakers, Session::accuse);
        }
        if !matches!(end, End::Drained) {
            self.shared.publish(reason.clone());
        }
        if !matches!(end, End::Lost(_)) {
            // Whether the remote takes the last words is its own affair.
            let _ = timeout(FAREWELL, self.say_farewell()).await;
        }
        self.shared.publish(reason);
    }

    /// What came with the handshake, and what is still to be sent of it.
    fn start(&mut self) -> Result<(), End> {
        match self.muxer.take() {
            Some(Muxer::Proposed(mut dialer)) => {
                let proposal = dialer.take_outgoing();
                self.protection.seal(&mut self.output, |output| output.extend_from_slice(&proposal))?;
                self.muxer = Some(Muxer::Proposed(dialer));
            }
            Some(Muxer::Agreed(unread)) => self.deliver(unread)?,
            None => {}
        }
        self.open_input()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.poll_turns(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..TURNS {
            let wrote = self.poll_output(cx)?;
            let read = self.poll_input(cx)?;
            let timed = self.poll_timer(cx)?;
            if !wrote && !read && !timed {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Writes what there is to write, once. True if there may be more.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.output.is_empty() {
            if self.shared.park_driver(cx.waker(), |session| session.has_output()) {
                return self.poll_flush(cx);
            }
            self.fill_output()?;
        }
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(count)) => self.written = self.written.saturating_add(count),
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
            self.needs_flush = true;
        }
        self.output.clear();
        self.written = 0;
        self.used_at = Instant::now();
        let drained = self.shared.drive(&mut self.wakers, |session| {
            session.mark_written();
            session.is_drained()
        });
        if drained { Err(End::Drained) } else { Ok(true) }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.needs_flush
            && let Poll::Ready(result) = Pin::new(&mut self.io).poll_flush(cx)
        {
            result?;
            self.needs_flush = false;
        }
        Ok(false)
    }

    fn fill_output(&mut self) -> Result<(), End> {
        let now = Instant::now();
        while self.output.len() < GATHER {
            let (shared, wakers) = (&self.shared, &mut self.wakers);
            let more = self.protection.seal(&mut self.output, |output| {
                shared.drive(wakers, |session| session.transmit(output, MAX_PLAINTEXT, now));
            })?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Reads what there is to read, once. True if there may be more.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let missing = self.protection.missing(&self.input);
        self.input.reserve(self.read_size.max(missing));
        let room = self.input.capacity().saturating_sub(self.input.len());
        match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
            Poll::Pending => {
                if self.input.is_empty() && self.read_size == SMALLEST_READ {
                    self.input = BytesMut::new();
                }
                Ok(false)
            }
            Poll::Ready(Ok(0)) => {
                Err(End::Lost(ConnectionError::Io("connection ended without GOAWAY".into())))
            }
            Poll::Ready(Ok(count)) => {
                if count == room {
                    self.read_size = self.read_size.saturating_mul(4).min(LARGEST_READ);
                }
                self.used_at = Instant::now();
                self.open_input()?;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    /// Opens every message that is whole.
    fn open_input(&mut self) -> Result<(), End> {
        while let Some(plaintext) = self.protection.open(&mut self.input, &mut self.plaintexts)? {
            self.deliver(plaintext)?;
        }
        Ok(())
    }

    fn deliver(&mut self, mut plaintext: Bytes) -> Result<(), End> {
        if let Some(Muxer::Proposed(dialer)) = &mut self.muxer {
            match dialer.receive(&mut plaintext) {
                Ok(Some(_)) => self.muxer = None,
                Ok(None) => return Ok(()),
                Err(error) => return Err(End::Lost(ConnectionError::Protocol(format!("no muxer: {error}")))),
            }
        }
        let now = self.used_at;
        self.shared.drive(&mut self.wakers, |session| {
            session.receive(plaintext, now).map_err(End::Violation)?;
            if session.end().is_some() { Err(End::Session) } else { Ok(()) }
        })
    }

    /// Does what is due. True if that was something. A timer that fires too early is armed again; one that would fire too
    /// late is replaced.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let (deadline, closing) =
            self.shared.drive(&mut self.wakers, |session| (session.next_deadline(), session.is_closing()));
        if closing && self.give_up_at.is_none() {
            // The session stops waiting for windows by itself; but the pipe may take nothing either.
            self.give_up_at =
                Instant::now().checked_add(CLOSE_TIMEOUT).and_then(|at| at.checked_add(FAREWELL));
        }
        let unused = self.input.is_empty() && self.input.capacity() > 0
            || self.output.is_empty() && self.output.capacity() > 0
            || !self.plaintexts.is_empty();
        let idle_at = if unused { self.used_at.checked_add(IDLE) } else { None };
        let Some(next) = [deadline, idle_at, self.give_up_at].into_iter().flatten().min() else {
            return Ok(false);
        };
        if self.timer.as_ref().is_none_or(|(armed_for, _)| *armed_for > next) {
            self.timer = Some((next, sleep_until(next)));
        }
        let Some((_, timer)) = &mut self.timer else { return Ok(false) };
        if timer.as_mut().poll(cx).is_pending() {
            return Ok(false);
        }
        self.timer = None;
        self.handle_timeout(Instant::now())?;
        Ok(true)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), End> {
        if self.give_up_at.is_some_and(|give_up_at| give_up_at <= now) {
            return Err(End::Drained);
        }
        if now.saturating_duration_since(self.used_at) >= IDLE {
            self.read_size = SMALLEST_READ;
            self.plaintexts.clear();
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            if self.output.is_empty() {
                self.output = Vec::new();
            }
        }
        self.shared.drive(&mut self.wakers, |session| session.handle_timeout(now)).map_err(End::Lost)
    }

    /// Writes what is left, ends the pipe, and waits for the remote to do the same: closing a socket that has unread bytes
    /// may take from the remote what it has not read yet.
    async fn say_farewell(&mut self) -> io::Result<()> {
        let _ = self.fill_output();
        let rest = self.output.get(self.written..).unwrap_or_default();
        self.io.write_all(rest).await?;
        self.io.flush().await?;
        self.io.shutdown().await?;
        self.input.clear();
        while self.io.read_buf(&mut self.input).await? > 0 {
            self.input.clear();
        }
        Ok(())
    }
}

impl Drop for Driver {
    /// The connection was dropped without being closed: GOAWAY, if the pipe takes it at once.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let farewell = Header::GoAway(GoAwayCode::Normal).encode();
        let sealed = self.protection.seal(&mut self.output, |output| output.extend_from_slice(&farewell));
        if let (Ok(_), Some(rest)) = (sealed, self.output.get(self.written..)) {
            let _ = Pin::new(&mut self.io).poll_write(&mut Context::from_waker(Waker::noop()), rest);
        }
    }
}
