//! Where sockets of this machine are: the daemon's own, and those of its clients.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use peerloom_core::{Multiaddr, MultiaddrError, Protocol};

/// A socket that nobody outside of this machine reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LocalAddress {
    /// `/unix/<path>`
    Unix(PathBuf),
    /// `/ip4/127.…/tcp/<port>` or `/ip6/::1/tcp/<port>`
    Tcp(SocketAddr),
}

/// Why an address is not one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AddressError {
    /// It is no address at all.
    #[error(transparent)]
    Multiaddr(#[from] MultiaddrError),
    /// It is neither `/unix/…` nor an IP address with a TCP port.
    #[error("{0} is neither /unix/<path> nor /ip4/127.0.0.1/tcp/<port>")]
    Form(Multiaddr),
    /// Others than this machine's users could be there. Nothing is encrypted, and nobody is asked who they are.
    #[error("{0} is not on loopback")]
    NotLoopback(Multiaddr),
}

impl LocalAddress {
    pub(super) fn unix(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

impl TryFrom<&Multiaddr> for LocalAddress {
    type Error = AddressError;
    fn try_from(address: &Multiaddr) -> Result<Self, AddressError> {
        let mut protocols = address.protocols();
        let (first, second, more) = (protocols.next(), protocols.next(), protocols.next());
        let tcp = match (first, second, more) {
            (Some(Protocol::Unix(path)), None, None) => return Ok(Self::Unix(path.as_ref().into())),
            (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port)), None) => SocketAddr::from((ip, port)),
            (Some(Protocol::Ip6(ip)), Some(Protocol::Tcp(port)), None) => SocketAddr::from((ip, port)),
            _ => return Err(AddressError::Form(address.clone())),
        };
        if !tcp.ip().is_loopback() {
            return Err(AddressError::NotLoopback(address.clone()));
        }
        Ok(Self::Tcp(tcp))
    }
}

impl FromStr for LocalAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::try_from(&text.parse::<Multiaddr>()?)
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "/unix{}", path.display()),
            Self::Tcp(SocketAddr::V4(tcp)) => write!(f, "/ip4/{}/tcp/{}", tcp.ip(), tcp.port()),
            Self::Tcp(SocketAddr::V6(tcp)) => write!(f, "/ip6/{}/tcp/{}", tcp.ip(), tcp.port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_this_machine_are_written_as_they_are_read() {
        for text in ["/unix/run/peerloom.sock", "/ip4/127.0.0.1/tcp/5001", "/ip6/::1/tcp/0"] {
            assert_eq!(text.parse::<LocalAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn addresses_that_others_reach_and_other_transports_are_refused() {
        for text in ["/ip4/0.0.0.0/tcp/1", "/ip4/192.0.2.1/tcp/1", "/ip6/::/tcp/1"] {
            let error = text.parse::<LocalAddress>().unwrap_err();
            assert_eq!(error.to_string(), format!("{text} is not on loopback"));
        }
        for text in
            ["/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/tcp/1/ws", "/dns4/localhost/tcp/1", "/ip4/127.0.0.1"]
        {
            assert!(matches!(text.parse::<LocalAddress>(), Err(AddressError::Form(_))), "{text}");
        }
        assert!(matches!("nonsense".parse::<LocalAddress>(), Err(AddressError::Multiaddr(_))));
    }
}
