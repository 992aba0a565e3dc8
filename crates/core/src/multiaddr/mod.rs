//! [`Multiaddr`]: where and how a peer is reached.

mod binary;
mod protocol;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;

use bytes::Bytes;

pub use protocol::Protocol;

use crate::{peer_id::PeerId, varint::VarintError};

/// The longest address that is taken from a remote or from text, in bytes of the binary form. The longest in use, a relayed
/// WebTransport address, has some 250; an I2P destination has 400 to 600.
pub const MAX_BYTES: usize = 2048;

/// The most components of an address that is taken from a remote or from text. The longest in use has about 12.
pub const MAX_COMPONENTS: usize = 64;

/// An address made of protocols, such as `/ip4/192.0.2.1/udp/4001/quic-v1`. Cheap to clone.
///
/// Protocols that we do not know are kept as they came: such an address can be stored, compared, shown and passed on,
/// and only dialing it fails. Its text form is `/…/unknown-<code>/<base64url of the rest of the address>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Multiaddr(Bytes);

/// Why text or bytes are not a [`Multiaddr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultiaddrError {
    /// There is nothing.
    #[error("multiaddr is empty")]
    Empty,
    /// The binary form is longer than [`MAX_BYTES`], or the text longer than any text of such an address.
    #[error("multiaddr of {0} bytes is too long")]
    TooLong(usize),
    /// It has more than [`MAX_COMPONENTS`].
    #[error("multiaddr has more than {MAX_COMPONENTS} components")]
    TooManyComponents,
    /// Text that does not start with a slash.
    #[error("multiaddr does not start with a slash")]
    NoSlash,
    /// Text with a protocol name that is not in the table.
    #[error("multiaddr has an unknown protocol \"{0}\"")]
    UnknownProtocol(String),
    /// Text that ends where the value of a protocol must come.
    #[error("multiaddr: {protocol} has no value")]
    NoValue {
        /// The protocol.
        protocol: &'static str,
    },
    /// The value cannot be one of this protocol.
    #[error("multiaddr: malformed value of {protocol}")]
    Value {
        /// The protocol.
        protocol: &'static str,
    },
    /// A code, a length or a value is cut short.
    #[error("multiaddr: {0}")]
    Varint(#[from] VarintError),
}

impl Multiaddr {
    /// The address that has no components yet.
    pub const fn empty() -> Self {
        Self(Bytes::new())
    }

    /// Parses the binary form, copying it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MultiaddrError> {
        Self::check(bytes)?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }

    fn check(bytes: &[u8]) -> Result<(), MultiaddrError> {
        if bytes.is_empty() {
            return Err(MultiaddrError::Empty);
        }
        if bytes.len() > MAX_BYTES {
            return Err(MultiaddrError::TooLong(bytes.len()));
        }
        let mut rest = bytes;
        let mut count = 0usize;
        while !rest.is_empty() {
            count = count.saturating_add(1);
            if count > MAX_COMPONENTS {
                return Err(MultiaddrError::TooManyComponents);
            }
            (_, rest) = binary::decode(rest)?;
        }
        Ok(())
    }

    /// The address of these components, in this order. See [`with`](Self::with).
    pub fn from_protocols<'a>(protocols: impl IntoIterator<Item = Protocol<'a>>) -> Self {
        let mut bytes = Vec::with_capacity(64);
        for protocol in protocols {
            binary::encode(&protocol, &mut bytes);
        }
        Self(bytes.into())
    }

    /// The address with one more component at its end.
    ///
    /// The caps are for what others send, not for what is put together here. A value that is none (a DNS name with a
    /// slash in it) makes an address that others refuse, and that no transport dials; nothing can follow
    /// [`Protocol::Unknown`].
    pub fn with(&self, protocol: Protocol<'_>) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_add(48));
        bytes.extend_from_slice(&self.0);
        binary::encode(&protocol, &mut bytes);
        Self(bytes.into())
    }

    /// The components. One that is not valid, which only [`with`](Self::with) can bring about, is the last and
    /// [`Protocol::Unknown`].
    pub fn protocols(&self) -> Protocols<'_> {
        Protocols(&self.0)
    }

    /// The binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Whether it has no components.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The peer that the address leads to: that of a `/p2p/…` at its very end.
    pub fn peer_id(&self) -> Option<PeerId> {
        self.split_peer_id().1
    }

    /// The address without a `/p2p/…` at its very end.
    pub fn without_peer_id(&self) -> Self {
        Self(self.0.slice(..self.split_peer_id().0))
    }

    /// The address with `/p2p/<peer>` at its end, in the place of one that was there.
    pub fn with_peer_id(&self, peer: PeerId) -> Self {
        self.without_peer_id().with(Protocol::P2p(peer))
    }

    /// Whether the address leads over a relay.
    pub fn is_relayed(&self) -> bool {
        self.protocols().any(|protocol| protocol == Protocol::P2pCircuit)
    }

    /// The length of what comes before a final `/p2p/…`, or of all, and the peer id of that component.
    fn split_peer_id(&self) -> (usize, Option<PeerId>) {
        let mut protocols = self.protocols();
        let mut last = (self.0.len(), None);
        loop {
            let start = self.0.len().saturating_sub(protocols.0.len());
            last = match protocols.next() {
                Some(Protocol::P2p(peer)) => (start, Some(peer)),
                Some(_) => (self.0.len(), None),
                None => return last,
            };
        }
    }
}

/// The components of a [`Multiaddr`].
#[derive(Debug, Clone)]
pub struct Protocols<'a>(&'a [u8]);

impl<'a> Iterator for Protocols<'a> {
    type Item = Protocol<'a>;

    fn next(&mut self) -> Option<Protocol<'a>> {
        if self.0.is_empty() {
            return None;
        }
        match binary::decode(self.0) {
            Ok((protocol, rest)) => {
                self.0 = rest;
                Some(protocol)
            }
            Err(_) => {
                let data = std::borrow::Cow::Borrowed(std::mem::take(&mut self.0));
                Some(Protocol::Unknown { code: 0, data })
            }
        }
    }
}

impl fmt::Debug for Multiaddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<std::net::IpAddr> for Multiaddr {
    fn from(ip: std::net::IpAddr) -> Self {
        Self::from_protocols([Protocol::from(ip)])
    }
}

impl From<std::net::IpAddr> for Protocol<'_> {
    fn from(ip: std::net::IpAddr) -> Self {
        match ip {
            std::net::IpAddr::V4(ip) => Self::Ip4(ip),
            std::net::IpAddr::V6(ip) => Self::Ip6(ip),
        }
    }
}

/// The binary form, kept without a copy.
impl TryFrom<Bytes> for Multiaddr {
    type Error = MultiaddrError;
    fn try_from(bytes: Bytes) -> Result<Self, MultiaddrError> {
        Self::check(&bytes)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<&str> for Multiaddr {
    type Error = MultiaddrError;
    fn try_from(text: &str) -> Result<Self, MultiaddrError> {
        text.parse()
    }
}
