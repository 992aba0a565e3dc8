//! The parts that the browser transports' addresses have in common.

use peerloom_core::{DialError, ListenError, Multiaddr, Protocol, runtime::BoxFuture};

/// A host as it stands in a URL (RFC 3986: IPv6 in brackets).
pub(super) fn url_host(protocol: &Protocol<'_>) -> Option<String> {
    match protocol {
        Protocol::Ip4(ip) => Some(ip.to_string()),
        Protocol::Ip6(ip) => Some(["[", &ip.to_string(), "]"].concat()),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => Some(name.to_string()),
        _ => None,
    }
}

pub(super) fn unsupported(address: Multiaddr, reason: &'static str) -> DialError {
    DialError::UnsupportedAddress { address, reason }
}

/// What every one of these transports answers to `listen`.
pub(super) fn cannot_listen<T: 'static>(address: Multiaddr) -> BoxFuture<'static, Result<T, ListenError>> {
    Box::pin(async {
        Err(ListenError::UnsupportedAddress { address, reason: "a web page cannot accept connections there" })
    })
}
