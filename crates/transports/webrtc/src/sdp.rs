//! Session descriptions (RFC 8866) of connections that have one data channel section and nothing else (RFC 8841), and ICE
//! candidates as browsers write them in JSON.
//!
//! They come from a peer that the relayed connection has authenticated, and that may still mean harm. Lines that are not
//! understood are passed over, and nothing of a remote's gets into a description of ours but its checked `mid`.

use std::fmt::Write;

use peerloom_core::Multihash;
use serde::{Deserialize, Serialize};

use crate::{
    ice::candidate::{Candidate, InvalidCandidate, MAX_CANDIDATE_LENGTH},
    limits,
    ufrag::{IceCredentials, IceString, random},
};

/// The port that SCTP has inside of DTLS: all of WebRTC uses this one.
const SCTP_PORT: u16 = 5000;

/// The longest identification of a section that is taken (RFC 5888 has no bound; browsers write one digit).
const MAX_MID: usize = 32;

/// Fingerprints of one description that are kept.
const MAX_FINGERPRINTS: usize = 8;

/// The largest message that every libp2p peer must be able to receive (webrtc/README.md, "Multiplexing").
const LIBP2P_MESSAGE: u64 = 16 * 1024;

/// Who begins the DTLS handshake (RFC 8842 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setup {
    /// Of an offer: as the other side likes.
    ActPass,
    /// The one who says so.
    Active,
    /// The other one.
    Passive,
}

impl Setup {
    fn name(self) -> &'static str {
        match self {
            Self::ActPass => "actpass",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// What one end of a connection says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) credentials: IceCredentials,
    /// What the certificate must hash to, one of these.
    pub(crate) fingerprints: Vec<Multihash>,
    pub(crate) setup: Setup,
    /// The name of the one section.
    pub(crate) mid: String,
    /// Whether it is in a group, as everything in WebRTC is.
    pub(crate) is_bundled: bool,
    /// Whether the agent sends no checks of its own.
    pub(crate) is_lite: bool,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) ends_candidates: bool,
}

/// Why a description is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidDescription {
    #[error("the description is longer than {} bytes", limits::MAX_DESCRIPTION)]
    TooLong,
    #[error("not a session description")]
    NotSdp,
    #[error("the description has no data channel section, or more sections than that")]
    Sections,
    #[error("the description has no {0}")]
    Missing(&'static str),
    #[error("the description's {0} is of no use")]
    Unusable(&'static str),
}

impl Description {
    /// Reads what a browser, libdatachannel or this crate has written.
    pub(crate) fn parse(sdp: &str) -> Result<Self, InvalidDescription> {
        if sdp.len() > limits::MAX_DESCRIPTION {
            return Err(InvalidDescription::TooLong);
        }
        let mut lines = sdp.lines().map(str::trim_end);
        if lines.next() != Some("v=0") {
            return Err(InvalidDescription::NotSdp);
        }
        let mut parser = Parser::default();
        for line in lines {
            parser.line(line)?;
        }
        parser.finish()
    }

    /// The text.
    pub(crate) fn write(&self) -> String {
        let mut sdp = String::with_capacity(1024);
        let session = u64::from_be_bytes(random()) >> 1;
        let mid = &self.mid;
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = sdp.write_fmt(line);
            sdp.push_str("\r\n");
        };
        line(format_args!("v=0"));
        line(format_args!("o=- {session} 2 IN IP4 127.0.0.1"));
        line(format_args!("s=-"));
        line(format_args!("t=0 0"));
        if self.is_bundled {
            line(format_args!("a=group:BUNDLE {mid}"));
        }
        line(format_args!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel"));
        line(format_args!("c=IN IP4 0.0.0.0"));
        line(format_args!("a=mid:{mid}"));
        line(format_args!("a=ice-ufrag:{}", self.credentials.ufrag.as_str()));
        line(format_args!("a=ice-pwd:{}", self.credentials.password.as_str()));
        line(format_args!("a=ice-options:trickle"));
        for fingerprint in &self.fingerprints {
            let hex: Vec<_> = fingerprint.digest().iter().map(|byte| format!("{byte:02X}")).collect();
            line(format_args!("a=fingerprint:sha-256 {}", hex.join(":")));
        }
        line(format_args!("a=setup:{}", self.setup.name()));
        line(format_args!("a=sctp-port:{SCTP_PORT}"));
        line(format_args!("a=max-message-size:{}", limits::MAX_RECEIVED_MESSAGE));
        for candidate in &self.candidates {
            line(format_args!("a={candidate}"));
        }
        if self.ends_candidates {
            line(format_args!("a=end-of-candidates"));
        }
        sdp
    }
}

/// What was read so far. What the section says goes before what the session says.
#[derive(Default)]
struct Parser {
    in_section: bool,
    ufrag: Option<IceString>,
    password: Option<IceString>,
    fingerprints: Vec<Multihash>,
    setup: Option<Setup>,
    mid: Option<String>,
    is_bundled: bool,
    is_lite: bool,
    candidates: Vec<Candidate>,
    ends_candidates: bool,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), InvalidDescription> {
        if let Some(media) = line.strip_prefix("m=") {
            return self.section(media);
        }
        let Some(attribute) = line.strip_prefix("a=") else { return Ok(()) };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "ice-ufrag" => {
                let ufrag = IceString::ufrag(value).ok_or(InvalidDescription::Unusable("ice-ufrag"))?;
                self.ufrag = Some(ufrag);
            }
            "ice-pwd" => {
                let password = IceString::password(value).ok_or(InvalidDescription::Unusable("ice-pwd"))?;
                self.password = Some(password);
            }
            "fingerprint" => self.fingerprint(value)?,
            "setup" => {
                let known = [Setup::ActPass, Setup::Active, Setup::Passive];
                let setup = known.into_iter().find(|setup| setup.name() == value);
                self.setup = Some(setup.ok_or(InvalidDescription::Unusable("setup"))?);
            }
            "mid" => {
                let valid = !value.is_empty()
                    && value.len() <= MAX_MID
                    && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
                self.mid = Some(value.to_owned()).filter(|_| valid);
                if !valid {
                    return Err(InvalidDescription::Unusable("mid"));
                }
            }
            "group" => self.is_bundled |= value.starts_with("BUNDLE"),
            "ice-lite" => self.is_lite = true,
            "sctp-port" if value.parse() != Ok(SCTP_PORT) => {
                return Err(InvalidDescription::Unusable("sctp-port"));
            }
            "max-message-size" => {
                let size = value.parse::<u64>();
                // Zero stands for any size.
                if !size.is_ok_and(|size| size == 0 || size >= LIBP2P_MESSAGE) {
                    return Err(InvalidDescription::Unusable("max-message-size"));
                }
            }
            "candidate" if self.candidates.len() < limits::MAX_REMOTE_CANDIDATES => {
                self.candidates.extend(Candidate::parse(attribute).ok().flatten());
            }
            "end-of-candidates" => self.ends_candidates = true,
            _ => {}
        }
        Ok(())
    }

    fn section(&mut self, media: &str) -> Result<(), InvalidDescription> {
        let mut fields = media.split_ascii_whitespace();
        let is_ours = matches!(
            (fields.next(), fields.next(), fields.next(), fields.next()),
            (
                Some("application"),
                Some(port),
                Some("UDP/DTLS/SCTP" | "TCP/DTLS/SCTP"),
                Some("webrtc-datachannel"),
            ) if port != "0"
        );
        if !is_ours || std::mem::replace(&mut self.in_section, true) {
            return Err(InvalidDescription::Sections);
        }
        Ok(())
    }

    /// SHA-256 and no other: what all of WebRTC uses, and what is compared with.
    fn fingerprint(&mut self, value: &str) -> Result<(), InvalidDescription> {
        let Some((hash, hex)) = value.split_once(' ') else {
            return Err(InvalidDescription::Unusable("fingerprint"));
        };
        if !hash.eq_ignore_ascii_case("sha-256") || self.fingerprints.len() >= MAX_FINGERPRINTS {
            return Ok(());
        }
        let is_byte = |hex: &str| hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = |hex: &str| u8::from_str_radix(hex, 16).ok().filter(|_| is_byte(hex));
        let digest: Option<Vec<u8>> = hex.trim().split(':').map(byte).collect();
        let digest = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok());
        let digest = digest.ok_or(InvalidDescription::Unusable("fingerprint"))?;
        self.fingerprints.push(Multihash::sha2_256(digest));
        Ok(())
    }

    fn finish(self) -> Result<Description, InvalidDescription> {
        if !self.in_section {
            return Err(InvalidDescription::Sections);
        }
        if self.fingerprints.is_empty() {
            return Err(InvalidDescription::Missing("SHA-256 fingerprint"));
        }
        Ok(Description {
            credentials: IceCredentials {
                ufrag: self.ufrag.ok_or(InvalidDescription::Missing("ice-ufrag"))?,
                password: self.password.ok_or(InvalidDescription::Missing("ice-pwd"))?,
            },
            fingerprints: self.fingerprints,
            setup: self.setup.ok_or(InvalidDescription::Missing("setup"))?,
            mid: self.mid.unwrap_or_else(|| "0".to_owned()),
            is_bundled: self.is_bundled,
            is_lite: self.is_lite,
            candidates: self.candidates,
            ends_candidates: self.ends_candidates,
        })
    }
}

/// An `RTCIceCandidateInit`, as `RTCIceCandidate.toJSON` writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CandidateInit {
    #[serde(default)]
    candidate: String,
    #[serde(default)]
    sdp_mid: Option<String>,
    #[serde(default)]
    sdp_m_line_index: Option<u16>,
    #[serde(default)]
    username_fragment: Option<String>,
}

/// A candidate of ours as JSON.
pub(crate) fn candidate_to_json(candidate: &Candidate, mid: &str, ufrag: &IceString) -> String {
    let init = CandidateInit {
        candidate: candidate.to_string(),
        sdp_mid: Some(mid.to_owned()),
        sdp_m_line_index: Some(0),
        username_fragment: Some(ufrag.as_str().to_owned()),
    };
    // Strings and a number: there is nothing that could not be written.
    serde_json::to_string(&init).unwrap_or_default()
}

/// A candidate of the remote's. `None` for the end of its candidates, for one that is of no use here, and for one of another
/// session than that of `ufrag`.
pub(crate) fn candidate_from_json(
    json: &str,
    ufrag: Option<&IceString>,
) -> Result<Option<Candidate>, InvalidCandidate> {
    if json.len() > 2 * MAX_CANDIDATE_LENGTH {
        return Err(InvalidCandidate);
    }
    let init: Option<CandidateInit> = serde_json::from_str(json).map_err(|_| InvalidCandidate)?;
    let Some(init) = init.filter(|init| !init.candidate.is_empty()) else { return Ok(None) };
    let (Some(named), Some(ufrag)) = (&init.username_fragment, ufrag) else {
        return Candidate::parse(&init.candidate);
    };
    if named == ufrag.as_str() { Candidate::parse(&init.candidate) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
