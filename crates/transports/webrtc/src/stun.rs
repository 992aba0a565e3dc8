//! STUN (RFC 8489), as far as ICE's connectivity checks need it: Binding requests, success and error responses, with
//! short-term credentials and fingerprint.
//!
//! Everything that reaches this module may come from a stranger: parsing is strict, bounded by the datagram, and
//! allocates nothing.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;

/// The longest STUN message that is looked at: RFC 8489 section 6.1 asks senders to stay below the path MTU, and two
/// ICE user names of full length fit well.
pub(crate) const MAX_MESSAGE: usize = 1280;

/// More attributes than any ICE agent sends in a connectivity check.
const MAX_ATTRIBUTES: usize = 24;

const HEADER: usize = 20;
const MAGIC_COOKIE: u32 = 0x2112_A442;
const FINGERPRINT_XOR: u32 = 0x5354_554E;
const MESSAGE_INTEGRITY_LENGTH: usize = 20;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802A;

/// Comprehension-required attributes that a connectivity check may carry and that we can safely not look into:
/// MAPPED-ADDRESS, UNKNOWN-ATTRIBUTES, REALM, NONCE.
const IGNORED: [u16; 4] = [0x0001, 0x000A, 0x0014, 0x0015];

/// What a STUN message is for. Only Binding messages are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Request,
    Success,
    Error,
}

impl Class {
    fn from_type(message_type: u16) -> Option<Self> {
        match message_type {
            0x0001 => Some(Self::Request),
            0x0101 => Some(Self::Success),
            0x0111 => Some(Self::Error),
            _ => None,
        }
    }

    fn message_type(self) -> u16 {
        match self {
            Self::Request => 0x0001,
            Self::Success => 0x0101,
            Self::Error => 0x0111,
        }
    }
}

/// Twelve random bytes that tie a response to its request.
pub(crate) type TransactionId = [u8; 12];

/// The role that the sender of a check believes to have, and the number that settles a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AgentRole {
    Controlling(u64),
    Controlled(u64),
}

/// The number of the error response to a check whose sender has our own role (RFC 8445 section 7.3.1.1).
pub(crate) const ROLE_CONFLICT: u16 = 487;

/// A well-formed Binding message. Who sent it is known only after [`Message::is_from_holder_of`].
#[derive(Debug)]
pub(crate) struct Message<'a> {
    bytes: &'a [u8],
    pub(crate) class: Class,
    pub(crate) transaction_id: TransactionId,
    pub(crate) username: Option<&'a str>,
    pub(crate) use_candidate: bool,
    /// The number of an error response, such as 487 for a role conflict.
    pub(crate) error_code: Option<u16>,
    pub(crate) role: Option<AgentRole>,
    /// The priority that a candidate would have which is learned from this check.
    pub(crate) priority: Option<u32>,
    /// Where the sender of a response saw the request come from.
    pub(crate) mapped_address: Option<SocketAddr>,
    integrity: Option<Integrity<'a>>,
}

#[derive(Debug)]
struct Integrity<'a> {
    /// Where the attribute begins, counted from the start of the message.
    offset: usize,
    tag: &'a [u8],
}

/// Whether a datagram is STUN rather than DTLS or QUIC, by its first byte (RFC 9443).
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

impl<'a> Message<'a> {
    /// `None` for anything that is not a well-formed Binding message of the short-term credential kind: wrong lengths,
    /// a wrong fingerprint, attributes we would have to understand and do not.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > MAX_MESSAGE {
            return None;
        }
        let (header, mut rest) = bytes.split_at_checked(HEADER)?;
        let class = Class::from_type(u16_at(header, 0)?)?;
        // RFC 8489 section 5: the length is that of the attributes, which are padded to four bytes.
        let length = usize::from(u16_at(header, 2)?);
        if length != rest.len() || !length.is_multiple_of(4) || u32_at(header, 4)? != MAGIC_COOKIE {
            return None;
        }
        let transaction_id = header.get(8..HEADER)?.try_into().ok()?;
        let mut message = Self {
            bytes,
            class,
            transaction_id,
            username: None,
            use_candidate: false,
            error_code: None,
            role: None,
            priority: None,
            mapped_address: None,
            integrity: None,
        };
        let mut seen = 0usize;
        while !rest.is_empty() {
            seen = seen.checked_add(1).filter(|seen| *seen <= MAX_ATTRIBUTES)?;
            let offset = bytes.len().checked_sub(rest.len())?;
            let (head, body) = rest.split_at_checked(4)?;
            let kind = u16_at(head, 0)?;
            let length = usize::from(u16_at(head, 2)?);
            let (padded, next) = body.split_at_checked(length.checked_next_multiple_of(4)?)?;
            let value = padded.get(..length)?;
            message.attribute(kind, value, offset)?;
            if kind == FINGERPRINT {
                // RFC 8489 section 14.7: it is the last attribute.
                return next.is_empty().then_some(message);
            }
            rest = next;
        }
        Some(message)
    }

    fn attribute(&mut self, kind: u16, value: &'a [u8], offset: usize) -> Option<()> {
        if kind == FINGERPRINT {
            let expected = crc32(self.bytes.get(..offset)?) ^ FINGERPRINT_XOR;
            return (value.len() == 4 && u32_at(value, 0)? == expected).then_some(());
        }
        // RFC 8489 section 14.5: nothing after MESSAGE-INTEGRITY is protected, and so nothing there counts.
        if self.integrity.is_some() {
            return Some(());
        }
        match kind {
            USERNAME => self.username = Some(std::str::from_utf8(value).ok()?),
            USE_CANDIDATE => self.use_candidate = true,
            ERROR_CODE => {
                let hundreds = u16::from(*value.get(2)? & 0x07);
                let number = u16::from(*value.get(3)?);
                self.error_code = Some(hundreds.checked_mul(100)?.checked_add(number)?);
            }
            MESSAGE_INTEGRITY => {
                if value.len() != MESSAGE_INTEGRITY_LENGTH {
                    return None;
                }
                self.integrity = Some(Integrity { offset, tag: value });
            }
            XOR_MAPPED_ADDRESS => self.mapped_address = Some(address_of(value, self.transaction_id)?),
            PRIORITY => self.priority = Some(u32_at(exactly(value, 4)?, 0)?),
            ICE_CONTROLLED => self.role = Some(AgentRole::Controlled(u64_of(value)?)),
            ICE_CONTROLLING => self.role = Some(AgentRole::Controlling(u64_of(value)?)),
            _ if IGNORED.contains(&kind) || kind >= 0x8000 => {}
            _ => return None,
        }
        Some(())
    }

    /// Whether the message claims to be authentic. Those of STUN servers do not.
    pub(crate) fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Whether the message carries a MESSAGE-INTEGRITY made with `password`.
    pub(crate) fn is_from_holder_of(&self, password: &str) -> bool {
        self.check_integrity(password).unwrap_or(false)
    }

    fn check_integrity(&self, password: &str) -> Option<bool> {
        let integrity = self.integrity.as_ref()?;
        // The tag is computed as if the message ended with it.
        let ends = integrity.offset.checked_add(4)?.checked_add(MESSAGE_INTEGRITY_LENGTH)?;
        let length = u16::try_from(ends.checked_sub(HEADER)?).ok()?;
        let mut protected = self.bytes.get(..integrity.offset)?.to_vec();
        protected.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
        Some(hmac::verify(&key(password), &protected, integrity.tag).is_ok())
    }
}

/// The success response to a connectivity check that came from `remote`, authenticated with our own password.
pub(crate) fn binding_success(transaction_id: TransactionId, remote: SocketAddr, password: &str) -> Vec<u8> {
    let mut message = Builder::new(Class::Success, transaction_id);
    message.attribute(XOR_MAPPED_ADDRESS, &xor_address(remote, transaction_id));
    message.finish(password)
}

/// A connectivity check of a controlling agent that nominates as it goes (RFC 8445 section 8.1.1): there is one pair.
pub(crate) fn binding_request(
    transaction_id: TransactionId,
    username: &str,
    tie_breaker: u64,
    password: &str,
) -> Vec<u8> {
    /// RFC 8445 section 5.1.2.1 for a peer-reflexive candidate: type preference 110, local preference 65535, component 1.
    const CHECK_PRIORITY: u32 = (110 << 24) | (65535 << 8) | 255;
    let mut message = Builder::new(Class::Request, transaction_id);
    message.attribute(USERNAME, username.as_bytes());
    message.attribute(ICE_CONTROLLING, &tie_breaker.to_be_bytes());
    message.attribute(USE_CANDIDATE, &[]);
    message.attribute(PRIORITY, &CHECK_PRIORITY.to_be_bytes());
    message.finish(password)
}

/// A connectivity check of a full agent (RFC 8445 section 7.1). `nominates` is for controlling agents alone.
pub(crate) fn connectivity_check(
    transaction_id: TransactionId,
    username: &str,
    role: AgentRole,
    nominates: bool,
    priority: u32,
    password: &str,
) -> Vec<u8> {
    let mut message = Builder::new(Class::Request, transaction_id);
    message.attribute(USERNAME, username.as_bytes());
    match role {
        AgentRole::Controlling(number) => message.attribute(ICE_CONTROLLING, &number.to_be_bytes()),
        AgentRole::Controlled(number) => message.attribute(ICE_CONTROLLED, &number.to_be_bytes()),
    }
    if nominates {
        message.attribute(USE_CANDIDATE, &[]);
    }
    message.attribute(PRIORITY, &priority.to_be_bytes());
    message.finish(password)
}

/// The answer to a check whose sender has our own role and shall take the other.
pub(crate) fn role_conflict(transaction_id: TransactionId, password: &str) -> Vec<u8> {
    let mut message = Builder::new(Class::Error, transaction_id);
    message.attribute(ERROR_CODE, &[0, 0, 4, 87]);
    message.finish(password)
}

/// What asks a STUN server where we are.
pub(crate) fn server_query(transaction_id: TransactionId) -> Vec<u8> {
    let mut message = Builder::new(Class::Request, transaction_id);
    message.fingerprint();
    message.bytes
}

struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    fn new(class: Class, transaction_id: TransactionId) -> Self {
        let mut bytes = Vec::with_capacity(160);
        bytes.extend_from_slice(&class.message_type().to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        bytes.extend_from_slice(&transaction_id);
        Self { bytes }
    }

    /// `value` comes from this crate and is shorter than 64 KiB.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    /// Writes the header's length as if `more` bytes followed what is there.
    fn set_length(&mut self, more: usize) {
        let length = self.bytes.len().saturating_sub(HEADER).saturating_add(more);
        if let Some(field) = self.bytes.get_mut(2..4) {
            field.copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }

    fn finish(mut self, password: &str) -> Vec<u8> {
        self.set_length(4 + MESSAGE_INTEGRITY_LENGTH);
        let tag = hmac::sign(&key(password), &self.bytes);
        self.attribute(MESSAGE_INTEGRITY, tag.as_ref());
        self.fingerprint();
        self.bytes
    }

    fn fingerprint(&mut self) {
        self.set_length(8);
        let fingerprint = crc32(&self.bytes) ^ FINGERPRINT_XOR;
        self.attribute(FINGERPRINT, &fingerprint.to_be_bytes());
    }
}

/// RFC 8489 section 14.2.
fn xor_address(address: SocketAddr, transaction_id: TransactionId) -> Vec<u8> {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let mask = cookie.iter().chain(transaction_id.iter());
    let [high, low, ..] = cookie;
    let port = address.port() ^ u16::from_be_bytes([high, low]);
    let (family, octets) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut value = vec![0, family];
    value.extend_from_slice(&port.to_be_bytes());
    value.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
    value
}

/// The other way round.
fn address_of(value: &[u8], transaction_id: TransactionId) -> Option<SocketAddr> {
    let [_, family, high, low, octets @ ..] = value else { return None };
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let [cookie_high, cookie_low, ..] = cookie;
    let port = u16::from_be_bytes([high ^ cookie_high, low ^ cookie_low]);
    let mask = cookie.iter().chain(transaction_id.iter());
    let octets: Vec<u8> = octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask).collect();
    let ip = match family {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        2 => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn exactly(bytes: &[u8], length: usize) -> Option<&[u8]> {
    (bytes.len() == length).then_some(bytes)
}

/// CRC-32 as of ITU V.42, bit by bit: the messages are a hundred bytes long and come a few times a minute.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 5769 section 2.1: request with short-term credentials.
    const RFC5769_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    const RFC5769_PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn request_of_rfc_5769_is_understood() {
        let bytes = hex(RFC5769_REQUEST);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.class, Class::Request);
        assert_eq!(message.username, Some("evtj:h6vY"));
        assert!(message.is_from_holder_of(RFC5769_PASSWORD));
        assert!(!message.is_from_holder_of("VOkJxbRl1RmTxUk/WvJxBT"));
    }

    #[test]
    fn response_of_rfc_5769_has_the_address_that_we_would_write() {
        // Section 2.2, without its SOFTWARE attribute: 192.0.2.1:32853.
        let id = hex("b7e7a701bc34d686fa87dfae").try_into().unwrap();
        assert_eq!(xor_address("192.0.2.1:32853".parse().unwrap(), id), hex("0001a147e112a643"));
        let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        assert_eq!(xor_address(v6, id), hex("0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"));
    }

    #[test]
    fn addresses_survive_being_masked() {
        for address in ["192.0.2.1:32853", "[2001:db8::1]:9", "0.0.0.0:0"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(address_of(&xor_address(address, [3; 12]), [3; 12]), Some(address));
        }
        assert_eq!(address_of(&[0, 1, 0, 0, 1, 2, 3], [3; 12]), None);
        assert_eq!(address_of(&[0, 3, 0, 0, 1, 2, 3, 4], [3; 12]), None);
        assert_eq!(address_of(&[0, 1, 0], [3; 12]), None);
    }

    #[test]
    fn checks_of_full_agents_say_their_role_and_priority() {
        for role in [AgentRole::Controlling(7), AgentRole::Controlled(u64::MAX)] {
            let bytes = connectivity_check([7; 12], "a:b", role, true, 99, "pw");
            let message = Message::parse(&bytes).unwrap();
            assert_eq!((message.role, message.priority), (Some(role), Some(99)));
            assert!(message.use_candidate && message.is_from_holder_of("pw"));
        }
        let bytes = role_conflict([7; 12], "pw");
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class, message.error_code), (Class::Error, Some(ROLE_CONFLICT)));
        let bytes = server_query([7; 12]);
        let message = Message::parse(&bytes).unwrap();
        assert!(!message.has_integrity() && !message.is_from_holder_of(""));
    }

    #[test]
    fn own_messages_parse() {
        let bytes = binding_request([7; 12], "server:client", 42, "a password of 22 chars");
        let message = Message::parse(&bytes).unwrap();
        assert!(message.use_candidate && message.is_from_holder_of("a password of 22 chars"));
        let bytes = binding_success([7; 12], "[::1]:9".parse().unwrap(), "pw");
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class, message.transaction_id), (Class::Success, [7; 12]));
        assert!(message.is_from_holder_of("pw"));
    }

    #[test]
    fn message_with_one_bit_changed_is_not_authentic() {
        let bytes = binding_request([7; 12], "server:client", 42, "pw");
        // The fingerprint at the end detects accidents; it is not protected, and its place counts for nothing.
        for bit in 0..(bytes.len() - 8) * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !Message::parse(&changed).is_some_and(|message| message.is_from_holder_of("pw")),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn attribute_that_must_be_understood_and_is_not_refuses_the_message() {
        let mut message = Builder::new(Class::Request, [1; 12]);
        message.attribute(0x7ABC, b"what?");
        assert!(Message::parse(&message.finish("pw")).is_none());
        let mut message = Builder::new(Class::Request, [1; 12]);
        message.attribute(0xFABC, b"whatever");
        assert!(Message::parse(&message.finish("pw")).is_some());
    }

    #[test]
    fn too_many_attributes_are_refused() {
        let mut message = Builder::new(Class::Request, [1; 12]);
        for _ in 0..MAX_ATTRIBUTES {
            message.attribute(0xFABC, &[]);
        }
        assert!(Message::parse(&message.finish("pw")).is_none());
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = hex(RFC5769_REQUEST);
        for length in 0..bytes.len() {
            assert!(Message::parse(&bytes[..length]).is_none());
        }
    }

    proptest! {
        #[test]
        fn nothing_a_stranger_sends_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(message) = Message::parse(&bytes) {
                message.is_from_holder_of("pw");
            }
        }

        #[test]
        fn no_attributes_a_stranger_sends_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = vec![0, 1];
            bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
            bytes.extend_from_slice(&[9; 12]);
            bytes.extend_from_slice(&body);
            if let Some(message) = Message::parse(&bytes) {
                message.is_from_holder_of("pw");
            }
        }
    }
}
