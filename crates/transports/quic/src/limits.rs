//! What a remote can make us hold, and for how long: all bounds of these transports, with quinn told of them.

use std::{sync::Arc, time::Duration};

use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};

use crate::congestion::CongestionControl;

/// Streams that a remote may have open at first. That many also wait to be accepted at most. quinn keeps some 90 bytes
/// for each that it allows, whether or not there is one.
pub(crate) const MIN_STREAMS: u32 = 64;

/// Streams that a remote may have open when half of those it may were accepted, and so on. At the limit it waits.
pub(crate) const MAX_STREAMS: u32 = 1024;

/// Unidirectional streams that a remote may have open where HTTP/3 is spoken, which wants three. libp2p uses none.
pub(crate) const MAX_UNIDIRECTIONAL_STREAMS: u32 = 16;

/// What a connection may receive before it is read: at first, and for good if the budget of
/// [`QuicConfig::receive_budget`](crate::QuicConfig::receive_budget) is used up.
pub(crate) const MIN_RECEIVE_WINDOW: u64 = 256 * 1024;

/// What one stream may receive before it is read, as far as its connection may. QUIC lets this not change.
pub(crate) const STREAM_RECEIVE_WINDOW: u64 = 4 * 1024 * 1024;

/// What a connection may receive before it is read at most: 1 Gbit/s over 130 ms.
pub(crate) const MAX_RECEIVE_WINDOW: u64 = 16 * 1024 * 1024;

/// What we have sent and a remote has not acknowledged, per connection, at most. Beyond it writers wait.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;

/// Datagrams are nothing that libp2p uses, but a session must be able to receive them. quinn drops the oldest.
const DATAGRAM_BUFFER: usize = 16 * 1024;

/// Connection attempts that wait for a listener to be polled, and the bytes that they may hold together.
const MAX_INCOMING: usize = 1024;
const INCOMING_BUFFER: u64 = 16 * 1024;
const INCOMING_BUFFER_TOTAL: u64 = 4 * 1024 * 1024;

/// From this many handshakes under way at a port, a dialer must first prove its address with a Retry token.
pub(crate) const RETRY_FROM: usize = 64;

/// From this many handshakes under way at a port, a dialer is refused.
pub(crate) const MAX_HANDSHAKES: usize = 512;

/// From the first packet to an authenticated connection. It also ends connections that never open a session: Firefox
/// makes two and uses one.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a close waits for what was written before it to be acknowledged.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a close waits for its own datagram to leave, which takes microseconds unless the machine is busy.
pub(crate) const GOODBYE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a stream that was answered and then dropped may still be written to by the remote, before it is told to stop.
pub(crate) const STOP_DELAY: Duration = Duration::from_secs(3);

/// Such streams of one connection; beyond them the oldest is stopped at once.
pub(crate) const MAX_UNREAD_STREAMS: usize = 128;

/// How long the connection under a session outlives the remote's close of the session, for what is still on its way. The
/// remote should end it sooner.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Silence after which a connection is given up, unless the configuration says otherwise.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What all connections of a transport may receive unread beyond [`MIN_RECEIVE_WINDOW`] each, unless the configuration
/// says otherwise, in bytes.
pub(crate) const RECEIVE_BUDGET: u64 = 512 * 1024 * 1024;

/// An idle connection sends something this often, so that it and the NATs on its way stay open: half of what NATs allow
/// that allow little. Whoever hears from the other first need not send, so it is one packet and its acknowledgement.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The longest ClientHello that is waited for, in bytes. With a post-quantum key share it takes under 2 KiB.
pub(crate) const MAX_CLIENT_HELLO: usize = 16 * 1024;

/// quinn's settings of an endpoint.
pub(crate) fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // The fixed bit is what tells QUIC from WebRTC on a shared port; and `/quic-v1` is RFC 9000, not one of its drafts.
    config.grease_quic_bit(false).supported_versions(vec![1]);
    config
}

/// What connections differ in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Silence after which a connection is given up.
    pub(crate) idle_timeout: Duration,
    /// Unidirectional streams that the remote may have open.
    pub(crate) unidirectional_streams: u32,
}

/// quinn's settings of a connection.
pub(crate) fn transport_config(settings: Settings) -> Arc<TransportConfig> {
    let Settings { idle_timeout, unidirectional_streams } = settings;
    let window = |bytes: u64| VarInt::from_u64(bytes).unwrap_or(VarInt::MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(MIN_STREAMS.into())
        .max_concurrent_uni_streams(unidirectional_streams.into())
        .receive_window(window(MIN_RECEIVE_WINDOW))
        .stream_receive_window(window(STREAM_RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .congestion_controller_factory(Arc::new(CongestionControl))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        // A lost one is repeated long before the other half is over.
        .keep_alive_interval(Some(KEEP_ALIVE.min(idle_timeout / 2)))
        // A timeout too long for QUIC to say is none.
        .max_idle_timeout(IdleTimeout::try_from(idle_timeout).ok());
    Arc::new(config)
}

/// Bounds what waits for a listener to be polled.
pub(crate) fn limit_incoming(config: &mut quinn::ServerConfig) {
    config
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
}
