//! The text form: `/name/value/name/value/…`.

#![warn(clippy::arithmetic_side_effects)]

use std::{fmt, str::FromStr};

use super::{
    MAX_BYTES, MAX_COMPONENTS, Multiaddr, MultiaddrError, binary,
    protocol::{self, Entry, Protocol, Value},
};
use crate::{
    base_encoding::{BASE16, BASE32, BASE64_I2P},
    multibase,
    peer_id::PeerId,
    varint,
};

/// Text of more bytes than this is refused unread. Percent-encoding, the most wasteful of the text forms, triples.
const MAX_TEXT_BYTES: usize = 3 * MAX_BYTES;
/// Before the code of a protocol that is not in the table.
const UNKNOWN: &str = "unknown-";

impl FromStr for Multiaddr {
    type Err = MultiaddrError;

    fn from_str(text: &str) -> Result<Self, MultiaddrError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(MultiaddrError::TooLong(text.len()));
        }
        // Other implementations take trailing slashes, so people write them.
        let components = text.trim_end_matches('/').strip_prefix('/').ok_or(MultiaddrError::NoSlash)?;
        let mut rest = Some(components);
        let mut bytes = Vec::with_capacity(text.len());
        let mut count = 0usize;
        while let Some(tail) = rest {
            count = count.saturating_add(1);
            if count > MAX_COMPONENTS {
                return Err(MultiaddrError::TooManyComponents);
            }
            rest = parse_component(tail, &mut bytes)?;
            if bytes.len() > MAX_BYTES {
                return Err(MultiaddrError::TooLong(bytes.len()));
            }
        }
        Ok(Self(bytes.into()))
    }
}

/// Parses one component off the front of `text` into `bytes`; returns what comes after its slash.
fn parse_component<'t>(text: &'t str, bytes: &mut Vec<u8>) -> Result<Option<&'t str>, MultiaddrError> {
    let (name, rest) = split(text);
    if let Some(code) = name.strip_prefix(UNKNOWN) {
        return parse_unknown(name, code, rest, bytes).map(|()| None);
    }
    let entry = protocol::by_name(name).ok_or_else(|| MultiaddrError::UnknownProtocol(quote(name)))?;
    varint::encode(entry.code, bytes);
    if entry.value == Value::None {
        return Ok(rest);
    }
    let rest = rest.ok_or(MultiaddrError::NoValue { protocol: entry.name })?;
    let (text, rest) = match entry.code {
        // Takes all that is left, unless its slashes are escaped.
        protocol::UNIX if !escaped_path(rest) => (rest, None),
        _ => split(rest),
    };
    let value = parse_value(entry, text).ok_or(MultiaddrError::Value { protocol: entry.name })?;
    // The rules of the binary form hold for text too.
    if binary::from_value(entry.code, &value).is_none() {
        return Err(MultiaddrError::Value { protocol: entry.name });
    }
    if entry.value == Value::Prefixed {
        varint::encode(value.len() as u64, bytes);
    }
    bytes.extend_from_slice(&value);
    Ok(rest)
}

/// `unknown-<code>/<base64url of all that follows the code>`.
fn parse_unknown(
    name: &str,
    code: &str,
    data: Option<&str>,
    bytes: &mut Vec<u8>,
) -> Result<(), MultiaddrError> {
    let refused = || MultiaddrError::UnknownProtocol(quote(name));
    let code = decimal::<u64>(code).filter(|code| *code <= varint::MAX).ok_or_else(refused)?;
    if protocol::by_code(code).is_some() {
        return Err(refused());
    }
    varint::encode(code, bytes);
    let data = data.ok_or(MultiaddrError::NoValue { protocol: "unknown" })?;
    bytes.extend(multibase::decode(data).ok_or(MultiaddrError::Value { protocol: "unknown" })?);
    Ok(())
}

fn parse_value(entry: &Entry, text: &str) -> Option<Vec<u8>> {
    Some(match entry.code {
        protocol::IP4 => text.parse::<std::net::Ipv4Addr>().ok()?.octets().to_vec(),
        protocol::IP6 => text.parse::<std::net::Ipv6Addr>().ok()?.octets().to_vec(),
        protocol::IPCIDR => vec![decimal::<u8>(text)?],
        protocol::TCP | protocol::UDP | protocol::DCCP | protocol::SCTP => {
            decimal::<u16>(text)?.to_be_bytes().to_vec()
        }
        protocol::P2P => text.parse::<PeerId>().ok()?.to_bytes(),
        protocol::ONION | protocol::ONION3 => {
            let (service, port) = text.split_once(':')?;
            let mut bytes = BASE32.decode(&service.to_ascii_lowercase())?;
            bytes.extend_from_slice(&decimal::<u16>(port)?.to_be_bytes());
            bytes
        }
        protocol::GARLIC64 => BASE64_I2P.decode(text)?,
        protocol::GARLIC32 => BASE32.decode(&text.to_ascii_lowercase())?,
        protocol::CERTHASH | protocol::THREAD => multibase::decode(text)?,
        protocol::MEMORY => decimal::<u64>(text)?.to_be_bytes().to_vec(),
        protocol::HTTP_PATH => percent_decode(text)?,
        protocol::UNIX if escaped_path(text) => percent_decode(text)?,
        protocol::UNIX => format!("/{text}").into_bytes(),
        _ => text.as_bytes().to_vec(),
    })
}

impl fmt::Display for Multiaddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        let mut components = self.protocols().peekable();
        while let Some(component) = components.next() {
            write_component(&component, components.peek().is_none(), f)?;
        }
        Ok(())
    }
}

/// The text form of one component, with its leading slash.
impl fmt::Display for Protocol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_component(self, true, f)
    }
}

fn write_component(component: &Protocol<'_>, last: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Protocol::Unknown { code, data } = component {
        return write!(f, "/{UNKNOWN}{code}/{}", multibase::base64url(data));
    }
    write!(f, "/{}", component.name())?;
    match component {
        Protocol::Ip4(ip) => write!(f, "/{ip}"),
        Protocol::Ip6(ip) => write!(f, "/{ip}"),
        Protocol::IpCidr(bits) => write!(f, "/{bits}"),
        Protocol::Tcp(port) | Protocol::Udp(port) | Protocol::Dccp(port) | Protocol::Sctp(port) => {
            write!(f, "/{port}")
        }
        Protocol::Ip6Zone(text)
        | Protocol::Dns(text)
        | Protocol::Dns4(text)
        | Protocol::Dns6(text)
        | Protocol::Dnsaddr(text)
        | Protocol::Sni(text) => write!(f, "/{text}"),
        Protocol::Unix(path) => match path.strip_prefix('/') {
            Some(relative) if last && !escaped_path(relative) => write!(f, "/{relative}"),
            _ => write!(f, "/{}", PercentEncoded(path)),
        },
        Protocol::HttpPath(path) => write!(f, "/{}", PercentEncoded(path)),
        Protocol::P2p(peer) => write!(f, "/{peer}"),
        Protocol::Onion(service, port) => write!(f, "/{}:{port}", BASE32.encode(service)),
        Protocol::Onion3(service, port) => write!(f, "/{}:{port}", BASE32.encode(service)),
        Protocol::Garlic64(bytes) => {
            write!(f, "/{}", BASE64_I2P.encode(bytes))
        }
        Protocol::Garlic32(bytes) => write!(f, "/{}", BASE32.encode(bytes)),
        Protocol::Certhash(hash) => write!(f, "/{}", multibase::base64url(hash.as_bytes())),
        Protocol::Thread(id) => write!(f, "/{}", multibase::base32(id)),
        Protocol::Memory(address) => write!(f, "/{address}"),
        _ => Ok(()),
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    }
}

/// A number as it is written by itself: no sign, no leading zeros.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// Whether the path of a Unix socket is written with its slashes escaped, so that components can follow it.
fn escaped_path(text: &str) -> bool {
    text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2f"))
}

struct PercentEncoded<'a>(&'a str);

impl fmt::Display for PercentEncoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            // RFC 3986, "unreserved".
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        bytes.extend(BASE16.decode(&std::str::from_utf8(digits).ok()?.to_ascii_lowercase())?);
    }
    Some(bytes)
}

/// A name as far as it fits into a message.
fn quote(name: &str) -> String {
    name.chars().take(32).flat_map(char::escape_debug).collect()
}
