//! Messages and state machines of the protocols that run on a node.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use peerloom_autonat::{
    DialData, MAX_DIAL_DATA, Request, Step,
    message::{DialBack, MAX_ADDRESSES as MAX_ADDRESSES_TO_DIAL, Message as AutonatMessage},
    v1,
};
use peerloom_core::{Keypair, Multiaddr, PeerId, SignedEnvelope, runtime::Instant};
use peerloom_relay::{
    Voucher,
    message::{HopMessage, MAX_ADDRESSES, StopMessage},
};
use peerloom_webrtc_signaling::{
    PeerConnectionEvent, Timeouts,
    message::{MAX_CANDIDATE_LENGTH, Message},
    session::{Action, MAX_CANDIDATES, Session},
};

use crate::input::now;

/// Messages between a client and a relay, and between a relay and a destination.
pub fn relay_messages(data: &[u8]) {
    if let Ok(message) = HopMessage::decode(data) {
        if let HopMessage::Status { reservation: Some(reservation), .. } = &message {
            assert!(reservation.addresses.len() <= MAX_ADDRESSES);
        }
        assert_eq!(HopMessage::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = StopMessage::decode(data) {
        assert_eq!(StopMessage::decode(&message.encode()), Ok(message));
    }
}

/// A relay's word, signed by the right one: the bytes are the payload.
pub fn relay_voucher(data: &[u8]) {
    let relay = Keypair::from_seed([5; 32]);
    let envelope = SignedEnvelope::seal(&relay, "libp2p-relay-rsvp", &[0x03, 0x02], data.to_vec());
    let Ok(voucher) = now(Voucher::open(&envelope)) else { return };
    assert_eq!(voucher.relay, relay.peer_id(), "a voucher is the word of who signed it");
    let again = Voucher::seal(&relay, voucher.peer, voucher.expires);
    assert_eq!(now(Voucher::open(&again)), Ok(voucher));
    voucher.check(relay.peer_id(), voucher.peer, voucher.expires).expect("it holds for what it says");
    let stranger: PeerId = Keypair::from_seed([6; 32]).peer_id();
    voucher.check(stranger, voucher.peer, voucher.expires).expect_err("and for no other relay");
}

/// Messages between a client and a server of AutoNAT, both versions, and what a client and a server make of them.
pub fn autonat_messages(data: &[u8]) {
    let _ = v1::Response::decode(data);
    if let Ok(message) = DialBack::decode(data) {
        assert_eq!(DialBack::decode(&message.encode()), Ok(message));
    }
    let Ok(message) = AutonatMessage::decode(data.to_vec().into()) else { return };
    assert_eq!(AutonatMessage::decode(message.encode().into()).as_ref(), Ok(&message));
    match &message {
        AutonatMessage::DialRequest { addresses, .. } => assert!(addresses.len() <= MAX_ADDRESSES_TO_DIAL),
        AutonatMessage::DialDataResponse { data } => {
            let mut wanted = DialData::new(data.len() as u64);
            let done = wanted.received(data.len());
            assert!(done.is_err() || done == Ok(true));
        }
        _ => {}
    }
    let asked: Vec<Multiaddr> = ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1"]
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let mut request = Request::new(asked.clone(), 1);
    match request.received(message.clone()) {
        Ok(Step::SendData(bytes)) => {
            assert!(bytes <= MAX_DIAL_DATA);
            request.received(message).expect_err("nobody pays twice");
        }
        Ok(Step::Dialed { address, .. }) => assert!(asked.contains(&address)),
        Ok(Step::Refused) | Err(_) => {}
    }
}

/// Messages of the signaling of WebRTC.
pub fn signaling_message(data: &[u8]) {
    if let Ok(message) = Message::decode(data) {
        if let Message::Candidate(candidate) = &message {
            assert!(candidate.len() <= MAX_CANDIDATE_LENGTH);
        }
        assert_eq!(Message::decode(&message.clone().encode()), Ok(message));
    }
}

/// What happens during an exchange.
#[derive(Debug, Arbitrary)]
enum Event {
    Received(Vec<u8>),
    Offer,
    Answer,
    Candidates(u8),
    EndOfCandidates,
    RemoteClosed,
    Answered,
    LocalCandidates(u8),
    GatheringDone,
    Connected,
    Failed,
    Wait(u16),
    Act(u8),
}

/// An exchange of descriptions and candidates in which anything happens in any order: what it asks for is in order and
/// bounded.
pub fn signaling_session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut now = Instant::now();
    let timeouts = Timeouts::default();
    let end = now + timeouts.total;
    let offers = input.arbitrary().unwrap_or_default();
    let mut session = match offers {
        true => Session::offerer("our offer".into(), &timeouts, now, end),
        false => Session::answerer(&timeouts, now, end),
    };
    let mut seen = Seen { descriptions: 0, sent: 0, added: 0, offers };
    let mut accepted_offer = false;
    while !input.is_empty() {
        let Ok(event) = Event::arbitrary(&mut input) else { break };
        let outcome = match event {
            Event::Received(bytes) => session.received(&bytes, now),
            Event::Offer => session.received(&Message::Offer("offer".into()).encode(), now),
            Event::Answer => session.received(&Message::Answer("answer".into()).encode(), now),
            Event::Candidates(count) => {
                let candidate = Message::Candidate("{}".into()).encode();
                (0..count).try_for_each(|_| session.received(&candidate, now))
            }
            Event::EndOfCandidates => session.received(&Message::EndOfCandidates.encode(), now),
            Event::RemoteClosed => session.remote_closed(),
            // The driver calls it once, after it was told to take the offer.
            Event::Answered if std::mem::take(&mut accepted_offer) && !session.is_connected() => {
                session.answered("our answer".into(), now);
                Ok(())
            }
            Event::LocalCandidates(count) => (0..count)
                .try_for_each(|_| session.peer_connection(PeerConnectionEvent::Candidate("ours".into()))),
            Event::GatheringDone => session.peer_connection(PeerConnectionEvent::GatheringDone),
            Event::Connected => session.peer_connection(PeerConnectionEvent::Connected),
            Event::Failed => session.peer_connection(PeerConnectionEvent::Failed("why".into())),
            Event::Wait(millis) => {
                now += Duration::from_millis(millis.into());
                Ok(())
            }
            Event::Act(count) => {
                for action in std::iter::from_fn(|| session.next_action()).take(count.into()) {
                    accepted_offer |= seen.see(&action);
                }
                Ok(())
            }
            Event::Answered => Ok(()),
        };
        assert!(session.deadline() <= end, "all steps together have an end");
        let _ = (session.step(), session.is_reading());
        // A connection that is there needs nothing more.
        if outcome.is_err() || session.is_connected() {
            return;
        }
    }
    while let Some(action) = session.next_action() {
        seen.see(&action);
    }
}

struct Seen {
    offers: bool,
    /// The remote's that were accepted.
    descriptions: usize,
    /// Candidates of ours.
    sent: usize,
    /// Candidates of the remote's.
    added: usize,
}

impl Seen {
    /// Checks an action; whether it is the one to accept an offer.
    fn see(&mut self, action: &Action) -> bool {
        match action {
            Action::AcceptOffer(_) => assert!(!self.offers),
            Action::AcceptAnswer(_) => assert!(self.offers),
            Action::AddCandidate(_) => {
                assert_eq!(self.descriptions, 1, "a candidate before the description is of no use");
                self.added += 1;
            }
            Action::Send(Message::Candidate(_)) => self.sent += 1,
            Action::Send(_) => {}
        }
        self.descriptions += usize::from(matches!(action, Action::AcceptOffer(_) | Action::AcceptAnswer(_)));
        assert!(self.descriptions <= 1 && self.added <= MAX_CANDIDATES && self.sent <= MAX_CANDIDATES);
        matches!(action, Action::AcceptOffer(_))
    }
}
