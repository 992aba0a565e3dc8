//! A stream and a socket made one.
//!
//! | the client | the stream |
//! |---|---|
//! | closes its half | so does the stream |
//! | resets its TCP socket | is reset |
//! | lets go of its socket | what it has written is sent, and then the end; the remote is told to stop sending |
//! | does not read | exerts backpressure, and so in the other direction |
//!
//! And the other way round, a reset of the stream is one of the socket, as far as it knows of resets.

#![warn(clippy::arithmetic_side_effects)]

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{Stream, StreamError, runtime::timeout};

use super::socket::Socket;

/// What a client that is gone has written may take so long to be sent.
const LAST_BYTES: Duration = Duration::from_secs(30);
/// Chunks passed on in one direction before the other one, and other tasks, have their turn.
const CHUNKS_PER_TURN: usize = 16;

/// Carries bytes both ways, beginning with those that the client has sent already, until both directions have ended.
pub(super) async fn pipe(socket: Socket, mut stream: impl Stream, from_client: Bytes) {
    let mut outward = Outward { chunk: from_client, state: State::Open };
    let mut inward = Inward { chunk: Bytes::new(), state: State::Open };
    let outcome = {
        let mut carrying = poll_fn(|cx| {
            let outward = outward.poll(cx, &socket, &mut stream)?;
            let inward = inward.poll(cx, &socket, &mut stream)?;
            match outward.is_ready() && inward.is_ready() {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        });
        tokio::select! {
            outcome = &mut carrying => outcome,
            () = socket.gone() => Err(Broken::ClientGone),
        }
    };
    let outcome = match outcome {
        Err(Broken::ClientGone) => {
            let rest = poll_fn(|cx| outward.poll(cx, &socket, &mut stream));
            timeout(LAST_BYTES, rest).await.unwrap_or(Err(Broken::ClientGone))
        }
        outcome => outcome,
    };
    match outcome {
        Ok(()) if outward.state == State::Refused || inward.state == State::Refused => socket.reset(),
        Ok(()) => {}
        Err(broken) => {
            tracing::debug!(%broken, "a stream to a client broke");
            stream.reset(0);
            socket.reset();
        }
    }
}

/// Why a pipe ends before its time.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("client: {0}")]
    Client(#[from] io::Error),
    #[error("the client is gone")]
    ClientGone,
    #[error("stream: {0}")]
    Stream(#[from] StreamError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender has closed its half.
    Ending,
    Ended,
    /// The receiver wants no more.
    Refused,
}

/// From the client to the remote.
struct Outward {
    /// What was read and is not written yet.
    chunk: Bytes,
    state: State,
}

impl Outward {
    /// Ready when the client's end has been passed on, or the remote wants no more.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &Socket,
        stream: &mut impl Stream,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..CHUNKS_PER_TURN {
            if !self.chunk.is_empty() {
                match ready!(stream.poll_write(cx, &mut self.chunk)) {
                    Ok(()) => {}
                    // It may still have something to say; if not, that is what reading brings.
                    Err(StreamError::Reset { .. }) => self.refuse(),
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
                continue;
            }
            match self.state {
                State::Open => match ready!(socket.poll_read(cx))? {
                    Some(chunk) => self.chunk = chunk,
                    None => self.state = State::Ending,
                },
                State::Ending => match ready!(stream.poll_close_write(cx)) {
                    Ok(()) => self.state = State::Ended,
                    Err(StreamError::Reset { .. }) => self.refuse(),
                    Err(error) => return Poll::Ready(Err(error.into())),
                },
                State::Ended | State::Refused => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn refuse(&mut self) {
        self.chunk = Bytes::new();
        self.state = State::Refused;
    }
}

/// From the remote to the client.
struct Inward {
    chunk: Bytes,
    state: State,
}

impl Inward {
    /// Ready when the remote's end has been passed on, or the client wants no more.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &Socket,
        stream: &mut impl Stream,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..CHUNKS_PER_TURN {
            if !self.chunk.is_empty() {
                if ready!(socket.poll_write(cx, &mut self.chunk)).is_err() {
                    // What it has written before may still be on its way to the remote, and its end tells.
                    self.chunk = Bytes::new();
                    self.state = State::Refused;
                }
                continue;
            }
            match self.state {
                State::Open => match ready!(stream.poll_read(cx))? {
                    Some(chunk) => self.chunk = chunk,
                    None => self.state = State::Ending,
                },
                State::Ending => {
                    // If this fails, the client is gone.
                    let closed = socket.close_write();
                    self.state = if closed.is_ok() { State::Ended } else { State::Refused };
                }
                State::Ended | State::Refused => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
