//! A circuit: two streams made one. Chunks go from one to the other as they came, without a copy; a direction holds at most
//! one of them, and reads no further while the other side does not take it.

#![warn(clippy::arithmetic_side_effects)]

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use peerloom_core::{
    CircuitLimits, Stream, StreamError,
    runtime::{sleep, timeout},
};

/// Chunks that go in one direction before the other one and other tasks have their turn.
const CHUNKS_PER_TURN: usize = 16;
/// After the last byte that a circuit may carry, the receiver has so long to take it before the streams are reset: a reset
/// overtakes bytes, and which limit it was that ended a circuit shows in how many have come.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Why a circuit ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// Both sides had no more to say.
    Closed,
    /// One side sent more than the circuit may carry.
    BytesUsedUp,
    /// It was open for as long as it may be.
    TimeUsedUp,
    /// A stream broke.
    Broken(StreamError),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by both sides"),
            Self::BytesUsedUp => f.write_str("its bytes are used up"),
            Self::TimeUsedUp => f.write_str("its time is used up"),
            Self::Broken(error) => error.fmt(f),
        }
    }
}

/// Carries bytes both ways, beginning with those that have been read already, until both sides have closed theirs, a limit is
/// reached or a stream breaks: then both streams are reset. `count` is told of every byte passed on.
pub(super) async fn forward<S: Stream>(
    (mut source, from_source): (S, Bytes),
    (mut destination, from_destination): (S, Bytes),
    limits: CircuitLimits,
    count: impl Fn(u64),
) -> End {
    let end = {
        let mut there = Direction::new(from_source, limits.bytes);
        let mut back = Direction::new(from_destination, limits.bytes);
        let carrying = poll_fn(|cx| {
            let there = there.poll(cx, &mut source, &mut destination, &count)?;
            let back = back.poll(cx, &mut destination, &mut source, &count)?;
            match there.is_ready() && back.is_ready() {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        });
        let outcome = match limits.duration {
            Some(duration) => timeout(duration, carrying).await.unwrap_or(Err(End::TimeUsedUp)),
            None => carrying.await,
        };
        outcome.err().unwrap_or(End::Closed)
    };
    let code = match end {
        End::Closed => return end,
        End::BytesUsedUp => {
            sleep(LAST_BYTES).await;
            0
        }
        End::Broken(StreamError::Reset { code }) => code,
        _ => 0,
    };
    source.reset(code);
    destination.reset(code);
    end
}

struct Direction {
    /// What was read and is not written yet.
    chunk: Bytes,
    /// Bytes that may still be read; `None` without a limit.
    left: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What comes after the chunk is more than there may be.
    UsedUp,
    /// The sender has closed its half.
    Ending,
    Ended,
}

impl Direction {
    fn new(first: Bytes, limit: Option<u64>) -> Self {
        let mut direction = Self { chunk: Bytes::new(), left: limit, state: State::Open };
        direction.take(first);
        direction
    }

    /// Takes what was read, up to the limit.
    fn take(&mut self, mut chunk: Bytes) {
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            if chunk.len() > allowed {
                chunk.truncate(allowed);
                self.state = State::UsedUp;
            }
            *left = left.saturating_sub(chunk.len() as u64);
        }
        self.chunk = chunk;
    }

    /// Ready when the sender's end has been passed on.
    fn poll<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut S,
        to: &mut S,
        count: impl Fn(u64),
    ) -> Poll<Result<(), End>> {
        for _ in 0..CHUNKS_PER_TURN {
            while !self.chunk.is_empty() {
                let before = self.chunk.len();
                let written = to.poll_write(cx, &mut self.chunk).map_err(End::Broken)?;
                count(before.saturating_sub(self.chunk.len()) as u64);
                ready!(written);
            }
            match self.state {
                State::Open => match ready!(from.poll_read(cx)).map_err(End::Broken)? {
                    Some(chunk) => self.take(chunk),
                    None => self.state = State::Ending,
                },
                State::UsedUp => {
                    ready!(to.poll_flush(cx)).map_err(End::Broken)?;
                    return Poll::Ready(Err(End::BytesUsedUp));
                }
                State::Ending => {
                    ready!(to.poll_close_write(cx)).map_err(End::Broken)?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
