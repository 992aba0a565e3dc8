//! WebSocket: the browser's socket as a byte pipe, secured and multiplexed by [`peerloom_upgrade`].

mod pipe;

use peerloom_core::{
    Connection, DialError, Keypair, ListenError, Listener, Multiaddr, Protocol, Transport, runtime::BoxFuture,
};
use peerloom_upgrade::upgrade_outbound;
use wasm_bindgen::JsCast;

use crate::{
    js,
    transports::address::{cannot_listen, unsupported, url_host},
};
use pipe::WebSocketPipe;

/// Dials `/ip4|ip6|dns*/…/tcp/…/ws`, and `/tls/ws` or `/wss`.
pub struct WebSocketTransport {
    identity: Keypair,
}

impl WebSocketTransport {
    /// A transport that proves to be `identity`.
    pub fn new(identity: Keypair) -> Self {
        Self { identity }
    }
}

impl Transport for WebSocketTransport {
    fn can_dial(&self, address: &Multiaddr) -> bool {
        Target::parse(address).is_some()
    }

    fn can_listen(&self, _: &Multiaddr) -> bool {
        false
    }

    fn dial(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Connection>, DialError>> {
        let identity = self.identity.clone();
        Box::pin(async move {
            let Some(target) = Target::parse(&address) else {
                return Err(unsupported(address, "not a WebSocket address"));
            };
            if target.is_mixed_content() {
                return Err(unsupported(
                    address,
                    "a page that came over https may only open secure WebSockets (/tls/ws) to other machines",
                ));
            }
            let pipe = WebSocketPipe::open(&target.url)
                .await
                .map_err(|reason| DialError::Unreachable { address: address.clone(), reason })?;
            upgrade_outbound(pipe, &identity, address.clone())
                .await
                .map_err(|source| DialError::Handshake { address, source })
        })
    }

    fn listen(&self, address: Multiaddr) -> BoxFuture<'static, Result<Box<dyn Listener>, ListenError>> {
        cannot_listen(address)
    }
}

/// What a WebSocket address says.
struct Target {
    url: String,
    secure: bool,
    /// The page's own machine, to which browsers allow what they otherwise do not.
    loopback: bool,
}

impl Target {
    fn parse(address: &Multiaddr) -> Option<Self> {
        let mut protocols = address.protocols();
        let host = protocols.next()?;
        let loopback = match &host {
            Protocol::Ip4(ip) => ip.is_loopback(),
            Protocol::Ip6(ip) => ip.is_loopback(),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name == "localhost",
            _ => false,
        };
        let mut host = url_host(&host)?;
        let Protocol::Tcp(port) = protocols.next()? else { return None };
        let mut next = protocols.next()?;
        let mut secure = false;
        if let Protocol::Tls = next {
            secure = true;
            next = protocols.next()?;
            // The name that the certificate is for. A browser takes it from the URL, and resolves it to the same host.
            if let Protocol::Sni(name) = &next {
                host = name.to_string();
                next = protocols.next()?;
            }
        }
        match next {
            Protocol::Ws => {}
            Protocol::Wss => secure = true,
            _ => return None,
        }
        match protocols.next() {
            None => {}
            // Something after the peer id makes it a relayed address.
            Some(Protocol::P2p(_)) if protocols.next().is_none() => {}
            Some(_) => return None,
        }
        let scheme = if secure { "wss://" } else { "ws://" };
        Some(Self { url: [scheme, &host, ":", &port.to_string(), "/"].concat(), secure, loopback })
    }

    /// Browsers refuse these, each in its own words or in none (W3C "Mixed Content").
    fn is_mixed_content(&self) -> bool {
        let location = js::property(&js_sys::global(), "location");
        let https = location.is_object() && js::property(location.unchecked_ref(), "protocol") == "https:";
        https && !self.secure && !self.loopback
    }
}
