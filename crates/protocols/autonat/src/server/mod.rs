//! The side that dials back.

pub(crate) mod choice;
pub(crate) mod dial_data;
pub(crate) mod rate;

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use peerloom_core::{
    Multiaddr, PeerId, StreamError, StreamExt as _,
    framing::{self, FramingError, MessageStream},
    multistream_select::NegotiatedStream,
    runtime::{Instant, sleep, timeout},
};
use peerloom_node::{ConnectionInfo, HandleError, IncomingStream, Node};

use self::{
    choice::{Choice, choose},
    dial_data::{DIAL_DATA, DialData, DialDataError},
    rate::{Rates, RequestRates},
};
use crate::{
    DIAL_BACK, DIAL_REQUEST,
    message::{
        DialBack, DialResponse, DialStatus, MAX_DIAL_BACK_LENGTH, MAX_MESSAGE_LENGTH, Message, MessageError,
        ResponseStatus,
    },
    network::{Network, ip},
};

/// What a client has to send its request, and its dial data.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// What a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// What the client has to take the nonce, and to say so.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// What the client has to read the answer.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// A dial to an address that is not the client's waits up to so long, so that many clients cannot have many servers dial one
/// at the same moment. As go-libp2p.
const DIAL_JITTER: Duration = Duration::from_secs(3);

/// What a server does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// How much.
    pub rates: Rates,
    /// Dials private addresses, too: for tests, and networks without an internet.
    pub private: bool,
    /// Dials IPv4 addresses. To be off where there is no way to them.
    pub ip4: bool,
    /// Dials IPv6 addresses. To be off where there is no way to them.
    pub ip6: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { rates: Rates::default(), private: false, ip4: true, ip6: true }
    }
}

/// What a server has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Requests that came.
    pub requests: u64,
    /// Those that were turned away because there were too many.
    pub rejected: u64,
    /// Those with no address that is dialed.
    pub refused: u64,
    /// Those whose address was reached.
    pub reached: u64,
    /// Those whose address was not, or where the nonce did not arrive.
    pub not_reached: u64,
}

/// A server on a node. A handle; the server lives as long as the node.
#[derive(Clone)]
pub struct AutonatServer(Arc<Shared>);

struct Shared {
    dialer: Node,
    config: ServerConfig,
    rates: Mutex<RequestRates>,
    /// Of the lengths that are asked for and of the times that are waited; not secret.
    draws: AtomicU64,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    rejected: AtomicU64,
    refused: AtomicU64,
    reached: AtomicU64,
    not_reached: AtomicU64,
}

/// Why a client got no answer.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("not the message that was due")]
    UnexpectedMessage,
    #[error(transparent)]
    DialData(#[from] DialDataError),
    #[error("the client was too slow")]
    TimedOut,
}

/// Makes `node` a server. It dials clients back from `dialer`, a node of its own without listeners: its transports must share no
/// port with those of `node`, or else dials would come through NATs that `node` has a hole in, and it must have another identity,
/// or else clients might take it for `node`. It lives as long as the server.
pub fn serve(node: &Node, dialer: Node, config: ServerConfig) -> Result<AutonatServer, HandleError> {
    let seed = node.peer_id().to_bytes().iter().fold(0_u64, |seed, byte| mix(seed ^ u64::from(*byte)));
    let shared = Arc::new(Shared {
        dialer,
        rates: Mutex::new(RequestRates::new(config.rates.clone())),
        config,
        draws: AtomicU64::new(seed),
        counters: Counters::default(),
    });
    let serving = shared.clone();
    node.handle(DIAL_REQUEST, move |incoming| {
        let shared = serving.clone();
        async move {
            let peer = incoming.connection.peer;
            if let Err(error) = shared.serve(incoming).await {
                tracing::debug!(%peer, %error, "a client of AutoNAT got no answer");
            }
        }
    })?;
    Ok(AutonatServer(shared))
}

impl AutonatServer {
    /// What it has done so far.
    pub fn stats(&self) -> ServerStats {
        let counters = &self.0.counters;
        ServerStats {
            requests: counters.requests.load(Relaxed),
            rejected: counters.rejected.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            reached: counters.reached.load(Relaxed),
            not_reached: counters.not_reached.load(Relaxed),
        }
    }
}

impl Shared {
    async fn serve(self: &Arc<Self>, incoming: IncomingStream) -> Result<(), ServeError> {
        let IncomingStream { stream, connection } = incoming;
        let mut stream = MessageStream::new(stream, MAX_MESSAGE_LENGTH);
        self.counters.requests.fetch_add(1, Relaxed);
        let network = Network::of(&connection.remote_address, connection.peer);
        // Before anything of the request is read.
        let accepted = self.rates.lock().accept(connection.peer, network, Instant::now());
        if !accepted {
            self.counters.rejected.fetch_add(1, Relaxed);
            return answer(stream, without_dial(ResponseStatus::RequestRejected)).await;
        }
        let _under_way = UnderWay { shared: self, peer: connection.peer };
        let response = timeout(READ_TIMEOUT, self.negotiate(&mut stream, &connection));
        let (index, address, wait) = match response.await.unwrap_or(Err(ServeError::TimedOut))? {
            Decision::Answer(status) => return answer(stream, without_dial(status)).await,
            Decision::Dial { index, address, nonce, wait } => (index, (address, nonce), wait),
        };
        sleep(wait).await;
        let (address, nonce) = address;
        let dial = self.dial_back(address, nonce).await;
        let counter = match dial {
            DialStatus::Ok => &self.counters.reached,
            _ => &self.counters.not_reached,
        };
        counter.fetch_add(1, Relaxed);
        answer(stream, DialResponse { status: ResponseStatus::Ok, index, dial }).await
    }

    /// Reads what the client wants, and what it has to pay for it.
    async fn negotiate(
        &self,
        stream: &mut MessageStream<NegotiatedStream>,
        connection: &ConnectionInfo,
    ) -> Result<Decision, ServeError> {
        let Message::DialRequest { addresses, nonce } = read(stream).await? else {
            return Err(ServeError::UnexpectedMessage);
        };
        let can_dial = |address: &Multiaddr| {
            let has_way =
                ip(address).is_some_and(|ip| if ip.is_ipv4() { self.config.ip4 } else { self.config.ip6 });
            has_way && self.dialer.can_dial(address)
        };
        let observed = Some(&connection.remote_address);
        let choice = choose(&addresses, connection.peer, observed, self.config.private, can_dial);
        let Choice::Dial { index, address, costs } = choice else {
            self.counters.refused.fetch_add(1, Relaxed);
            return Ok(Decision::Answer(ResponseStatus::DialRefused));
        };
        if !costs {
            return Ok(Decision::Dial { index, address, nonce, wait: Duration::ZERO });
        }
        let accepted = self.rates.lock().accept_data(Instant::now());
        if !accepted {
            self.counters.rejected.fetch_add(1, Relaxed);
            return Ok(Decision::Answer(ResponseStatus::RequestRejected));
        }
        let bytes = self.draw(DIAL_DATA);
        stream.write(&Message::DialDataRequest { index, bytes }.encode()).await?;
        stream.flush().await?;
        let mut data = DialData::new(bytes);
        loop {
            let Message::DialDataResponse { data: sent } = read(stream).await? else {
                return Err(ServeError::UnexpectedMessage);
            };
            if data.received(sent.len())? {
                break;
            }
        }
        let jitter = u64::try_from(DIAL_JITTER.as_millis()).unwrap_or(u64::MAX);
        Ok(Decision::Dial { index, address, nonce, wait: Duration::from_millis(self.draw(0..=jitter)) })
    }

    /// Takes the nonce to the address, on a connection made and closed for it.
    async fn dial_back(&self, address: Multiaddr, nonce: u64) -> DialStatus {
        let connection = match timeout(DIAL_TIMEOUT, self.dialer.dial(address)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                tracing::debug!(%error, "not dialed back");
                return DialStatus::DialError;
            }
            Err(_) => return DialStatus::DialError,
        };
        let delivered = timeout(DIAL_BACK_TIMEOUT, self.deliver(&connection, nonce)).await.unwrap_or(false);
        self.dialer.close_connection(connection.id).await;
        if delivered { DialStatus::Ok } else { DialStatus::DialBackError }
    }

    /// Whether the client has said that the nonce is there.
    async fn deliver(&self, connection: &ConnectionInfo, nonce: u64) -> bool {
        let Ok(mut stream) = self.dialer.open_stream(connection, &[DIAL_BACK]).await else { return false };
        let message = DialBack { nonce }.encode();
        let Ok(framed) = framing::encode(&message, MAX_DIAL_BACK_LENGTH) else { return false };
        if stream.write_all(framed).await.is_err() {
            return false;
        }
        // Our half is closed with the connection. Whatever the client says: that something comes means that it has read the nonce.
        // go-libp2p resets the stream behind its answer, which over QUIC overtakes it.
        let is_answer =
            |said: &Result<_, StreamError>| matches!(said, Ok(Some(_)) | Err(StreamError::Reset { .. }));
        match stream.flush().await {
            Ok(()) => is_answer(&stream.read_chunk().await),
            Err(error) => is_answer(&Err(error)),
        }
    }

    /// A number out of the range, by chance but the same in each run of a simulation.
    fn draw(&self, range: RangeInclusive<u64>) -> u64 {
        let drawn = mix(self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed));
        let span = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start().saturating_add(drawn.checked_rem(span).unwrap_or(0))
    }
}

/// What follows from a request.
enum Decision {
    Answer(ResponseStatus),
    Dial { index: u32, address: Multiaddr, nonce: u64, wait: Duration },
}

fn without_dial(status: ResponseStatus) -> DialResponse {
    DialResponse { status, index: 0, dial: DialStatus::Unused }
}

async fn read(stream: &mut MessageStream<NegotiatedStream>) -> Result<Message, ServeError> {
    let message = stream.read().await?.ok_or(FramingError::UnexpectedEnd)?;
    Ok(Message::decode(message)?)
}

/// Says the last word, and waits until it is read.
async fn answer(
    mut stream: MessageStream<NegotiatedStream>,
    response: DialResponse,
) -> Result<(), ServeError> {
    let goodbye = async {
        stream.write(&Message::DialResponse(response).encode()).await?;
        stream.close_write().await?;
        stream.read().await
    };
    // What a client that was turned away sends meanwhile is of no interest.
    let _ = timeout(GOODBYE_TIMEOUT, goodbye).await;
    Ok(())
}

/// splitmix64.
fn mix(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A request, until it is over or the client is gone.
struct UnderWay<'a> {
    shared: &'a Shared,
    peer: PeerId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.shared.rates.lock().finished(self.peer);
    }
}
