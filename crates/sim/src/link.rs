//! Two ends of a link, as byte pipes.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use peerloom_core::runtime::{BoxFuture, Instant, sleep_until};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes under way in one direction; a writer waits for room.
const CAPACITY: usize = 256 * 1024;

/// What the links of a network run through.
#[derive(Debug, Default)]
pub(crate) struct Cable(AtomicBool);

impl Cable {
    pub(crate) fn cut(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn pipes(latency: Duration, cable: Arc<Cable>) -> (Pipe, Pipe) {
    let [there, back] = [(); 2].map(|()| Arc::new(Mutex::new(Direction::default())));
    let end = |reading: &Arc<Mutex<Direction>>, writing: &Arc<Mutex<Direction>>| Pipe {
        reading: reading.clone(),
        writing: writing.clone(),
        arrival: None,
        latency,
        cable: cable.clone(),
    };
    (end(&back, &there), end(&there, &back))
}

/// One end of a link. What is written to it arrives at the other end a latency later.
pub struct Pipe {
    reading: Arc<Mutex<Direction>>,
    writing: Arc<Mutex<Direction>>,
    /// Of the chunk that is read next.
    arrival: Option<BoxFuture<'static, ()>>,
    latency: Duration,
    cable: Arc<Cable>,
}

#[derive(Debug, Default)]
struct Direction {
    under_way: VecDeque<(Instant, Bytes)>,
    length: usize,
    ended: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("latency", &self.latency).finish_non_exhaustive()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(arrival) = &mut this.arrival {
                std::task::ready!(arrival.as_mut().poll(cx));
                this.arrival = None;
            }
            let mut direction = this.reading.lock();
            let Some((arrives, chunk)) = direction.under_way.front_mut() else {
                if direction.ended {
                    return Poll::Ready(Ok(()));
                }
                direction.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if *arrives > Instant::now() {
                this.arrival = Some(sleep_until(*arrives));
                continue;
            }
            let take = chunk.len().min(buffer.remaining());
            buffer.put_slice(chunk.get(..take).unwrap_or_default());
            chunk.advance(take);
            if chunk.is_empty() {
                direction.under_way.pop_front();
            }
            direction.length = direction.length.saturating_sub(take);
            if let Some(writer) = direction.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.cable.is_cut() {
            return Poll::Ready(Ok(data.len()));
        }
        let mut direction = self.writing.lock();
        if direction.reader_gone || direction.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = CAPACITY.saturating_sub(direction.length);
        if room == 0 {
            direction.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = Bytes::copy_from_slice(data.get(..room).unwrap_or(data));
        let length = taken.len();
        direction.length = direction.length.saturating_add(length);
        direction.under_way.push_back((Instant::now() + self.latency, taken));
        if let Some(reader) = direction.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.cable.is_cut() {
            self.writing.lock().end();
        }
        Poll::Ready(Ok(()))
    }
}

impl Direction {
    fn end(&mut self) {
        self.ended = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if self.cable.is_cut() {
            return;
        }
        self.writing.lock().end();
        let mut direction = self.reading.lock();
        direction.reader_gone = true;
        if let Some(writer) = direction.writer.take() {
            writer.wake();
        }
    }
}
