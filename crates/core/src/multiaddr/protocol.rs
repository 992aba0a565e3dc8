//! The protocols that a multiaddr is made of: their codes, names, and the form of their values.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::{multihash::Multihash, peer_id::PeerId};

/// One component of a [`Multiaddr`](super::Multiaddr): a protocol and its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // The names are those of the multiaddr protocol table; what needs saying is said.
pub enum Protocol<'a> {
    Ip4(Ipv4Addr),
    Ip6(Ipv6Addr),
    /// The zone of the IPv6 address that follows, such as `eth0`.
    Ip6Zone(Cow<'a, str>),
    /// The prefix length that makes the address before it a network.
    IpCidr(u8),
    /// A name that resolves to addresses of either family.
    Dns(Cow<'a, str>),
    Dns4(Cow<'a, str>),
    Dns6(Cow<'a, str>),
    /// A name whose TXT records hold multiaddrs.
    Dnsaddr(Cow<'a, str>),
    Tcp(u16),
    Udp(u16),
    Dccp(u16),
    Sctp(u16),
    Udt,
    Utp,
    /// The path of a Unix socket, with its leading slash.
    Unix(Cow<'a, str>),
    P2p(PeerId),
    /// A Tor version 2 service: its hash and port.
    Onion([u8; 10], u16),
    /// A Tor version 3 service: its key with checksum and version, and port.
    Onion3([u8; 35], u16),
    /// An I2P destination.
    Garlic64(Cow<'a, [u8]>),
    /// An I2P destination's hash, or an encrypted lease set.
    Garlic32(Cow<'a, [u8]>),
    Tls,
    Sni(Cow<'a, str>),
    Noise,
    PlaintextV2,
    /// QUIC draft 29; what is in use is [`QuicV1`](Self::QuicV1).
    Quic,
    QuicV1,
    WebTransport,
    /// The hash of a certificate that the listener may present.
    Certhash(Multihash),
    Http,
    Https,
    HttpPath(Cow<'a, str>),
    Ws,
    Wss,
    P2pWebSocketStar,
    P2pWebRtcStar,
    P2pWebRtcDirect,
    P2pStardust,
    WebRtcDirect,
    WebRtc,
    P2pCircuit,
    Memory(u64),
    /// A Textile thread.
    Thread(Cow<'a, [u8]>),
    /// A protocol that is not in the table. Nothing says how long its value is, so `data` is all that follows its code,
    /// up to the end of the address.
    Unknown {
        code: u64,
        data: Cow<'a, [u8]>,
    },
}

/// The form of a protocol's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    None,
    /// This many bytes.
    Fixed(u8),
    /// A varint length, then as many bytes.
    Prefixed,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) code: u64,
    pub(super) name: &'static str,
    pub(super) value: Value,
}

pub(super) fn by_code(code: u64) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.code == code)
}

pub(super) fn by_name(name: &str) -> Option<&'static Entry> {
    // The name of the early days.
    let name = if name == "ipfs" { "p2p" } else { name };
    TABLE.iter().find(|entry| entry.name == name)
}

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal, $value:expr;)*) => {
        $(pub(super) const $name: u64 = $code;)*
        const TABLE: &[Entry] = &[$(Entry { code: $code, name: $text, value: $value }),*];
    };
}

// The codes of the multicodec table; the most frequent first, because the table is searched from its start.
codes! {
    IP4 = 4, "ip4", Value::Fixed(4);
    IP6 = 41, "ip6", Value::Fixed(16);
    TCP = 6, "tcp", Value::Fixed(2);
    UDP = 273, "udp", Value::Fixed(2);
    P2P = 421, "p2p", Value::Prefixed;
    QUIC_V1 = 461, "quic-v1", Value::None;
    WEBTRANSPORT = 465, "webtransport", Value::None;
    CERTHASH = 466, "certhash", Value::Prefixed;
    P2P_CIRCUIT = 290, "p2p-circuit", Value::None;
    WEBRTC_DIRECT = 280, "webrtc-direct", Value::None;
    WEBRTC = 281, "webrtc", Value::None;
    DNS = 53, "dns", Value::Prefixed;
    DNS4 = 54, "dns4", Value::Prefixed;
    DNS6 = 55, "dns6", Value::Prefixed;
    DNSADDR = 56, "dnsaddr", Value::Prefixed;
    TLS = 448, "tls", Value::None;
    SNI = 449, "sni", Value::Prefixed;
    WS = 477, "ws", Value::None;
    WSS = 478, "wss", Value::None;
    QUIC = 460, "quic", Value::None;
    NOISE = 454, "noise", Value::None;
    HTTP = 480, "http", Value::None;
    HTTPS = 443, "https", Value::None;
    HTTP_PATH = 481, "http-path", Value::Prefixed;
    MEMORY = 777, "memory", Value::Fixed(8);
    IP6ZONE = 42, "ip6zone", Value::Prefixed;
    IPCIDR = 43, "ipcidr", Value::Fixed(1);
    UNIX = 400, "unix", Value::Prefixed;
    ONION = 444, "onion", Value::Fixed(12);
    ONION3 = 445, "onion3", Value::Fixed(37);
    GARLIC64 = 446, "garlic64", Value::Prefixed;
    GARLIC32 = 447, "garlic32", Value::Prefixed;
    DCCP = 33, "dccp", Value::Fixed(2);
    SCTP = 132, "sctp", Value::Fixed(2);
    UDT = 301, "udt", Value::None;
    UTP = 302, "utp", Value::None;
    P2P_WEBSOCKET_STAR = 479, "p2p-websocket-star", Value::None;
    P2P_WEBRTC_STAR = 275, "p2p-webrtc-star", Value::None;
    P2P_WEBRTC_DIRECT = 276, "p2p-webrtc-direct", Value::None;
    P2P_STARDUST = 277, "p2p-stardust", Value::None;
    THREAD = 406, "thread", Value::Prefixed;
    PLAINTEXTV2 = 7367777, "plaintextv2", Value::None;
}

impl Protocol<'_> {
    /// The protocol's code in the multicodec table.
    pub fn code(&self) -> u64 {
        match self {
            Self::Ip4(_) => IP4,
            Self::Ip6(_) => IP6,
            Self::Ip6Zone(_) => IP6ZONE,
            Self::IpCidr(_) => IPCIDR,
            Self::Dns(_) => DNS,
            Self::Dns4(_) => DNS4,
            Self::Dns6(_) => DNS6,
            Self::Dnsaddr(_) => DNSADDR,
            Self::Tcp(_) => TCP,
            Self::Udp(_) => UDP,
            Self::Dccp(_) => DCCP,
            Self::Sctp(_) => SCTP,
            Self::Udt => UDT,
            Self::Utp => UTP,
            Self::Unix(_) => UNIX,
            Self::P2p(_) => P2P,
            Self::Onion(..) => ONION,
            Self::Onion3(..) => ONION3,
            Self::Garlic64(_) => GARLIC64,
            Self::Garlic32(_) => GARLIC32,
            Self::Tls => TLS,
            Self::Sni(_) => SNI,
            Self::Noise => NOISE,
            Self::PlaintextV2 => PLAINTEXTV2,
            Self::Quic => QUIC,
            Self::QuicV1 => QUIC_V1,
            Self::WebTransport => WEBTRANSPORT,
            Self::Certhash(_) => CERTHASH,
            Self::Http => HTTP,
            Self::Https => HTTPS,
            Self::HttpPath(_) => HTTP_PATH,
            Self::Ws => WS,
            Self::Wss => WSS,
            Self::P2pWebSocketStar => P2P_WEBSOCKET_STAR,
            Self::P2pWebRtcStar => P2P_WEBRTC_STAR,
            Self::P2pWebRtcDirect => P2P_WEBRTC_DIRECT,
            Self::P2pStardust => P2P_STARDUST,
            Self::WebRtcDirect => WEBRTC_DIRECT,
            Self::WebRtc => WEBRTC,
            Self::P2pCircuit => P2P_CIRCUIT,
            Self::Memory(_) => MEMORY,
            Self::Thread(_) => THREAD,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// The protocol's name in the text form, `unknown` for one that has none.
    pub fn name(&self) -> &'static str {
        by_code(self.code()).map_or("unknown", |entry| entry.name)
    }
}
