//! The task of a connection: datagrams in, datagrams out, and the clock.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use peerloom_core::runtime::{self, BoxFuture};
use peerloom_socket::udp::{Datagram, DatagramSocket, Transmit};
use tokio::sync::mpsc;

use crate::{
    ice::Path,
    state::{NO_TIMEOUT, Shared},
};

/// Datagrams taken in before anything is sent: acknowledgements of a burst go together.
const RECEIVE_BATCH: usize = 64;

/// Datagrams that are taken from the connection at a time.
const SEND_BATCH: usize = 64;

/// The largest buffer that the kernel cuts into datagrams.
const MAX_GSO_BYTES: usize = 60_000;

/// Where a connection's datagrams come from.
pub(crate) enum Inbound {
    /// A listener's socket, by its task.
    Queue(mpsc::Receiver<Datagram>),
    /// The dialer's own sockets, one for each IP version.
    Sockets(Vec<DatagramSocket>),
}

impl Inbound {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Datagram>> {
        match self {
            Self::Queue(queue) => queue.poll_recv(cx),
            Self::Sockets(sockets) => {
                let mut received = sockets.iter_mut().map(|socket| socket.poll_receive(cx).map(Result::ok));
                received.find(Poll::is_ready).unwrap_or(Poll::Pending)
            }
        }
    }
}

/// Runs a connection until it is over. `G` is dropped then.
pub(crate) struct Driver<G> {
    shared: Arc<Shared>,
    inbound: Inbound,
    outbound: VecDeque<(Path, Bytes)>,
    writable: Option<BoxFuture<'static, io::Result<()>>>,
    timer: BoxFuture<'static, ()>,
    timer_due: Option<Instant>,
    _guard: G,
}

impl<G> Driver<G> {
    pub(crate) fn new(shared: Arc<Shared>, inbound: Inbound, guard: G) -> Self {
        Self {
            shared,
            inbound,
            outbound: VecDeque::new(),
            writable: None,
            timer: runtime::sleep(NO_TIMEOUT),
            timer_due: None,
            _guard: guard,
        }
    }

    /// Takes in what has arrived. Returns whether there may be more, and whether the source is gone.
    fn receive(&mut self, cx: &mut Context<'_>) -> Received {
        let mut batch = Vec::new();
        let mut received = Received::Everything;
        while let Poll::Ready(datagram) = self.inbound.poll(cx) {
            let Some(datagram) = datagram else {
                received = Received::Gone;
                break;
            };
            batch.push(datagram);
            if batch.len() >= RECEIVE_BATCH {
                received = Received::PartOfIt;
                break;
            }
        }
        let now = now();
        self.shared.with(|state| {
            for datagram in batch {
                let path = Path { local: datagram.destination, remote: datagram.source };
                state.connection.handle_datagram(now, path, &datagram.payload);
                state.react(now);
            }
            if received == Received::Gone {
                state.close_now(now);
            }
            state.handle_timeout(now);
        });
        received
    }

    /// Sends what the connection has to send, as far as the kernel takes it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(writable) = &mut self.writable {
                let _ = ready!(writable.as_mut().poll(cx));
                self.writable = None;
            }
            if self.outbound.is_empty() {
                let now = now();
                let outbound = &mut self.outbound;
                self.shared.with(|state| {
                    outbound
                        .extend(std::iter::from_fn(|| state.connection.poll_transmit(now)).take(SEND_BATCH));
                    state.react(now);
                });
                if self.outbound.is_empty() {
                    return Poll::Ready(());
                }
            }
            if let Err(error) = self.send_batch()
                && error.kind() == io::ErrorKind::WouldBlock
                && let Some((path, _)) = self.outbound.front()
            {
                let (senders, destination) = (self.shared.senders.clone(), path.remote);
                self.writable = Some(Box::pin(async move { senders.writable(destination).await }));
            }
        }
    }

    /// Sends the datagrams at the front that go to one place and have one size, in one call.
    fn send_batch(&mut self) -> io::Result<()> {
        let Some((path, first)) = self.outbound.front() else { return Ok(()) };
        let (path, size) = (*path, first.len());
        let max = self.shared.senders.max_segments(path.remote);
        let mut count = 0;
        let mut bytes = 0;
        for (to, datagram) in self.outbound.iter().take(max) {
            // The last one may be shorter.
            let fits = *to == path && datagram.len() <= size && bytes + datagram.len() <= MAX_GSO_BYTES;
            if !fits && count > 0 {
                break;
            }
            count += 1;
            bytes += datagram.len();
            if datagram.len() < size {
                break;
            }
        }
        let result = if count == 1 {
            self.try_send(path, first, None)
        } else {
            let mut contents = BytesMut::with_capacity(bytes);
            self.outbound.iter().take(count).for_each(|(_, datagram)| contents.extend_from_slice(datagram));
            self.try_send(path, &contents, Some(size))
        };
        if !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.outbound.drain(..count);
        }
        result
    }

    fn try_send(&self, path: Path, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        let destination = path.remote;
        let src_ip = path.local.filter(|source| source.is_ipv4() == destination.is_ipv4());
        self.shared.senders.try_send(&Transmit { destination, ecn: None, contents, segment_size, src_ip })
    }

    /// Sets the timer to what is due next. True if that is now.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self.shared.with(|state| state.poll_timeout());
        if due != self.timer_due {
            self.timer_due = due;
            let wait = due.map_or(NO_TIMEOUT, |due| due.saturating_duration_since(now()));
            self.timer = runtime::sleep(wait);
        }
        let fired = self.timer.as_mut().poll(cx).is_ready();
        if fired {
            self.timer_due = None;
            self.timer = runtime::sleep(NO_TIMEOUT);
        }
        fired
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Everything,
    PartOfIt,
    Gone,
}

impl<G: Unpin> Future for Driver<G> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.driver.register(cx.waker());
        loop {
            let received = this.receive(cx);
            let sent = this.poll_send(cx);
            let over = this.shared.with(|state| state.error().is_some());
            if over && (sent.is_ready() || received == Received::Gone) {
                return Poll::Ready(());
            }
            if received == Received::PartOfIt {
                // Others get their turn.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !this.poll_timer(cx) {
                return Poll::Pending;
            }
        }
    }
}

impl<G> Drop for Driver<G> {
    fn drop(&mut self) {
        self.shared.with(|state| state.abandon());
    }
}

/// The clock of tasks, as the sans-IO parts know it.
pub(crate) fn now() -> Instant {
    runtime::Instant::now().into_std()
}
