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
