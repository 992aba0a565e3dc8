use proptest::prelude::*;

use super::*;

fn offerer() -> (Session, Instant) {
    let now = Instant::now();
    let mut session =
        Session::offerer("offer".into(), &Timeouts::default(), now, now + Timeouts::default().total);
    assert_eq!(session.next_action(), Some(Action::Send(Message::Offer("offer".into()))));
    (session, now)
}

fn answerer() -> (Session, Instant) {
    let now = Instant::now();
    (Session::answerer(&Timeouts::default(), now, now + Timeouts::default().total), now)
}

fn bytes(message: Message) -> Vec<u8> {
    message.encode()
}

fn actions(session: &mut Session) -> Vec<Action> {
    std::iter::from_fn(|| session.next_action()).collect()
}

fn candidate(name: &str) -> Message {
    Message::Candidate(name.into())
}

#[test]
fn offer_and_answer_and_candidates_lead_to_a_connection() {
    let (mut dialer, now) = offerer();
    let (mut dialed, _) = answerer();
    dialed.received(&bytes(Message::Offer("offer".into())), now).unwrap();
    assert_eq!(actions(&mut dialed), [Action::AcceptOffer("offer".into())]);
    dialed.answered("answer".into(), now);
    assert_eq!(actions(&mut dialed), [Action::Send(Message::Answer("answer".into()))]);
    dialer.received(&bytes(Message::Answer("answer".into())), now).unwrap();
    assert_eq!(actions(&mut dialer), [Action::AcceptAnswer("answer".into())]);
    for session in [&mut dialer, &mut dialed] {
        assert_eq!(session.step(), Step::Connecting);
        session.peer_connection(PeerConnectionEvent::Candidate("ours".into())).unwrap();
        session.received(&bytes(candidate("theirs")), now).unwrap();
        let expected = [Action::Send(candidate("ours")), Action::AddCandidate("theirs".into())];
        assert_eq!(actions(session), expected);
        session.peer_connection(PeerConnectionEvent::GatheringDone).unwrap();
        session.received(&bytes(Message::EndOfCandidates), now).unwrap();
        assert!(!session.is_connected());
        session.peer_connection(PeerConnectionEvent::Connected).unwrap();
        assert!(session.is_connected());
        assert_eq!(actions(session), []);
    }
}

#[test]
fn candidates_that_come_before_the_description_are_kept() {
    let (mut dialer, now) = offerer();
    dialer.received(&bytes(candidate("1")), now).unwrap();
    dialer.received(&bytes(candidate("2")), now).unwrap();
    assert_eq!(actions(&mut dialer), []);
    dialer.received(&bytes(Message::Answer("answer".into())), now).unwrap();
    let expected = [
        Action::AcceptAnswer("answer".into()),
        Action::AddCandidate("1".into()),
        Action::AddCandidate("2".into()),
    ];
    assert_eq!(actions(&mut dialer), expected);

    let (mut dialed, now) = answerer();
    dialed.received(&bytes(candidate("1")), now).unwrap();
    dialed.received(&bytes(Message::Offer("offer".into())), now).unwrap();
    assert_eq!(actions(&mut dialed), [Action::AcceptOffer("offer".into()), Action::AddCandidate("1".into())]);
}

#[test]
fn the_answer_is_sent_before_our_candidates() {
    let (mut dialed, now) = answerer();
    dialed.peer_connection(PeerConnectionEvent::Candidate("1".into())).unwrap();
    dialed.received(&bytes(Message::Offer("offer".into())), now).unwrap();
    dialed.peer_connection(PeerConnectionEvent::Candidate("2".into())).unwrap();
    assert_eq!(actions(&mut dialed), [Action::AcceptOffer("offer".into())]);
    dialed.answered("answer".into(), now);
    let expected = [Message::Answer("answer".into()), candidate("1"), candidate("2")].map(Action::Send);
    assert_eq!(actions(&mut dialed), expected);
}

#[test]
fn messages_in_the_wrong_order_are_refused() {
    let refused = |session: &mut Session, message: Message, now| {
        let error = session.received(&bytes(message), now).unwrap_err();
        assert!(matches!(error, HandshakeError::Invalid { .. }), "{error}");
    };
    let (mut dialer, now) = offerer();
    refused(&mut dialer, Message::Offer("offer".into()), now);
    dialer.received(&bytes(Message::Answer("answer".into())), now).unwrap();
    refused(&mut dialer, Message::Answer("answer".into()), now);

    let (mut dialed, now) = answerer();
    refused(&mut dialed, Message::Answer("answer".into()), now);
    dialed.received(&bytes(Message::Offer("offer".into())), now).unwrap();
    refused(&mut dialed, Message::Offer("offer".into()), now);
    dialed.answered("answer".into(), now);
    refused(&mut dialed, Message::Offer("offer".into()), now);
}

#[test]
fn garbage_is_refused_and_the_error_names_the_step() {
    let (mut dialer, now) = offerer();
    let error = dialer.received(b"\xff\xff\xff", now).unwrap_err();
    assert!(error.to_string().contains("offer and answer"), "{error}");
    dialer.received(&bytes(Message::Answer("answer".into())), now).unwrap();
    let error = dialer.received(b"\x08\x07\x12\x01x", now).unwrap_err();
    assert!(
        error.to_string().contains("step 4 of 4, connecting: signaling message of unknown type 7"),
        "{error}"
    );
}

#[test]
fn candidates_are_bounded_both_ways() {
    let (mut dialer, now) = offerer();
    for _ in 0..MAX_CANDIDATES {
        dialer.received(&bytes(candidate("theirs")), now).unwrap();
    }
    dialer.received(&bytes(candidate("theirs")), now).unwrap_err();

    let (mut dialed, _) = answerer();
    for _ in 0..MAX_CANDIDATES * 2 {
        dialed.peer_connection(PeerConnectionEvent::Candidate("ours".into())).unwrap();
    }
    assert_eq!(dialed.unsent.len(), MAX_CANDIDATES);
}

#[test]
fn a_remote_that_closes_its_half_is_lost_before_the_answer_and_done_after_it() {
    let (mut dialer, _) = offerer();
    assert!(matches!(dialer.remote_closed(), Err(HandshakeError::Lost { .. })));
    let (mut dialed, _) = answerer();
    assert!(matches!(dialed.remote_closed(), Err(HandshakeError::Lost { .. })));
    let (mut dialer, now) = offerer();
    dialer.received(&bytes(Message::Answer("answer".into())), now).unwrap();
    dialer.remote_closed().unwrap();
    assert!(!dialer.is_reading());
    dialer.peer_connection(PeerConnectionEvent::Connected).unwrap();
    assert!(dialer.is_connected());
}

#[test]
fn each_step_has_its_deadline_and_all_of_them_one() {
    let (mut dialer, now) = offerer();
    let timeouts = Timeouts::default();
    assert_eq!(dialer.deadline(), now + timeouts.offer_and_answer);
    let soon = now + Duration::from_secs(1);
    dialer.received(&bytes(Message::Answer("answer".into())), soon).unwrap();
    assert_eq!(dialer.deadline(), soon + timeouts.connecting);
    let (mut dialed, now) = answerer();
    let late = now + Duration::from_secs(7);
    dialed.received(&bytes(Message::Offer("offer".into())), late).unwrap();
    dialed.answered("answer".into(), late);
    assert_eq!(dialed.deadline(), now + timeouts.total);
    assert!(
        matches!(dialed.timed_out(), HandshakeError::TimedOut { step } if step == Step::Connecting.name())
    );
}

#[test]
fn a_failure_of_the_peer_connection_ends_the_exchange() {
    let (mut dialer, _) = offerer();
    let error = dialer.peer_connection(PeerConnectionEvent::Failed("no route".into())).unwrap_err();
    assert!(error.to_string().ends_with("connection lost: no route"), "{error}");
}

/// Whatever happens, in whatever order.
#[derive(Debug, Clone)]
enum Happening {
    Received(Vec<u8>),
    Answered,
    Candidate,
    Closed,
    Act,
}

fn happening() -> impl Strategy<Value = Happening> {
    let message = prop_oneof![
        Just(Message::Offer("offer".into()).encode()),
        Just(Message::Answer("answer".into()).encode()),
        Just(Message::Candidate("{}".into()).encode()),
        Just(Message::EndOfCandidates.encode()),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    prop_oneof![
        message.prop_map(Happening::Received),
        Just(Happening::Answered),
        Just(Happening::Candidate),
        Just(Happening::Closed),
        Just(Happening::Act),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_descriptions_come_before_candidates(
        offers: bool,
        happenings in proptest::collection::vec(happening(), 0..400),
    ) {
        let (mut session, now) = if offers { offerer() } else { answerer() };
        let (mut accepted, mut described) = (false, offers);
        for happening in happenings {
            let outcome = match happening {
                Happening::Received(message) => session.received(&message, now),
                Happening::Answered if accepted && !described => {
                    session.answered("answer".into(), now);
                    Ok(())
                }
                Happening::Candidate => session.peer_connection(PeerConnectionEvent::Candidate("{}".into())),
                Happening::Closed => session.remote_closed(),
                Happening::Answered | Happening::Act => {
                    match session.next_action() {
                        Some(Action::Send(Message::Candidate(_))) => prop_assert!(described),
                        Some(Action::Send(_)) => described = true,
                        Some(Action::AddCandidate(_)) => prop_assert!(accepted),
                        Some(_) => accepted = true,
                        None => {}
                    }
                    Ok(())
                }
            };
            prop_assert!(session.actions.len() + session.early.len() + session.unsent.len() <= 2 * MAX_CANDIDATES + 2);
            if outcome.is_err() {
                break;
            }
        }
    }
}
