//! What a remote may make us keep. Every number in one place.

use std::time::Duration;

use peerloom_core::webrtc_stream::MAX_RECEIVED_BYTES;

/// Strangers whose connectivity checks were answered and who have not begun a handshake: this many are remembered, each with
/// its check. At the most checks that are looked into, that is a second and a half for the handshake to follow, and 8 MB.
pub const MAX_UNPROVED: usize = 16 * 1024;

/// The longest check of a stranger that is answered, in bytes. A browser's has some 150.
pub const MAX_UNPROVED_CHECK: usize = 512;

/// Handshakes that are under way at a listener at once. More do not begin; dialers repeat themselves.
pub const MAX_PENDING_HANDSHAKES: usize = 128;

/// Handshakes under way from one IP address (one /64 of IPv6).
pub const MAX_PENDING_HANDSHAKES_PER_IP: usize = 32;

/// New handshakes per second that a listener begins on average, and how many it may begin in a burst.
pub const NEW_HANDSHAKES_PER_SECOND: u32 = 200;
/// See [`NEW_HANDSHAKES_PER_SECOND`].
pub const NEW_HANDSHAKES_BURST: u32 = 256;

/// Connectivity checks per second from addresses that are not known yet which are looked into, and their burst: each
/// costs two HMACs, some microseconds in all.
pub const UNKNOWN_CHECKS_PER_SECOND: u32 = 10_000;
/// See [`UNKNOWN_CHECKS_PER_SECOND`].
pub const UNKNOWN_CHECKS_BURST: u32 = 2_000;

/// Remote addresses that one session may use: a dialer tries several of its interfaces.
pub const MAX_ADDRESSES_PER_SESSION: usize = 8;

/// Sessions that one remote address may belong to: ports are used again before the old session is known to be over.
pub const MAX_SESSIONS_PER_ADDRESS: usize = 2;

/// User name fragments of sessions that are over, remembered so that a late connectivity check does not begin another.
pub const MAX_FORMER_SESSIONS: usize = 1024;

/// Datagrams that wait for a connection's task. More are dropped, as a full socket buffer would do.
pub const DATAGRAM_QUEUE: usize = 256;

/// Streams that a remote may have open on one connection. More are reset. Chromium allows 1024 in both directions.
pub const MAX_INBOUND_STREAMS: usize = 1024;

/// Streams opened by the remote that wait to be accepted. More are reset.
pub const ACCEPT_BACKLOG: usize = MAX_INBOUND_STREAMS;

/// Channels of a connection in whatever state, beyond which the remote ignores our resets and loses the connection.
pub const MAX_CHANNELS: usize = 2 * MAX_INBOUND_STREAMS + 512;

/// Unread bytes that the SCTP layer holds for a connection, all streams together: the window that the remote sees.
pub const SCTP_RECEIVE_WINDOW: usize = 1024 * 1024;

/// Unread bytes of one stream beyond which no more is taken from the SCTP layer.
pub const STREAM_RECEIVE_BUFFER: usize = 128 * 1024;

/// Unread bytes of all streams of a connection beyond which no more is taken from the SCTP layer.
pub const CONNECTION_RECEIVE_BUFFER: usize = 1024 * 1024;

/// How long the connection's window may be closed by streams that nobody reads before the fullest of them is reset, so
/// that the others can go on. SCTP has one window for all streams.
pub const STALLED_STREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest message of a channel that is accepted: a frame of libp2p and its length prefix.
pub const MAX_RECEIVED_MESSAGE: usize = MAX_RECEIVED_BYTES + 3;

/// Bytes of all streams of a connection that are handed to SCTP and not acknowledged, by default. More is slower on
/// short paths, because slow start then overruns the receiver's socket.
pub const SEND_TARGET: usize = 64 * 1024;

/// How long a stream that is done waits for the remote's FIN_ACK before its channel is closed.
pub const FIN_ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a stream that we have reset waits for the remote to close its channel before we do. A browser may not yet have
/// made the channel of which it hears that it is over, and then never closes it.
pub const RESET_TIMEOUT: Duration = Duration::from_secs(2);

/// How long [`Connection::close`](peerloom_core::Connection::close) waits for bytes in flight.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Silence of the remote after which a connection is over. Browsers check connectivity every few seconds, libdatachannel
/// every 15 (RFC 7675 ends consent after 30).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(40);

/// Deadline of each step of a handshake: ICE, DTLS, SCTP, Noise.
pub const HANDSHAKE_STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses that a remote may name as candidates of one connection. More are not looked at.
pub const MAX_REMOTE_CANDIDATES: usize = 16;

/// Pairs of addresses that are checked for one connection: the remote's candidates, and addresses that it turns out to have
/// besides.
pub const MAX_PAIRS: usize = 24;

/// Connectivity checks sent on one pair that has never been answered. With [`MAX_PAIRS`] this is all that a remote can make
/// us send to addresses that are not its own: 240 datagrams of some 120 bytes in no less than five seconds.
pub const MAX_CHECKS_PER_PAIR: u8 = 10;

/// Our own addresses that are told to a remote.
pub const MAX_LOCAL_CANDIDATES: usize = 8;

/// Connections that are being negotiated at once, in both directions. More are refused.
pub const MAX_NEGOTIATIONS: usize = 256;

/// How long a connection waits for the remote's description: it comes through a relay, from a page that may sleep.
pub const DESCRIPTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Deadline of ICE between two peers that each may be behind a NAT.
pub const ICE_TIMEOUT: Duration = Duration::from_secs(20);

/// Datagrams kept that arrive before the remote's description has: its DTLS may begin while the answer is on its way.
pub const MAX_EARLY_DATAGRAMS: usize = 4;

/// The longest session description that is read; a browser's has less than 2 KiB.
pub const MAX_DESCRIPTION: usize = 16 * 1024;
