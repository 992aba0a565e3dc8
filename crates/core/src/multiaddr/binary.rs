//! The binary form: for each component its code as a varint, and its value.

#![warn(clippy::arithmetic_side_effects)]

use std::{borrow::Cow, str};

use super::{
    MultiaddrError,
    protocol::{self, Protocol, Value},
};
use crate::{
    multihash::Multihash,
    peer_id::PeerId,
    varint::{self, VarintError},
};

/// The longest name, path or other text value, in bytes. A DNS name has 253, a Unix socket path 108.
const MAX_TEXT_BYTES: usize = 1024;

/// Takes the first component off `input`; the second value is what follows it.
pub(super) fn decode(input: &[u8]) -> Result<(Protocol<'_>, &[u8]), MultiaddrError> {
    let (code, rest) = varint::decode(input)?;
    let Some(entry) = protocol::by_code(code) else {
        return Ok((Protocol::Unknown { code, data: Cow::Borrowed(rest) }, &[]));
    };
    let (value, rest) = match entry.value {
        Value::None => (&[][..], rest),
        Value::Fixed(length) => rest.split_at_checked(length.into()).ok_or(VarintError::Truncated)?,
        Value::Prefixed => varint::decode_prefixed(rest)?,
    };
    let protocol = from_value(code, value).ok_or(MultiaddrError::Value { protocol: entry.name })?;
    Ok((protocol, rest))
}

/// The component of a code that is in the table, if its value is valid.
pub(super) fn from_value(code: u64, value: &[u8]) -> Option<Protocol<'_>> {
    Some(match code {
        protocol::IP4 => Protocol::Ip4(<[u8; 4]>::try_from(value).ok()?.into()),
        protocol::IP6 => Protocol::Ip6(<[u8; 16]>::try_from(value).ok()?.into()),
        protocol::IP6ZONE => Protocol::Ip6Zone(name(value)?),
        protocol::IPCIDR => Protocol::IpCidr(*value.first()?),
        protocol::DNS => Protocol::Dns(name(value)?),
        protocol::DNS4 => Protocol::Dns4(name(value)?),
        protocol::DNS6 => Protocol::Dns6(name(value)?),
        protocol::DNSADDR => Protocol::Dnsaddr(name(value)?),
        protocol::TCP => Protocol::Tcp(port(value)?),
        protocol::UDP => Protocol::Udp(port(value)?),
        protocol::DCCP => Protocol::Dccp(port(value)?),
        protocol::SCTP => Protocol::Sctp(port(value)?),
        protocol::UDT => Protocol::Udt,
        protocol::UTP => Protocol::Utp,
        protocol::UNIX => {
            let path = text(value)?;
            let well_formed = path.len() > 1 && path.starts_with('/') && !path.ends_with('/');
            Protocol::Unix(well_formed.then_some(path)?)
        }
        protocol::P2P => Protocol::P2p(PeerId::from_bytes(value).ok()?),
        protocol::ONION => {
            let (service, port_bytes) = value.split_first_chunk()?;
            Protocol::Onion(*service, port(port_bytes).filter(|port| *port != 0)?)
        }
        protocol::ONION3 => {
            let (service, port_bytes) = value.split_first_chunk()?;
            Protocol::Onion3(*service, port(port_bytes).filter(|port| *port != 0)?)
        }
        // I2P: a destination has 387 bytes or more; other implementations take 386.
        protocol::GARLIC64 => Protocol::Garlic64((value.len() >= 386).then_some(Cow::Borrowed(value))?),
        // I2P: a hash, or an encrypted lease set of 35 bytes or more.
        protocol::GARLIC32 => {
            Protocol::Garlic32((value.len() == 32 || value.len() >= 35).then_some(Cow::Borrowed(value))?)
        }
        protocol::TLS => Protocol::Tls,
        protocol::SNI => Protocol::Sni(name(value)?),
        protocol::NOISE => Protocol::Noise,
        protocol::PLAINTEXTV2 => Protocol::PlaintextV2,
        protocol::QUIC => Protocol::Quic,
        protocol::QUIC_V1 => Protocol::QuicV1,
        protocol::WEBTRANSPORT => Protocol::WebTransport,
        protocol::CERTHASH => Protocol::Certhash(Multihash::from_bytes(value).ok()?),
        protocol::HTTP => Protocol::Http,
        protocol::HTTPS => Protocol::Https,
        protocol::HTTP_PATH => Protocol::HttpPath(text(value)?),
        protocol::WS => Protocol::Ws,
        protocol::WSS => Protocol::Wss,
        protocol::P2P_WEBSOCKET_STAR => Protocol::P2pWebSocketStar,
        protocol::P2P_WEBRTC_STAR => Protocol::P2pWebRtcStar,
        protocol::P2P_WEBRTC_DIRECT => Protocol::P2pWebRtcDirect,
        protocol::P2P_STARDUST => Protocol::P2pStardust,
        protocol::WEBRTC_DIRECT => Protocol::WebRtcDirect,
        protocol::WEBRTC => Protocol::WebRtc,
        protocol::P2P_CIRCUIT => Protocol::P2pCircuit,
        protocol::MEMORY => Protocol::Memory(u64::from_be_bytes(value.try_into().ok()?)),
        protocol::THREAD => Protocol::Thread((!value.is_empty()).then_some(Cow::Borrowed(value))?),
        _ => return None,
    })
}

/// Appends a component.
pub(super) fn encode(protocol: &Protocol<'_>, output: &mut Vec<u8>) {
    varint::encode(protocol.code(), output);
    match protocol {
        Protocol::Ip4(ip) => output.extend_from_slice(&ip.octets()),
        Protocol::Ip6(ip) => output.extend_from_slice(&ip.octets()),
        Protocol::IpCidr(bits) => output.push(*bits),
        Protocol::Tcp(port) | Protocol::Udp(port) | Protocol::Dccp(port) | Protocol::Sctp(port) => {
            output.extend_from_slice(&port.to_be_bytes());
        }
        Protocol::Ip6Zone(text)
        | Protocol::Dns(text)
        | Protocol::Dns4(text)
        | Protocol::Dns6(text)
        | Protocol::Dnsaddr(text)
        | Protocol::Unix(text)
        | Protocol::Sni(text)
        | Protocol::HttpPath(text) => varint::encode_prefixed(text.as_bytes(), output),
        Protocol::P2p(peer) => varint::encode_prefixed(peer.as_bytes(), output),
        Protocol::Onion(service, port) => {
            output.extend_from_slice(service);
            output.extend_from_slice(&port.to_be_bytes());
        }
        Protocol::Onion3(service, port) => {
            output.extend_from_slice(service);
            output.extend_from_slice(&port.to_be_bytes());
        }
        Protocol::Garlic64(bytes) | Protocol::Garlic32(bytes) | Protocol::Thread(bytes) => {
            varint::encode_prefixed(bytes, output);
        }
        Protocol::Certhash(hash) => varint::encode_prefixed(hash.as_bytes(), output),
        Protocol::Memory(address) => output.extend_from_slice(&address.to_be_bytes()),
        Protocol::Unknown { data, .. } => output.extend_from_slice(data),
        Protocol::Udt
        | Protocol::Utp
        | Protocol::Tls
        | Protocol::Noise
        | Protocol::PlaintextV2
        | Protocol::Quic
        | Protocol::QuicV1
        | Protocol::WebTransport
        | Protocol::Http
        | Protocol::Https
        | Protocol::Ws
        | Protocol::Wss
        | Protocol::P2pWebSocketStar
        | Protocol::P2pWebRtcStar
        | Protocol::P2pWebRtcDirect
        | Protocol::P2pStardust
        | Protocol::WebRtcDirect
        | Protocol::WebRtc
        | Protocol::P2pCircuit => {}
    }
}

fn port(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes)
}

/// Text that is not empty and has no control characters, which could deceive whoever reads it in a log.
fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = str::from_utf8(value).ok()?;
    let fits = !text.is_empty() && text.len() <= MAX_TEXT_BYTES && !text.contains(char::is_control);
    fits.then_some(Cow::Borrowed(text))
}

/// Text that makes one component of the text form, so it has no slash.
fn name(value: &[u8]) -> Option<Cow<'_, str>> {
    text(value).filter(|text| !text.contains('/'))
}
