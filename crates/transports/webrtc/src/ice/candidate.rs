//! Candidates (RFC 8445 section 5.1), and how they are written (RFC 8839 section 5.1).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The longest candidate that is read: a browser's have about 150 characters.
pub(crate) const MAX_CANDIDATE_LENGTH: usize = 1024;

/// How an agent came to know an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Host,
    ServerReflexive,
    PeerReflexive,
    Relayed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relayed => "relay",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Host, Self::ServerReflexive, Self::PeerReflexive, Self::Relayed]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// RFC 8445 section 5.1.2.2.
    fn preference(self) -> u32 {
        match self {
            Self::Host => 126,
            Self::PeerReflexive => 110,
            Self::ServerReflexive => 100,
            Self::Relayed => 0,
        }
    }
}

/// An address at which an agent may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) address: SocketAddr,
    pub(crate) kind: Kind,
    pub(crate) priority: u32,
    /// What the address is a reflection of.
    pub(crate) base: Option<SocketAddr>,
}

/// What somebody wrote in place of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an ICE candidate")]
pub(crate) struct InvalidCandidate;

impl Candidate {
    /// One of ours; `rank` is its place among our addresses, the best first.
    pub(crate) fn local(address: SocketAddr, kind: Kind, rank: u8, base: Option<SocketAddr>) -> Self {
        Self { address, kind, priority: priority(kind, u16::MAX.saturating_sub(rank.into())), base }
    }

    /// Reads `candidate:…`. `None` for one that is of no use here: TCP, a name (mDNS hides a browser's addresses behind
    /// those; its checks reach us all the same), another component than the first.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, InvalidCandidate> {
        let fields = text.strip_prefix("candidate:").filter(|_| text.len() <= MAX_CANDIDATE_LENGTH);
        let mut fields = fields.ok_or(InvalidCandidate)?.split_ascii_whitespace();
        let mut next = || fields.next().ok_or(InvalidCandidate);
        let _foundation = next()?;
        let component: u16 = next()?.parse().map_err(|_| InvalidCandidate)?;
        let transport = next()?;
        let priority: u32 = next()?.parse().map_err(|_| InvalidCandidate)?;
        let host = next()?;
        let port: u16 = next()?.parse().map_err(|_| InvalidCandidate)?;
        if next()? != "typ" {
            return Err(InvalidCandidate);
        }
        let kind = Kind::parse(next()?);
        let (Some(kind), Ok(ip)) = (kind, host.parse::<IpAddr>()) else { return Ok(None) };
        if component != 1 || !transport.eq_ignore_ascii_case("udp") {
            return Ok(None);
        }
        Ok(Some(Self { address: SocketAddr::new(ip.to_canonical(), port), kind, priority, base: None }))
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 8445 section 5.1.1.3: one foundation for each kind and family. Our socket is one.
        let family = if self.address.is_ipv4() { 4 } else { 6 };
        let foundation = self.kind.preference().saturating_mul(10).saturating_add(family);
        let (ip, port) = (self.address.ip(), self.address.port());
        let (priority, kind) = (self.priority, self.kind.name());
        write!(f, "candidate:{foundation} 1 udp {priority} {ip} {port} typ {kind}")?;
        match self.base {
            Some(base) => write!(f, " raddr {} rport {}", base.ip(), base.port()),
            None => Ok(()),
        }
    }
}

/// RFC 8445 section 5.1.2.1, of the first component.
fn priority(kind: Kind, local_preference: u16) -> u32 {
    (kind.preference() << 24) | (u32::from(local_preference) << 8) | 255
}

/// The PRIORITY of checks sent to `remote`: that of the peer-reflexive candidate which the remote may learn from them.
pub(crate) fn check_priority(remote: SocketAddr) -> u32 {
    priority(Kind::PeerReflexive, if remote.is_ipv6() { u16::MAX } else { u16::MAX.saturating_sub(1) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn candidates_of_browsers_are_understood() {
        // Chromium, Firefox, libdatachannel.
        for (text, address, kind) in [
            (
                "candidate:842163049 1 udp 1677729535 203.0.113.7 60769 typ srflx raddr 0.0.0.0 rport 0 generation 0 ufrag 4OEp network-cost 999",
                "203.0.113.7:60769",
                Kind::ServerReflexive,
            ),
            ("candidate:0 1 UDP 2122252543 192.0.2.4 41006 typ host", "192.0.2.4:41006", Kind::Host),
            ("candidate:2 1 UDP 2114977535 2001:db8::7 5000 typ host", "[2001:db8::7]:5000", Kind::Host),
            ("candidate:2 1 UDP 1 ::ffff:192.0.2.1 5000 typ prflx", "192.0.2.1:5000", Kind::PeerReflexive),
        ] {
            let candidate = Candidate::parse(text).unwrap().unwrap();
            assert_eq!((candidate.address, candidate.kind), (address.parse().unwrap(), kind));
        }
    }

    #[test]
    fn candidates_of_no_use_are_passed_over() {
        for text in [
            "candidate:1 1 udp 2113937151 7d1f0f3c-1f0e-4b55-9b0f-7a4c2f0c3e1d.local 51234 typ host generation 0",
            "candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active",
            "candidate:1 2 udp 2113937151 192.0.2.1 51234 typ host",
            "candidate:1 1 udp 2113937151 192.0.2.1 51234 typ quantum",
        ] {
            assert_eq!(Candidate::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_is_no_candidate_is_refused() {
        let long = format!("candidate:1 1 udp 1 192.0.2.1 1 typ host {}", "x".repeat(MAX_CANDIDATE_LENGTH));
        for text in [
            "",
            "candidate:",
            "1 1 udp 2113937151 192.0.2.1 51234 typ host",
            "candidate:1 1 udp 2113937151 192.0.2.1 51234",
            "candidate:1 1 udp 2113937151 192.0.2.1 65536 typ host",
            "candidate:1 1 udp -1 192.0.2.1 51234 typ host",
            "candidate:1 1 udp 2113937151 192.0.2.1 51234 type host",
            &long,
        ] {
            assert_eq!(Candidate::parse(text), Err(InvalidCandidate), "{text}");
        }
    }

    #[test]
    fn own_candidates_are_understood_and_ranked() {
        let host = Candidate::local("192.0.2.1:7".parse().unwrap(), Kind::Host, 0, None);
        let second = Candidate::local("192.0.2.2:7".parse().unwrap(), Kind::Host, 1, None);
        let base = Some(host.address);
        let reflexive = Candidate::local("203.0.113.1:8".parse().unwrap(), Kind::ServerReflexive, 0, base);
        assert!(host.priority > second.priority && second.priority > reflexive.priority);
        for candidate in [host, second, reflexive] {
            let parsed = Candidate::parse(&candidate.to_string()).unwrap().unwrap();
            assert_eq!(parsed, Candidate { base: None, ..candidate });
        }
        assert_eq!(host.to_string(), "candidate:1264 1 udp 2130706431 192.0.2.1 7 typ host");
    }

    proptest! {
        #[test]
        fn nothing_a_remote_writes_panics(text in "(candidate:)?[ -~]{0,120}") {
            let _ = Candidate::parse(&text);
        }
    }
}
