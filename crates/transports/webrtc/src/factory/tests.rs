//! Two factories on real sockets, and a relay that is this test.

use peerloom_core::{Connection, Keypair, StreamExt};
use peerloom_webrtc_signaling::PeerConnectionEvent;

use super::*;

type End = Box<dyn Negotiation>;

fn factory(configure: impl FnOnce(&mut WebRtcConfig)) -> WebRtcFactory {
    let mut config = WebRtcConfig { bind: vec!["127.0.0.1:0".parse().unwrap()], ..WebRtcConfig::default() };
    configure(&mut config);
    WebRtcFactory::new(config).unwrap()
}

fn ends(offers: &WebRtcFactory, answers: &WebRtcFactory) -> (End, End) {
    (offers.create(SignalingRole::Offerer).unwrap(), answers.create(SignalingRole::Answerer).unwrap())
}

/// Exchanges descriptions, changed by `tamper`.
async fn exchange(offerer: &mut End, answerer: &mut End, tamper: impl Fn(String) -> String) {
    let offer = tamper(offerer.create_offer().await.unwrap());
    let answer = tamper(answerer.accept_offer(offer).await.unwrap());
    offerer.accept_answer(answer).await.unwrap();
}

/// What comes of it.
async fn outcome(end: &mut End) -> PeerConnectionEvent {
    loop {
        match end.next().await {
            PeerConnectionEvent::Candidate(_) | PeerConnectionEvent::GatheringDone => {}
            event => return event,
        }
    }
}

async fn outcomes(offerer: &mut End, answerer: &mut End) -> (PeerConnectionEvent, PeerConnectionEvent) {
    tokio::join!(outcome(offerer), outcome(answerer))
}

/// As if the relay had told who they are.
fn into_connections(offerer: End, answerer: End) -> (Box<dyn Connection>, Box<dyn Connection>) {
    let keys = [Keypair::generate(), Keypair::generate()];
    let address: peerloom_core::Multiaddr = "/webrtc".parse().unwrap();
    (
        offerer.into_connection(keys[1].public().clone(), address.clone()),
        answerer.into_connection(keys[0].public().clone(), address),
    )
}

async fn say_hello(from: &dyn Connection, to: &dyn Connection) {
    let mut stream = from.open_stream().await.unwrap();
    stream.write_all("hello".into()).await.unwrap();
    let mut accepted = to.accept_stream().await.unwrap();
    assert_eq!(accepted.read_chunk().await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn two_ends_connect_and_open_streams_both_ways() {
    let (offers, answers) = (factory(|_| {}), factory(|_| {}));
    let (mut offerer, mut answerer) = ends(&offers, &answers);
    exchange(&mut offerer, &mut answerer, |sdp| sdp).await;
    let connected = outcomes(&mut offerer, &mut answerer).await;
    assert_eq!(connected, (PeerConnectionEvent::Connected, PeerConnectionEvent::Connected));
    let (offerer, answerer) = into_connections(offerer, answerer);
    say_hello(&*offerer, &*answerer).await;
    say_hello(&*answerer, &*offerer).await;
    drop(offerer);
    answerer.closed().await;
    drop(answerer);
    for _ in 0..100 {
        if answers.sockets[0].sessions() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the session is still in the demultiplexer");
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_have_two_connections() {
    let (one, other) = (factory(|_| {}), factory(|_| {}));
    let (mut first, mut first_answer) = ends(&one, &other);
    let (mut second, mut second_answer) = ends(&other, &one);
    tokio::join!(
        exchange(&mut first, &mut first_answer, |sdp| sdp),
        exchange(&mut second, &mut second_answer, |sdp| sdp)
    );
    let (first_outcome, second_outcome) =
        tokio::join!(outcomes(&mut first, &mut first_answer), outcomes(&mut second, &mut second_answer));
    let connected = (PeerConnectionEvent::Connected, PeerConnectionEvent::Connected);
    assert_eq!((&first_outcome, &second_outcome), (&connected, &connected));
    let (first, first_answer) = into_connections(first, first_answer);
    let (second, second_answer) = into_connections(second, second_answer);
    for (opens, accepts) in [(&first, &first_answer), (&second, &second_answer)] {
        say_hello(&**opens, &**accepts).await;
        say_hello(&**accepts, &**opens).await;
    }
}

#[tokio::test]
async fn candidates_are_trickled_and_those_of_a_stun_server_among_them() {
    // Sees us at an address at which we cannot be reached.
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stun = format!("stun:{}", server.local_addr().unwrap());
    let seen: SocketAddr = "203.0.113.1:1111".parse().unwrap();
    let _server = runtime::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = server.recv_from(&mut buffer).await {
            let query = crate::stun::Message::parse(&buffer[..length]).unwrap();
            let mut answer = crate::stun::binding_success(query.transaction_id, seen, "x");
            answer.truncate(answer.len() - 32);
            let attributes = (answer.len() - 20) as u16;
            answer[2..4].copy_from_slice(&attributes.to_be_bytes());
            server.send_to(&answer, from).await.unwrap();
        }
    });
    for role in [SignalingRole::Offerer, SignalingRole::Answerer] {
        let factory = factory(|config| config.stun_servers = vec![stun.clone()]);
        let mut end = factory.create(role).unwrap();
        let PeerConnectionEvent::Candidate(json) = end.next().await else { panic!("no candidate") };
        assert!(json.contains("203.0.113.1 1111 typ srflx raddr 127.0.0.1"), "{json}");
        assert_eq!(end.next().await, PeerConnectionEvent::GatheringDone);
    }
}

/// The candidates of a description, as JSON, and the rest of it.
fn without_candidates(sdp: &str) -> (Vec<String>, String) {
    let (candidates, rest): (Vec<_>, Vec<_>) =
        sdp.lines().partition(|line| line.starts_with("a=candidate") || line.starts_with("a=end"));
    let json = |line: &&str| {
        let candidate = line.strip_prefix("a=").filter(|attribute| attribute.starts_with("candidate"))?;
        Some(format!(r#"{{"candidate":"{candidate}"}}"#))
    };
    (candidates.iter().filter_map(json).collect(), rest.join("\r\n") + "\r\n")
}

#[tokio::test]
async fn candidates_of_one_side_alone_and_later_than_the_descriptions_will_do() {
    for offerer_tells in [true, false] {
        let (offers, answers) = (factory(|_| {}), factory(|_| {}));
        let (mut offerer, mut answerer) = ends(&offers, &answers);
        let (offered, offer) = without_candidates(&offerer.create_offer().await.unwrap());
        let (answered, answer) = without_candidates(&answerer.accept_offer(offer).await.unwrap());
        assert!(!offered.is_empty() && !answered.is_empty());
        offerer.accept_answer(answer).await.unwrap();
        let teller = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        tokio::join!(teller, async {
            assert!(tokio::time::timeout(Duration::from_millis(30), outcome(&mut offerer)).await.is_err());
        });
        let (to, candidates) =
            if offerer_tells { (&mut answerer, offered) } else { (&mut offerer, answered) };
        // A browser's, which cannot be resolved, and what ends them.
        let hidden =
            r#"{"candidate":"candidate:1 1 udp 2113937151 7d1f0f3c-1f0e-4b55.local 51234 typ host"}"#;
        to.add_candidate(hidden.to_owned()).await.unwrap();
        to.add_candidate("nonsense".to_owned()).await.unwrap_err();
        for candidate in candidates {
            to.add_candidate(candidate).await.unwrap();
        }
        to.add_candidate("null".to_owned()).await.unwrap();
        let connected = outcomes(&mut offerer, &mut answerer).await;
        assert_eq!(connected, (PeerConnectionEvent::Connected, PeerConnectionEvent::Connected));
    }
}

#[tokio::test]
async fn certificate_other_than_described_fails_and_says_so() {
    let (offers, answers) = (factory(|_| {}), factory(|_| {}));
    let (mut offerer, mut answerer) = ends(&offers, &answers);
    exchange(&mut offerer, &mut answerer, |sdp| {
        let lines = sdp.lines().map(|line| match line.strip_prefix("a=fingerprint:sha-256 ") {
            Some(hash) => format!("a=fingerprint:sha-256 {}\r\n", hash.chars().rev().collect::<String>()),
            None => format!("{line}\r\n"),
        });
        lines.collect()
    })
    .await;
    let (offered, answered) = outcomes(&mut offerer, &mut answerer).await;
    let PeerConnectionEvent::Failed(reason) = &offered else { panic!("{offered:?}") };
    assert!(reason.contains("certificate"), "{reason}");
    assert!(matches!(answered, PeerConnectionEvent::Failed(_)), "{answered:?}");
    let more = tokio::time::timeout(Duration::from_millis(20), offerer.next()).await;
    assert!(more.is_err(), "nothing more happens");
}

#[tokio::test(start_paused = true)]
async fn wrong_password_and_silent_remote_fail_in_time() {
    for (wrong, reason) in [(true, "webrtc ICE timed out"), (false, "webrtc description timed out")] {
        let (offers, answers) = (factory(|_| {}), factory(|_| {}));
        let (mut offerer, mut answerer) = ends(&offers, &answers);
        if wrong {
            let another = IceCredentials::generate().password;
            let another = another.as_str();
            exchange(&mut offerer, &mut answerer, |sdp| {
                let lines = sdp.lines().map(|line| match line.starts_with("a=ice-pwd") {
                    true => format!("a=ice-pwd:{another}\r\n"),
                    false => format!("{line}\r\n"),
                });
                lines.collect()
            })
            .await;
        } else {
            offerer.create_offer().await.unwrap();
        }
        let failed = PeerConnectionEvent::Failed(reason.to_owned());
        assert_eq!(outcomes(&mut offerer, &mut answerer).await.0, failed);
    }
}

#[tokio::test]
async fn descriptions_that_make_no_sense_are_refused_and_another_may_follow() {
    let (offers, answers) = (factory(|_| {}), factory(|_| {}));
    let (mut offerer, mut answerer) = ends(&offers, &answers);
    let offer = offerer.create_offer().await.unwrap();
    for nonsense in ["", "v=0\r\n", &offer.replace("sha-256", "md5"), &"v=0\r\n".repeat(10_000)] {
        answerer.accept_offer(nonsense.to_owned()).await.unwrap_err();
    }
    let answer = answerer.accept_offer(offer).await.unwrap();
    let undecided = answer.replace("passive", "actpass");
    assert!(offerer.accept_answer(undecided).await.unwrap_err().contains("who begins DTLS"));
    offerer.accept_answer(answer).await.unwrap();
    let connected = outcomes(&mut offerer, &mut answerer).await;
    assert_eq!(connected, (PeerConnectionEvent::Connected, PeerConnectionEvent::Connected));
}

#[tokio::test]
async fn either_side_of_a_negotiation_that_is_dropped_is_missed_by_the_other() {
    for offerer_goes in [true, false] {
        let (offers, answers) = (factory(|_| {}), factory(|_| {}));
        let (mut offerer, mut answerer) = ends(&offers, &answers);
        exchange(&mut offerer, &mut answerer, |sdp| sdp).await;
        outcomes(&mut offerer, &mut answerer).await;
        let (gone, mut left) = if offerer_goes { (offerer, answerer) } else { (answerer, offerer) };
        drop(gone);
        assert!(matches!(outcome(&mut left).await, PeerConnectionEvent::Failed(_)));
    }
}

#[tokio::test]
async fn negotiations_are_bounded_and_make_room_for_others_once_done() {
    let answers = factory(|_| {});
    let role = SignalingRole::Answerer;
    let mut pending: Vec<_> = (0..limits::MAX_NEGOTIATIONS).map(|_| answers.create(role).unwrap()).collect();
    assert!(answers.create(role).is_err());
    pending.pop();
    assert!(answers.create(role).is_ok());
}

#[tokio::test]
async fn strangers_begin_nothing_at_the_shared_socket() {
    use crate::ufrag::{Credentials, WireVersion};
    let answers = factory(|_| {});
    let _answerer = answers.create(SignalingRole::Answerer).unwrap();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let credentials = Credentials::generate(WireVersion::V2);
    let username = format!("{}:{}", credentials.server.as_str(), credentials.client_ufrag.as_str());
    let check = crate::stun::binding_request([1; 12], &username, 7, credentials.server.as_str());
    for datagram in [&check[..], b"", &[22, 254, 253], &[0; 20]] {
        stranger.send_to(datagram, answers.sockets[0].bound).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(answers.sockets[0].sessions(), 1);
}

#[tokio::test]
async fn both_ip_versions_are_used_where_there_are_both() {
    let bind: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let both = factory(|config| config.bind = bind.clone());
    let v4 = factory(|_| {});
    for (offers, answers) in [(&both, &v4), (&v4, &both), (&both, &both)] {
        let (mut offerer, mut answerer) = ends(offers, answers);
        exchange(&mut offerer, &mut answerer, |sdp| sdp).await;
        let connected = outcomes(&mut offerer, &mut answerer).await;
        assert_eq!(connected, (PeerConnectionEvent::Connected, PeerConnectionEvent::Connected));
    }
    let nowhere = WebRtcConfig { bind: vec!["192.0.2.1:1".parse().unwrap()], ..WebRtcConfig::default() };
    assert!(WebRtcFactory::new(nowhere).is_err());
}
