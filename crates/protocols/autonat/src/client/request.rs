//! One request of version 2, from the client's side. autonat-v2 spec, "AutoNAT V2 Protocol".

#![warn(clippy::arithmetic_side_effects)]

use std::mem::discriminant;

use peerloom_core::{Multiaddr, Protocol};

use crate::message::{DialResponse, DialStatus, MAX_ADDRESSES, Message, ResponseStatus};

/// The most that is sent as dial data, in bytes: the most that servers should ask for (autonat-v2 spec, "Amplification
/// Attack Prevention").
pub const MAX_DIAL_DATA: u64 = 100_000;

/// What a server does about a request, step by step.
#[derive(Debug)]
pub struct Request {
    addresses: Vec<Multiaddr>,
    nonce: u64,
    /// The address for which dial data were sent.
    paid: Option<usize>,
}

/// What follows from a message of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of dial data are to be sent; another message comes afterwards.
    SendData(u64),
    /// The server dials none of the addresses.
    Refused,
    /// It has dialed this one.
    Dialed {
        /// The address.
        address: Multiaddr,
        /// Whether it got through, in its own words.
        status: DialStatus,
    },
}

/// Why a server's message does not belong to the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It is of a type that clients send, or was sent a second time.
    #[error("unexpected message")]
    UnexpectedMessage,
    /// There was no address with that number in the request.
    #[error("no address {index} was asked about")]
    NoSuchAddress {
        /// The number.
        index: u32,
    },
    /// The server asks for more dial data than [`MAX_DIAL_DATA`].
    #[error("{bytes} bytes of dial data are too much")]
    TooMuchData {
        /// How much it asks for.
        bytes: u64,
    },
    /// It has taken data for one address and dialed another.
    #[error("not the address was dialed that data were sent for")]
    OtherAddress,
    /// It does not serve the request.
    #[error("the server answers {0:?}")]
    NotServed(ResponseStatus),
    /// A code that is not known. The spec has such responses discarded.
    #[error("the server tells the unknown status {0:?}")]
    UnknownStatus(DialStatus),
}

impl Request {
    /// About these addresses, the one that matters most first; those beyond [`MAX_ADDRESSES`] are left out.
    pub fn new(mut addresses: Vec<Multiaddr>, nonce: u64) -> Self {
        addresses.truncate(MAX_ADDRESSES);
        Self { addresses, nonce, paid: None }
    }

    /// What is sent first.
    pub fn message(&self) -> Message {
        let addresses = self.addresses.iter().cloned().map(Some).collect();
        Message::DialRequest { addresses, nonce: self.nonce }
    }

    /// The server has sent this.
    pub fn received(&mut self, message: Message) -> Result<Step, RequestError> {
        match message {
            Message::DialDataRequest { index, bytes } if self.paid.is_none() => {
                let (at, _) = self.address(index)?;
                if bytes > MAX_DIAL_DATA {
                    return Err(RequestError::TooMuchData { bytes });
                }
                self.paid = Some(at);
                Ok(Step::SendData(bytes))
            }
            Message::DialResponse(response) => self.answered(response),
            _ => Err(RequestError::UnexpectedMessage),
        }
    }

    fn answered(&self, response: DialResponse) -> Result<Step, RequestError> {
        match response.status {
            ResponseStatus::Ok => {}
            ResponseStatus::DialRefused => return Ok(Step::Refused),
            status => return Err(RequestError::NotServed(status)),
        }
        let (at, address) = self.address(response.index)?;
        if self.paid.is_some_and(|paid| paid != at) {
            return Err(RequestError::OtherAddress);
        }
        match response.dial {
            DialStatus::Unused | DialStatus::Other(_) => Err(RequestError::UnknownStatus(response.dial)),
            status => Ok(Step::Dialed { address: address.clone(), status }),
        }
    }

    fn address(&self, index: u32) -> Result<(usize, &Multiaddr), RequestError> {
        let at = usize::try_from(index).map_err(|_| RequestError::NoSuchAddress { index })?;
        Ok((at, self.addresses.get(at).ok_or(RequestError::NoSuchAddress { index })?))
    }
}

/// Whether who dialed `dialed` may have come in at `local`: by the same transport, at least. NATs change the rest.
pub(super) fn is_consistent(local: &Multiaddr, dialed: &Multiaddr) -> bool {
    let (local, dialed) = (services(local), services(dialed));
    let same = |(local, dialed): (&Protocol<'_>, &Protocol<'_>)| match (local, dialed) {
        (Protocol::Ip4(_), Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dnsaddr(_))
        | (Protocol::Ip6(_), Protocol::Dns(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => true,
        _ => discriminant(local) == discriminant(dialed),
    };
    local.len() == dialed.len() && local.iter().zip(&dialed).all(same)
}

/// The components that say how an address is dialed.
fn services(address: &Multiaddr) -> Vec<Protocol<'_>> {
    let mut services = Vec::new();
    for protocol in address.protocols() {
        match protocol {
            Protocol::Certhash(_) | Protocol::P2p(_) | Protocol::Sni(_) => {}
            // On TCP, a listener takes both whatever its address says.
            Protocol::Noise => {}
            Protocol::Wss => services.extend([Protocol::Tls, Protocol::Ws]),
            other => services.push(other),
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Multiaddr {
        address.parse().unwrap()
    }

    fn request() -> Request {
        Request::new(vec![parse("/ip4/1.2.3.4/tcp/1"), parse("/ip4/1.2.3.4/udp/1/quic-v1")], 7)
    }

    fn response(status: ResponseStatus, index: u32, dial: DialStatus) -> Message {
        Message::DialResponse(DialResponse { status, index, dial })
    }

    #[test]
    fn an_answer_tells_which_address_was_dialed() {
        for dial in [DialStatus::Ok, DialStatus::DialError, DialStatus::DialBackError] {
            let step = request().received(response(ResponseStatus::Ok, 1, dial));
            let address = parse("/ip4/1.2.3.4/udp/1/quic-v1");
            assert_eq!(step, Ok(Step::Dialed { address, status: dial }));
        }
        let refused = response(ResponseStatus::DialRefused, 9, DialStatus::Unused);
        assert_eq!(request().received(refused), Ok(Step::Refused));
    }

    #[test]
    fn answers_that_make_no_sense_are_discarded() {
        let ok = ResponseStatus::Ok;
        for (message, error) in [
            (response(ok, 2, DialStatus::Ok), RequestError::NoSuchAddress { index: 2 }),
            (response(ok, 0, DialStatus::Unused), RequestError::UnknownStatus(DialStatus::Unused)),
            (response(ok, 0, DialStatus::Other(7)), RequestError::UnknownStatus(DialStatus::Other(7))),
            (
                response(ResponseStatus::Other(9), 0, DialStatus::Ok),
                RequestError::NotServed(ResponseStatus::Other(9)),
            ),
            (
                response(ResponseStatus::RequestRejected, 0, DialStatus::Ok),
                RequestError::NotServed(ResponseStatus::RequestRejected),
            ),
            (request().message(), RequestError::UnexpectedMessage),
            (Message::DialDataResponse { data: bytes::Bytes::new() }, RequestError::UnexpectedMessage),
            (Message::DialDataRequest { index: 5, bytes: 1 }, RequestError::NoSuchAddress { index: 5 }),
            (
                Message::DialDataRequest { index: 0, bytes: MAX_DIAL_DATA + 1 },
                RequestError::TooMuchData { bytes: MAX_DIAL_DATA + 1 },
            ),
        ] {
            assert_eq!(request().received(message), Err(error));
        }
    }

    #[test]
    fn dial_data_are_sent_once_and_for_the_address_that_is_dialed() {
        let mut paying = request();
        let wanted = Message::DialDataRequest { index: 1, bytes: 30_000 };
        assert_eq!(paying.received(wanted.clone()), Ok(Step::SendData(30_000)));
        assert_eq!(paying.received(wanted), Err(RequestError::UnexpectedMessage));
        let other = response(ResponseStatus::Ok, 0, DialStatus::Ok);
        assert_eq!(paying.received(other), Err(RequestError::OtherAddress));
        assert!(paying.received(response(ResponseStatus::Ok, 1, DialStatus::Ok)).is_ok());
    }

    #[test]
    fn a_dial_back_counts_only_by_the_transport_that_was_asked_for() {
        let certhash = "/certhash/uEiAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw";
        for (local, dialed, consistent) in [
            ("/ip4/10.0.0.2/tcp/1", "/ip4/1.2.3.4/tcp/9", true),
            ("/ip4/10.0.0.2/tcp/1", "/dns4/example.org/tcp/9", true),
            ("/ip4/10.0.0.2/tcp/1/tls/ws", "/dns/example.org/tcp/9/tls/sni/example.org/ws", true),
            ("/ip4/10.0.0.2/tcp/1/tls/ws", "/ip4/1.2.3.4/tcp/9/wss", true),
            (
                "/ip4/10.0.0.2/udp/1/webrtc-direct",
                &format!("/ip4/1.2.3.4/udp/9/webrtc-direct{certhash}"),
                true,
            ),
            ("/ip6/fd00::1/tcp/1", "/ip4/1.2.3.4/tcp/9", false),
            ("/ip4/10.0.0.2/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/9", false),
            ("/ip4/10.0.0.2/udp/1/quic-v1", "/ip4/1.2.3.4/udp/9/quic-v1/webtransport", false),
            ("/ip4/10.0.0.2/tcp/1", "/dns6/example.org/tcp/9", false),
        ] {
            assert_eq!(is_consistent(&parse(local), &parse(dialed)), consistent, "{local} {dialed}");
        }
    }
}
