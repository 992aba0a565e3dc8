//! One UDP port for QUIC and WebRTC.
//!
//! A [`UdpSocket`] is quinn's: it reads and writes in batches (GSO and GRO). Datagrams that are not QUIC it hands to one
//! second consumer, the [`DatagramSocket`], through a bounded queue. A [`DatagramSocket`] can also own a port alone, so
//! its user need not know which of the two it has.

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
pub use quinn::udp::Transmit;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, UdpSocketState},
};
use tokio::{io::Interest, sync::mpsc};

/// Datagrams that wait for the second consumer of a shared socket. Past that they are dropped, as a full kernel buffer
/// would: at 1,500 bytes each this is at most 1.5 MB.
pub const DATAGRAM_QUEUE: usize = 1024;

/// Kernel buffers that we ask for. The kernel may give less (`net.core.rmem_max`), which costs throughput only.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Reads per system call of a [`DatagramSocket`] that owns its port, each up to one GRO batch of 64 KiB.
const RECEIVE_BATCH: usize = 4;
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Whether a datagram that begins with `first` is for QUIC; the others are STUN, DTLS or ZRTP.
///
/// RFC 9443, section 3. Its ranges for TURN channels and RTP overlap QUIC's short headers and version negotiation, but
/// this port never carries those.
fn is_quic(first: u8) -> bool {
    first >= 64
}

/// A bound UDP socket, as quinn wants it. At most one task may receive from it: quinn's endpoint.
pub struct UdpSocket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    others: Mutex<Option<mpsc::Sender<Datagram>>>,
}

impl UdpSocket {
    /// Binds `address`. An IPv6 socket carries IPv6 only, so that the same port can be bound for IPv4.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        // Best effort: without permission for so much, the kernel's default must do.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        socket.bind(&address.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { io: tokio::net::UdpSocket::from_std(socket)?, state, others: Mutex::default() })
    }

    /// The handle to what is not QUIC. `None` while somebody has it. As long as nobody does, such datagrams are dropped.
    ///
    /// They come only while somebody receives for QUIC: `receiver` is what does, and lives as long as the handle.
    pub fn datagrams(self: &Arc<Self>, receiver: Arc<dyn Any + Send + Sync>) -> Option<DatagramSocket> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.as_ref().is_some_and(|others| !others.is_closed()) {
            return None;
        }
        let (sender, queue) = mpsc::channel(DATAGRAM_QUEUE);
        *others = Some(sender);
        let source = Source::Shared { queue, _receiver: receiver };
        Some(DatagramSocket { socket: self.clone(), source })
    }

    /// The address and port that the socket is bound to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let receive = || self.state.recv((&self.io).into(), buffers, meta);
            match self.io.try_io(Interest::READABLE, receive) {
                Ok(count) => return Poll::Ready(Ok(count)),
                // Readiness was false, or an ICMP error of an earlier send is reported here: neither ends the socket.
                Err(_) => continue,
            }
        }
    }

    /// Moves what is not QUIC from the received batch to the second consumer. Returns whether QUIC is left.
    fn sort_out(&self, buffers: &[IoSliceMut<'_>], meta: &mut [RecvMeta]) -> bool {
        let mut quic_left = false;
        for (buffer, meta) in buffers.iter().zip(meta) {
            let mut quic_here = false;
            for payload in segments(buffer, meta) {
                if payload.first().copied().is_some_and(is_quic) {
                    quic_here = true;
                } else if let Some(others) =
                    self.others.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
                {
                    // A full queue drops, as UDP may.
                    if let Ok(permit) = others.try_reserve() {
                        permit.send(Datagram::received(payload, meta));
                    }
                }
            }
            if !quic_here {
                // Blanked for quinn. A batch that holds both, which no honest sender makes, stays whole: quinn discards
                // what lacks the fixed bit.
                meta.len = 0;
            }
            quic_left |= quic_here;
        }
        quic_left
    }
}

/// The datagrams of one GRO batch.
fn segments<'a>(buffer: &'a [u8], meta: &RecvMeta) -> impl Iterator<Item = &'a [u8]> {
    buffer.get(..meta.len).unwrap_or(buffer).chunks(meta.stride.max(1))
}

impl AsyncUdpSocket for UdpSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritablePoller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // Ends even under a flood of STUN: tokio's readiness has a budget per poll.
        loop {
            let count = ready!(self.poll_receive(cx, buffers, meta))?;
            let received = meta.get_mut(..count).unwrap_or_default();
            if self.sort_out(buffers, received) {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("local", &self.io.local_addr().ok()).finish_non_exhaustive()
    }
}

/// Waits for room in the kernel's send buffer on behalf of one task; any number of them may wait on one socket.
struct WritablePoller {
    socket: Arc<UdpSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for WritablePoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let socket = &this.socket;
        let waiting = this.waiting.get_or_insert_with(|| {
            let socket = socket.clone();
            Box::pin(async move { socket.io.writable().await })
        });
        let result = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for WritablePoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WritablePoller").field(&self.socket).finish()
    }
}

/// A datagram as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub source: SocketAddr,
    /// Which of our addresses it was sent to, where the platform tells: the address to answer from on a machine that
    /// has several.
    pub destination: Option<IpAddr>,
    /// What it holds; its own memory, so that ciphers can work in place.
    pub payload: BytesMut,
}

impl Datagram {
    fn received(payload: &[u8], meta: &RecvMeta) -> Self {
        Self { source: meta.addr, destination: meta.dst_ip, payload: BytesMut::from(payload) }
    }
}

/// Datagrams in and out for a protocol that is not QUIC, on a port of its own or on one shared with QUIC.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: Arc<UdpSocket>,
    source: Source,
}

enum Source {
    Shared { queue: mpsc::Receiver<Datagram>, _receiver: Arc<dyn Any + Send + Sync> },
    Own(OwnReceiver),
}

impl DatagramSocket {
    /// Binds a port of its own, on which every datagram is received, whatever it begins with.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind(address)?);
        Ok(Self { socket, source: Source::Own(OwnReceiver::default()) })
    }

    /// The next datagram. An error is the end of the socket. Cancel-safe.
    pub async fn receive(&mut self) -> io::Result<Datagram> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// See [`receive`](Self::receive).
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Datagram>> {
        match &mut self.source {
            Source::Own(receiver) => receiver.poll(&self.socket, cx),
            Source::Shared { queue, .. } => match ready!(queue.poll_recv(cx)) {
                Some(datagram) => Poll::Ready(Ok(datagram)),
                // The sender lives in the socket that this handle keeps alive.
                None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            },
        }
    }

    /// See [`DatagramSender::send`].
    pub async fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sender().send(transmit).await
    }

    /// The half that sends, for as many tasks as want it.
    pub fn sender(&self) -> DatagramSender {
        DatagramSender { socket: self.socket.clone() }
    }

    /// See [`DatagramSender::max_segments`].
    pub fn max_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    /// The address and port that the socket is bound to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_address()
    }
}

/// The sending half of a [`DatagramSocket`].
#[derive(Debug, Clone)]
pub struct DatagramSender {
    socket: Arc<UdpSocket>,
}

impl DatagramSender {
    /// Sends now, or fails with [`WouldBlock`](io::ErrorKind::WouldBlock). `segment_size` in the transmit lets the
    /// kernel cut one large buffer into datagrams (GSO), at most [`max_segments`](Self::max_segments) of them. Errors of
    /// the route are logged, not returned: a lost datagram is none of UDP's business.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    /// Sends, waiting for room in the kernel's buffer. Cancel-safe.
    pub async fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        loop {
            match self.try_send(transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                result => return result,
            }
        }
    }

    /// Waits for room in the kernel's buffer. Cancel-safe.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.io.writable().await
    }

    /// How many datagrams one transmit may hold.
    pub fn max_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared { .. } => "Shared",
            Self::Own(_) => "Own",
        })
    }
}

/// Reads in batches and hands out one by one.
#[derive(Default)]
struct OwnReceiver {
    buffer: Vec<u8>,
    ready: std::collections::VecDeque<Datagram>,
}

impl OwnReceiver {
    fn poll(&mut self, socket: &UdpSocket, cx: &mut Context<'_>) -> Poll<io::Result<Datagram>> {
        loop {
            if let Some(datagram) = self.ready.pop_front() {
                return Poll::Ready(Ok(datagram));
            }
            self.buffer.resize(RECEIVE_BATCH * RECEIVE_BUFFER, 0);
            let mut buffers: Vec<_> = self.buffer.chunks_mut(RECEIVE_BUFFER).map(IoSliceMut::new).collect();
            let mut meta = [RecvMeta::default(); RECEIVE_BATCH];
            let count = ready!(socket.poll_receive(cx, &mut buffers, &mut meta))?;
            for (buffer, meta) in buffers.iter().zip(meta.iter().take(count)) {
                self.ready.extend(segments(buffer, meta).map(|payload| Datagram::received(payload, meta)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn transmit(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    /// Polls the socket as quinn's endpoint would and returns what is left for QUIC.
    async fn receive_as_quinn(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut memory = vec![0; 4 * 64 * 1024];
        let mut buffers: Vec<_> = memory.chunks_mut(64 * 1024).map(IoSliceMut::new).collect();
        let mut meta = [RecvMeta::default(); 4];
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut meta)).await.unwrap();
        buffers
            .iter()
            .zip(&meta[..count])
            .flat_map(|(buffer, meta)| segments(buffer, meta).map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect()
    }

    #[tokio::test]
    async fn stun_and_dtls_go_to_the_second_consumer_and_the_rest_to_quic() {
        let socket = Arc::new(UdpSocket::bind(LOOPBACK).unwrap());
        let first = socket.datagrams(Arc::new(())).unwrap();
        assert!(socket.datagrams(Arc::new(())).is_none());
        drop(first);
        let mut others = socket.datagrams(Arc::new(())).unwrap();
        let sender = DatagramSocket::bind(LOOPBACK).unwrap();
        let to = socket.local_address().unwrap();
        // STUN binding request, DTLS handshake, QUIC long header, version negotiation with the fixed bit clear, short.
        for first in [0u8, 22, 0xc3, 0x80, 0x41] {
            sender.send(&transmit(to, &[first, 1, 2])).await.unwrap();
        }
        let mut quic = Vec::new();
        while quic.len() < 3 {
            quic.extend(receive_as_quinn(&socket).await);
        }
        assert_eq!(quic, [[0xc3, 1, 2], [0x80, 1, 2], [0x41, 1, 2]]);
        for first in [0u8, 22] {
            let datagram = others.receive().await.unwrap();
            assert_eq!(&datagram.payload[..], [first, 1, 2]);
            assert_eq!(datagram.source, sender.local_address().unwrap());
            assert_eq!(datagram.destination, Some(LOOPBACK.ip()));
        }
    }

    #[tokio::test]
    async fn a_full_queue_and_a_missing_consumer_drop_without_stalling_quic() {
        for take in [true, false] {
            let socket = Arc::new(UdpSocket::bind(LOOPBACK).unwrap());
            let others = take.then(|| socket.datagrams(Arc::new(())).unwrap());
            let sender = DatagramSocket::bind(LOOPBACK).unwrap();
            let to = socket.local_address().unwrap();
            let quic = receive_as_quinn(&socket);
            tokio::pin!(quic);
            for round in 0..DATAGRAM_QUEUE + 100 {
                sender.send(&transmit(to, &[1])).await.unwrap();
                if round % 50 == 0 {
                    assert!(tokio::time::timeout(Duration::from_millis(1), &mut quic).await.is_err());
                }
            }
            sender.send(&transmit(to, &[0xc0, 7])).await.unwrap();
            assert_eq!(quic.await, [[0xc0, 7]]);
            if let Some(DatagramSocket { source: Source::Shared { queue, .. }, .. }) = others {
                assert_eq!(queue.len(), DATAGRAM_QUEUE);
            }
        }
    }

    #[tokio::test]
    async fn a_batch_is_one_write_and_one_read_where_the_system_can() {
        const SEGMENT: usize = 1000;
        let socket = Arc::new(UdpSocket::bind(LOOPBACK).unwrap());
        let sender = DatagramSocket::bind(LOOPBACK).unwrap();
        let segments = sender.max_segments().min(socket.max_receive_segments()).min(8);
        if segments < 2 {
            println!("skipped: the system has no segmentation offload");
            return;
        }
        let contents = vec![0xc0; segments * SEGMENT];
        let mut batch = transmit(socket.local_address().unwrap(), &contents);
        batch.segment_size = Some(SEGMENT);
        sender.send(&batch).await.unwrap();
        let mut memory = vec![0; 64 * 1024];
        let mut meta = [RecvMeta::default()];
        let mut buffers = [IoSliceMut::new(&mut memory)];
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut meta)).await.unwrap();
        assert_eq!((count, meta[0].len, meta[0].stride), (1, contents.len(), SEGMENT));
    }

    #[tokio::test]
    async fn a_socket_of_its_own_receives_batches_one_by_one() {
        let mut receiver = DatagramSocket::bind(LOOPBACK).unwrap();
        let sender = DatagramSocket::bind(LOOPBACK).unwrap();
        let contents: Vec<u8> = (0..3u8).flat_map(|i| [i; 100]).collect();
        let mut batch = transmit(receiver.local_address().unwrap(), &contents);
        if sender.max_segments() >= 3 {
            batch.segment_size = Some(100);
            sender.send(&batch).await.unwrap();
            for i in 0..3u8 {
                assert_eq!(&receiver.receive().await.unwrap().payload[..], [i; 100]);
            }
        }
        sender.send(&transmit(receiver.local_address().unwrap(), &[0x40])).await.unwrap();
        assert_eq!(&receiver.receive().await.unwrap().payload[..], [0x40]);
    }
}
