//! A connection whose two ends have told each other their descriptions (`webrtc/webrtc.md`): a full ICE agent, DTLS in
//! either role, and no handshake of libp2p's. That the remote's certificate is the one in its description is all that
//! authenticates it, for the description came over a connection that is authenticated.

use super::*;
use crate::sdp::{Description, Setup};

/// What a negotiated connection knows besides.
pub(crate) struct Negotiated {
    /// The DTLS settings of a client and of a server, with one certificate.
    configs: Configs,
    /// What the remote's certificate must hash to, one of these. Empty until its description is there.
    fingerprints: Vec<Multihash>,
    dtls_role: DtlsRole,
    /// What came before the description.
    early: Vec<Bytes>,
}

/// The DTLS settings of either role.
pub(crate) struct Configs {
    pub(crate) client: DtlsConfig,
    pub(crate) server: DtlsConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DtlsRole {
    Unknown,
    Client,
    Server,
}

impl Negotiated {
    /// The settings with which DTLS begins, if we begin it.
    pub(super) fn client(&self) -> Option<&DtlsConfig> {
        (self.dtls_role == DtlsRole::Client).then_some(&self.configs.client)
    }

    pub(super) fn fingerprints(&self) -> &Vec<Multihash> {
        &self.fingerprints
    }
}

impl PeerConnection {
    /// An end that waits for the remote's description.
    pub(crate) fn negotiated(agent: Agent, configs: Configs, timeouts: Timeouts, now: Instant) -> Self {
        let negotiated =
            Negotiated { configs, fingerprints: Vec::new(), dtls_role: DtlsRole::Unknown, early: Vec::new() };
        let role = Role::Negotiated(Box::new(negotiated));
        let mut connection = Self::new(role, Ice::Full(Box::new(agent)), timeouts, now);
        connection.phase = Phase::Handshake(Step::Description);
        connection.deadline = later(now, limits::DESCRIPTION_TIMEOUT);
        connection.report_gathered();
        connection
    }

    /// The agent of a negotiated connection.
    pub(crate) fn agent(&mut self) -> Option<&mut Agent> {
        match &mut self.ice {
            Ice::Full(agent) => Some(agent),
            Ice::Direct(_) => None,
        }
    }

    /// Takes the remote's description; only the first one counts. `setup` is what we say ourselves, and never `actpass`.
    pub(crate) fn set_remote(&mut self, now: Instant, remote: Description, setup: Setup) {
        let Role::Negotiated(negotiated) = &mut self.role else { return };
        if self.phase != Phase::Handshake(Step::Description) {
            return;
        }
        negotiated.fingerprints = remote.fingerprints;
        if setup == Setup::Active {
            negotiated.dtls_role = DtlsRole::Client;
            self.next_channel = 0;
        } else {
            negotiated.dtls_role = DtlsRole::Server;
            self.next_channel = 1;
            self.dtls = Some(Dtls::server(negotiated.configs.server.clone()));
            self.sctp = Some(Sctp::server());
        }
        let early = std::mem::take(&mut negotiated.early);
        if let Ice::Full(agent) = &mut self.ice {
            remote.candidates.into_iter().for_each(|candidate| agent.add_remote_candidate(candidate));
            agent.set_remote(now, remote.credentials, remote.is_lite);
        }
        self.phase = Phase::Handshake(Step::Ice);
        self.deadline = later(now, limits::ICE_TIMEOUT);
        for datagram in early {
            self.handle_dtls(now, &datagram);
        }
    }

    /// Whether a datagram is too early to be understood, and kept.
    pub(super) fn keep_for_later(&mut self, datagram: &[u8]) -> bool {
        let Role::Negotiated(negotiated) = &mut self.role else { return false };
        if negotiated.dtls_role != DtlsRole::Unknown {
            return false;
        }
        if negotiated.early.len() < limits::MAX_EARLY_DATAGRAMS {
            negotiated.early.push(Bytes::copy_from_slice(datagram));
        }
        true
    }

    pub(super) fn report_gathered(&mut self) {
        if let Ice::Full(agent) = &mut self.ice {
            self.events.extend(std::iter::from_fn(|| agent.poll_gathered()).map(Event::Gathered));
        }
    }

    /// Whether [`HANDSHAKE_CHANNEL`] is what its name says.
    pub(crate) fn has_handshake_channel(&self) -> bool {
        !matches!(self.role, Role::Negotiated(_))
    }
}

impl Role {
    pub(super) fn wrong_certificate(&self) -> &'static str {
        match self {
            Self::Negotiated(_) => "the remote's certificate is not the one in its description",
            _ => "the listener's certificate is not one of those in its address",
        }
    }
}

#[cfg(test)]
mod tests;
