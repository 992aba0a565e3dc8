//! One exchange of descriptions and candidates, as a state machine without I/O.

use std::{collections::VecDeque, time::Duration};

use peerloom_core::{HandshakeError, runtime::Instant};

use crate::{message::Message, peer_connection::PeerConnectionEvent};

/// Candidates taken of one remote, and told to it. A machine with four interfaces and two STUN servers has about 30.
pub const MAX_CANDIDATES: usize = 128;

/// How far a direct connection has come. Each step has a deadline, and errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// To the remote, by way of a relay.
    RelayedConnection,
    /// On that connection.
    SignalingStream,
    /// Both descriptions.
    OfferAndAnswer,
    /// ICE and DTLS.
    Connecting,
}

impl Step {
    /// As errors name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RelayedConnection => "WebRTC, step 1 of 4, relayed connection",
            Self::SignalingStream => "WebRTC, step 2 of 4, signaling stream",
            Self::OfferAndAnswer => "WebRTC, step 3 of 4, offer and answer",
            Self::Connecting => "WebRTC, step 4 of 4, connecting",
        }
    }
}

/// How long each [`Step`] may take.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Timeouts {
    /// For [`Step::RelayedConnection`].
    pub relayed_connection: Duration,
    /// For [`Step::SignalingStream`].
    pub signaling_stream: Duration,
    /// For [`Step::OfferAndAnswer`].
    pub offer_and_answer: Duration,
    /// For [`Step::Connecting`].
    pub connecting: Duration,
    /// For all of them together: shorter than what a node gives a dial, so that the error is ours and names the step.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            relayed_connection: Duration::from_secs(8),
            signaling_stream: Duration::from_secs(5),
            offer_and_answer: Duration::from_secs(8),
            connecting: Duration::from_secs(10),
            total: Duration::from_secs(14),
        }
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this message.
    Send(Message),
    /// Give the remote's offer to the peer connection, and its answer to [`Session::answered`].
    AcceptOffer(String),
    /// Give the remote's answer to the peer connection.
    AcceptAnswer(String),
    /// Give the remote's candidate to the peer connection.
    AddCandidate(String),
}

/// The exchange, from the moment when there is a signaling stream.
#[derive(Debug)]
pub struct Session {
    state: State,
    /// When the present step must be done.
    deadline: Instant,
    /// When all must be done.
    end: Instant,
    connecting: Duration,
    actions: VecDeque<Action>,
    /// The remote's candidates that came before its description.
    early: Vec<String>,
    /// Our candidates that were found before our answer went out: js-libp2p reads the answer first.
    unsent: Vec<String>,
    remote_candidates: usize,
    local_candidates: usize,
    remote_closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitingAnswer,
    AwaitingOffer,
    /// The peer connection is making its answer.
    Answering,
    Connecting,
    Connected,
}

impl Session {
    /// The side that dials, with its offer.
    pub fn offerer(offer: String, timeouts: &Timeouts, now: Instant, end: Instant) -> Self {
        let mut session = Self::new(State::AwaitingAnswer, timeouts, now, end);
        session.actions.push_back(Action::Send(Message::Offer(offer)));
        session
    }

    /// The side that is dialed.
    pub fn answerer(timeouts: &Timeouts, now: Instant, end: Instant) -> Self {
        Self::new(State::AwaitingOffer, timeouts, now, end)
    }

    fn new(state: State, timeouts: &Timeouts, now: Instant, end: Instant) -> Self {
        Self {
            state,
            deadline: end.min(now + timeouts.offer_and_answer),
            end,
            connecting: timeouts.connecting,
            actions: VecDeque::new(),
            early: Vec::new(),
            unsent: Vec::new(),
            remote_candidates: 0,
            local_candidates: 0,
            remote_closed: false,
        }
    }

    /// What is to be done now, in this order; `None` if something has to happen first.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`timed_out`](Self::timed_out) is the outcome.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How far it has come.
    pub fn step(&self) -> Step {
        match self.state {
            State::AwaitingAnswer | State::AwaitingOffer | State::Answering => Step::OfferAndAnswer,
            State::Connecting | State::Connected => Step::Connecting,
        }
    }

    /// Whether the direct connection is there, and nothing is left to do.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether the remote may still say something.
    pub fn is_reading(&self) -> bool {
        !self.remote_closed
    }

    /// The peer connection has made its answer to the offer.
    pub fn answered(&mut self, answer: String, now: Instant) {
        self.actions.push_back(Action::Send(Message::Answer(answer)));
        for candidate in std::mem::take(&mut self.unsent) {
            self.actions.push_back(Action::Send(Message::Candidate(candidate)));
        }
        self.connect(now);
    }

    /// Something happened in the peer connection.
    pub fn peer_connection(&mut self, event: PeerConnectionEvent) -> Result<(), HandshakeError> {
        match event {
            PeerConnectionEvent::Candidate(candidate) if self.local_candidates < MAX_CANDIDATES => {
                self.local_candidates = self.local_candidates.saturating_add(1);
                match self.state {
                    State::AwaitingOffer | State::Answering => self.unsent.push(candidate),
                    State::AwaitingAnswer | State::Connecting => {
                        self.actions.push_back(Action::Send(Message::Candidate(candidate)));
                    }
                    State::Connected => {}
                }
            }
            PeerConnectionEvent::Candidate(_) | PeerConnectionEvent::GatheringDone => {}
            PeerConnectionEvent::Connected => {
                self.state = State::Connected;
                self.actions.clear();
            }
            PeerConnectionEvent::Failed(reason) => return Err(self.lost(reason)),
        }
        Ok(())
    }

    /// A message came on the stream.
    pub fn received(&mut self, message: &[u8], now: Instant) -> Result<(), HandshakeError> {
        let message = Message::decode(message).map_err(|error| self.invalid(error.to_string()))?;
        match (message, self.state) {
            (Message::Offer(offer), State::AwaitingOffer) => {
                self.state = State::Answering;
                self.actions.push_back(Action::AcceptOffer(offer));
                self.take_early();
            }
            (Message::Answer(answer), State::AwaitingAnswer) => {
                self.actions.push_back(Action::AcceptAnswer(answer));
                self.take_early();
                self.connect(now);
            }
            (Message::Candidate(candidate), state) => {
                self.remote_candidates = self.remote_candidates.saturating_add(1);
                if self.remote_candidates > MAX_CANDIDATES {
                    return Err(self.invalid("the remote sends too many candidates".to_owned()));
                }
                match state {
                    State::AwaitingAnswer | State::AwaitingOffer => self.early.push(candidate),
                    _ => self.actions.push_back(Action::AddCandidate(candidate)),
                }
            }
            (Message::EndOfCandidates, _) => {}
            (Message::Offer(_), _) => {
                return Err(self.invalid("the remote sent an unexpected offer".to_owned()));
            }
            (Message::Answer(_), _) => {
                return Err(self.invalid("the remote sent an unexpected answer".to_owned()));
            }
        }
        Ok(())
    }

    /// The remote has closed its half of the stream. Once descriptions are exchanged, that is what it does when it sees the
    /// direct connection, which may be before we do.
    pub fn remote_closed(&mut self) -> Result<(), HandshakeError> {
        self.remote_closed = true;
        match self.state {
            State::Connecting | State::Connected => Ok(()),
            _ => Err(self.lost("the remote ended the exchange".to_owned())),
        }
    }

    /// The deadline has passed.
    pub fn timed_out(&self) -> HandshakeError {
        HandshakeError::TimedOut { step: self.step().name() }
    }

    /// The stream or the peer connection failed.
    pub fn lost(&self, reason: String) -> HandshakeError {
        HandshakeError::Lost { step: self.step().name(), reason }
    }

    /// What the remote sent was not as it must be.
    pub fn invalid(&self, reason: String) -> HandshakeError {
        HandshakeError::Invalid { step: self.step().name(), reason }
    }

    fn take_early(&mut self) {
        for candidate in std::mem::take(&mut self.early) {
            self.actions.push_back(Action::AddCandidate(candidate));
        }
    }

    fn connect(&mut self, now: Instant) {
        // A browser that was quick may have connected while its answer was being made.
        if self.state != State::Connected {
            self.state = State::Connecting;
            self.deadline = self.end.min(now + self.connecting);
        }
    }
}

#[cfg(test)]
mod tests;
