//! ICE credentials of WebRTC-direct: how a dialer says in its user name fragment which wire version it speaks.
//!
//! Version 1 (`webrtc/webrtc-direct.md`): one random string behind `libp2p+webrtc+v1/` is ufrag and password of both
//! sides. Version 2 (libp2p/specs pull request 715): the dialer keeps the credentials that its WebRTC stack made for it
//! and puts its password behind `libp2p+webrtc+v2/`; that whole string is ufrag and password of the listener.

use std::{borrow::Borrow, fmt};

use aws_lc_rs::rand;

/// The prefix of version 1.
const V1_PREFIX: &str = "libp2p+webrtc+v1/";
/// The prefix of version 2.
const V2_PREFIX: &str = "libp2p+webrtc+v2/";

/// How a dialer makes itself known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WireVersion {
    /// The dialer sets its own ICE credentials, which browsers are about to forbid.
    V1,
    /// The dialer keeps the credentials that its WebRTC stack made.
    V2,
}

/// An ICE user name fragment or password: RFC 8839 section 5.4, `4*256ice-char`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct IceString(Box<str>);

impl IceString {
    fn new(text: &str, shortest: usize) -> Option<Self> {
        let valid = (shortest..=256).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        valid.then(|| Self(text.into()))
    }

    /// 4 to 256 characters.
    pub(crate) fn ufrag(text: &str) -> Option<Self> {
        Self::new(text, 4)
    }

    /// 22 to 256 characters.
    pub(crate) fn password(text: &str) -> Option<Self> {
        Self::new(text, 22)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a table can be asked with what is in a datagram.
impl Borrow<str> for IceString {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IceString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one side of a session that is negotiated in SDP has said of itself (RFC 8839 section 5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IceCredentials {
    pub(crate) ufrag: IceString,
    pub(crate) password: IceString,
}

impl IceCredentials {
    /// Fresh ones. RFC 8445 section 5.3 wants 24 and 128 bits of randomness; the ufrag has more, for it is also what tells
    /// the sessions of a socket apart.
    pub(crate) fn generate() -> Self {
        Self { ufrag: IceString(random_ice_chars().into()), password: IceString(random_ice_chars().into()) }
    }
}

/// Both sides' credentials of one session, as the USERNAME of a connectivity check tells them to the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) version: WireVersion,
    /// The listener's ufrag, which is its password as well.
    pub(crate) server: IceString,
    pub(crate) client_ufrag: IceString,
    pub(crate) client_password: IceString,
}

impl Credentials {
    /// Reads the USERNAME of a check that reaches a listener: `server ufrag:client ufrag` (RFC 8445 section 7.2.2).
    /// A version that is not known is refused, never guessed.
    pub(crate) fn parse(username: &str) -> Option<Self> {
        let (server, client) = username.split_once(':')?;
        let server = IceString::password(server)?;
        let client_ufrag = IceString::ufrag(client)?;
        if let Some(password) = server.as_str().strip_prefix(V2_PREFIX) {
            let client_password = IceString::password(password)?;
            return Some(Self { version: WireVersion::V2, server, client_ufrag, client_password });
        }
        // webrtc-direct.md, "Browser to public Server", steps 4 and 5: the client's ufrag is its password.
        if server.as_str().starts_with(V1_PREFIX) {
            let client_password = IceString::password(client)?;
            return Some(Self { version: WireVersion::V1, server, client_ufrag, client_password });
        }
        None
    }

    /// Fresh ones for a dial.
    pub(crate) fn generate(version: WireVersion) -> Self {
        match version {
            WireVersion::V1 => {
                let shared = IceString(format!("{V1_PREFIX}{}", random_ice_chars()).into());
                Self {
                    version,
                    server: shared.clone(),
                    client_ufrag: shared.clone(),
                    client_password: shared,
                }
            }
            WireVersion::V2 => {
                let password = random_ice_chars();
                Self {
                    version,
                    server: IceString(format!("{V2_PREFIX}{password}").into()),
                    client_ufrag: IceString(random_ice_chars().into()),
                    client_password: IceString(password.into()),
                }
            }
        }
    }
}

/// 32 characters with 6 bits each.
fn random_ice_chars() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    random::<32>()
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 63)))
        .map(|byte| char::from(*byte))
        .collect()
}

/// Bytes that nobody can foresee. The system's source does not fail once it has worked, and it has worked when the
/// node's identity was made.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if rand::fill(&mut bytes).is_err() {
        tracing::error!("the system's random number generator failed");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn version_1_shares_one_string() {
        let username = "libp2p+webrtc+v1/abcdef:libp2p+webrtc+v1/abcdef";
        let credentials = Credentials::parse(username).unwrap();
        assert_eq!(credentials.version, WireVersion::V1);
        assert_eq!(credentials.client_password, credentials.server);
    }

    #[test]
    fn version_2_carries_the_clients_password() {
        let credentials = Credentials::parse("libp2p+webrtc+v2/0123456789abcdefABCDEF:Yh8q").unwrap();
        assert_eq!(credentials.version, WireVersion::V2);
        assert_eq!(credentials.client_ufrag.as_str(), "Yh8q");
        assert_eq!(credentials.client_password.as_str(), "0123456789abcdefABCDEF");
        assert_eq!(credentials.server.as_str(), "libp2p+webrtc+v2/0123456789abcdefABCDEF");
    }

    #[test]
    fn credentials_that_must_not_reach_a_handshake_are_refused() {
        let long = "a".repeat(257);
        for username in [
            "",
            ":",
            "libp2p+webrtc+v1/abcdef",
            "libp2p+webrtc+v1/abcdef:",
            // Too short for a password.
            "libp2p+webrtc+v1/abcd:libp2p+webrtc+v1/abcd",
            "libp2p+webrtc+v2/0123456789abcdefABCDE:Yh8q",
            // Too short for a ufrag.
            "libp2p+webrtc+v2/0123456789abcdefABCDEF:Yh8",
            "libp2p+webrtc+v1/abcdef:Yh8q",
            // No version that we know.
            "libp2p+webrtc+v3/0123456789abcdefABCDEF:Yh8q",
            "0123456789abcdefABCDEF:Yh8q",
            // No ice-chars.
            "libp2p+webrtc+v2/0123456789abcdefABCDEF:Yh8q\r\na=candidate",
            "libp2p+webrtc+v2/0123456789abcdef-ABCDEF:Yh8q",
            "libp2p+webrtc+v2/0123456789abcdefABCDEF:Yh8q:Yh8q",
            &format!("libp2p+webrtc+v2/{long}:Yh8q"),
            &format!("libp2p+webrtc+v2/0123456789abcdefABCDEF:{long}"),
        ] {
            assert_eq!(Credentials::parse(username), None, "{username:?}");
        }
    }

    #[test]
    fn generated_credentials_are_accepted_and_differ() {
        for version in [WireVersion::V1, WireVersion::V2] {
            let ours = Credentials::generate(version);
            let username = format!("{}:{}", ours.server.as_str(), ours.client_ufrag.as_str());
            assert_eq!(Credentials::parse(&username).as_ref(), Some(&ours));
            assert_ne!(Credentials::generate(version), ours);
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_made_of_ice_chars(username in "(libp2p\\+webrtc\\+v[12]/)?[ -~]{0,40}:[ -~]{0,40}") {
            if let Some(credentials) = Credentials::parse(&username) {
                for part in [&credentials.server, &credentials.client_ufrag, &credentials.client_password] {
                    prop_assert!(part.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b)));
                }
            }
        }
    }
}
