//! [`WebRtcNegotiation`]: a connection between its description and its first stream.

use std::sync::Arc;

use peerloom_core::{
    Connection, Multiaddr, Multihash, PublicKey,
    runtime::{BoxFuture, Task},
};
use peerloom_webrtc_signaling::{PeerConnection, PeerConnectionEvent};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    connection::{CloseOnDrop, authenticated},
    driver::now,
    ice::agent::Gathered,
    sdp::{self, Description, Setup},
    state::{Shared, State},
    ufrag::IceString,
};

/// What a section is called whose name we choose.
const MID: &str = "0";

/// A connection that is being negotiated.
pub(crate) struct WebRtcNegotiation {
    shared: Arc<Shared>,
    /// The hash of our certificate.
    fingerprint: Multihash,
    mid: String,
    remote_ufrag: Option<IceString>,
    is_connected: bool,
    has_failed: bool,
    closer: CloseOnDrop,
    driver: Task,
    _resolver: Option<Task>,
    _permit: OwnedSemaphorePermit,
}

impl WebRtcNegotiation {
    pub(crate) fn new(
        shared: Arc<Shared>,
        fingerprint: Multihash,
        driver: Task,
        resolver: Option<Task>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            closer: CloseOnDrop::new(shared.clone()),
            shared,
            fingerprint,
            mid: MID.to_owned(),
            remote_ufrag: None,
            is_connected: false,
            has_failed: false,
            driver,
            _resolver: resolver,
            _permit: permit,
        }
    }

    /// Runs `work`, unless it is all over, and lets the connection's task send what came of it.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> Option<T>) -> Result<T, String> {
        let result = self.shared.with(|state| match state.end_reason() {
            Some(end) => Err(end.to_string()),
            None => {
                let result = work(state).ok_or_else(|| "not a negotiated connection".to_owned());
                state.react(now());
                result
            }
        });
        self.shared.driver.wake();
        result
    }

    fn describe(&self, setup: Setup, is_bundled: bool) -> Result<String, String> {
        let description = self.with(|state| {
            let agent = state.connection.agent()?;
            Some(Description {
                credentials: agent.local_credentials().clone(),
                fingerprints: vec![self.fingerprint.clone()],
                setup,
                mid: self.mid.clone(),
                is_bundled,
                is_lite: false,
                candidates: agent.host_candidates().to_vec(),
                ends_candidates: agent.is_gathering_done(),
            })
        });
        Ok(description?.write())
    }

    fn set_remote(&mut self, remote: Description, setup: Setup) -> Result<(), String> {
        self.remote_ufrag = Some(remote.credentials.ufrag.clone());
        self.with(|state| {
            state.connection.set_remote(now(), remote, setup);
            Some(())
        })
    }

    fn answer(&mut self, offer: &str) -> Result<String, String> {
        let offer = Description::parse(offer).map_err(|error| error.to_string())?;
        // The side that begins DTLS begins SCTP as well, and browsers do so whether they were asked or not: as the passive
        // side we are not in their way.
        let setup = match offer.setup {
            Setup::ActPass | Setup::Active => Setup::Passive,
            Setup::Passive => Setup::Active,
        };
        self.mid.clone_from(&offer.mid);
        let answer = self.describe(setup, offer.is_bundled)?;
        self.set_remote(offer, setup)?;
        Ok(answer)
    }

    fn take_answer(&mut self, answer: &str) -> Result<(), String> {
        let answer = Description::parse(answer).map_err(|error| error.to_string())?;
        let setup = match answer.setup {
            Setup::Active => Setup::Passive,
            Setup::Passive => Setup::Active,
            Setup::ActPass => return Err("the answer does not say who begins DTLS".to_owned()),
        };
        self.set_remote(answer, setup)
    }

    fn take_candidate(&mut self, json: &str) -> Result<(), String> {
        let candidate = sdp::candidate_from_json(json, self.remote_ufrag.as_ref());
        match candidate.map_err(|error| error.to_string())? {
            Some(candidate) => self.with(|state| {
                state.connection.agent()?.add_remote_candidate(candidate);
                Some(())
            }),
            None => Ok(()),
        }
    }

    fn event_of(&self, gathered: Gathered, state: &mut State) -> Option<PeerConnectionEvent> {
        Some(match gathered {
            Gathered::Done => PeerConnectionEvent::GatheringDone,
            Gathered::Candidate(candidate) => {
                let ufrag = &state.connection.agent()?.local_credentials().ufrag;
                PeerConnectionEvent::Candidate(sdp::candidate_to_json(&candidate, &self.mid, ufrag))
            }
        })
    }
}

impl PeerConnection for WebRtcNegotiation {
    fn create_offer(&mut self) -> BoxFuture<'_, Result<String, String>> {
        // It has no `init` channel: that is there to make browsers write the section that ours has anyway.
        Box::pin(std::future::ready(self.describe(Setup::ActPass, true)))
    }

    fn accept_offer(&mut self, offer: String) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(std::future::ready(self.answer(&offer)))
    }

    fn accept_answer(&mut self, answer: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(self.take_answer(&answer)))
    }

    fn add_candidate(&mut self, candidate: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(self.take_candidate(&candidate)))
    }

    fn next(&mut self) -> BoxFuture<'_, PeerConnectionEvent> {
        Box::pin(async move {
            if self.has_failed {
                return std::future::pending().await;
            }
            let (shared, is_connected) = (self.shared.clone(), self.is_connected);
            let next = shared.wait(|state| {
                if let Some(gathered) = state.take_gathered() {
                    return self.event_of(gathered, state);
                }
                if let Some(end) = state.end_reason() {
                    return Some(PeerConnectionEvent::Failed(end.to_string()));
                }
                (state.is_connected() && !is_connected).then_some(PeerConnectionEvent::Connected)
            });
            let event = next.await;
            self.is_connected |= event == PeerConnectionEvent::Connected;
            self.has_failed |= matches!(event, PeerConnectionEvent::Failed(_));
            event
        })
    }

    fn into_connection(mut self: Box<Self>, remote: PublicKey, address: Multiaddr) -> Box<dyn Connection> {
        self.closer.disarm();
        Box::new(authenticated(self.shared, remote, address, self.driver))
    }
}
