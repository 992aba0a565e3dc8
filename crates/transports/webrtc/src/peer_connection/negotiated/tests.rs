//! Two negotiated ends and a network in memory.

use super::*;
use crate::{
    certificate::Certificate,
    ice::{agent::LocalAddresses, token::SessionToken},
    ufrag::IceCredentials,
};

const TIMEOUTS: Timeouts = Timeouts { step: Duration::from_secs(10), idle: Duration::from_secs(40) };
const ADDRESSES: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 1000),
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 2000),
];

struct Pair {
    ends: [PeerConnection; 2],
    certificates: [Certificate; 2],
    events: [Vec<Event>; 2],
    now: Instant,
    is_cut: bool,
}

impl Pair {
    fn new() -> Self {
        let now = crate::test_now();
        let certificates = [Certificate::generate().unwrap(), Certificate::generate().unwrap()];
        let ends = [0, 1].map(|index| {
            let certificate = &certificates[index];
            let configs = Configs {
                client: certificate.dtls_config(true).unwrap(),
                server: certificate.dtls_config(false).unwrap(),
            };
            let addresses = LocalAddresses { host: vec![ADDRESSES[index]], expects_servers: false };
            let credentials = IceCredentials::generate();
            let agent = Agent::new(credentials, SessionToken::generate(), &addresses, index == 0, now);
            PeerConnection::negotiated(agent, configs, TIMEOUTS, now)
        });
        Self { ends, certificates, events: [Vec::new(), Vec::new()], now, is_cut: false }
    }

    /// What the end with this number would tell the other.
    fn description(&mut self, of: usize) -> Description {
        let agent = self.ends[of].agent().unwrap();
        Description {
            credentials: agent.local_credentials().clone(),
            fingerprints: vec![self.certificates[of].hash()],
            setup: Setup::ActPass,
            mid: "0".to_owned(),
            is_bundled: true,
            is_lite: false,
            candidates: agent.host_candidates().to_vec(),
            ends_candidates: true,
        }
    }

    fn describe(&mut self, to: usize, setup: Setup) {
        let remote = self.description(1 - to);
        let now = self.now;
        self.ends[to].set_remote(now, remote, setup);
    }

    fn connected() -> Self {
        let mut pair = Self::new();
        pair.describe(0, Setup::Active);
        pair.describe(1, Setup::Passive);
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.take_events(), [vec![Event::Connected], vec![Event::Connected]]);
        pair
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let mut moved = false;
            for from in [0, 1] {
                while let Some((path, datagram)) = self.ends[from].poll_transmit(self.now) {
                    if path.remote == ADDRESSES[1 - from] && !self.is_cut {
                        moved = true;
                        let path = Path { local: None, remote: ADDRESSES[from] };
                        self.ends[1 - from].handle_datagram(self.now, path, &datagram);
                    }
                }
                self.events[from].extend(std::iter::from_fn(|| self.ends[from].poll_event()));
            }
            if moved {
                continue;
            }
            let timers = self.ends.iter().filter_map(PeerConnection::poll_timeout).min();
            let Some(next) = timers.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.ends.iter_mut().for_each(|connection| connection.handle_timeout(self.now));
        }
    }

    fn take_events(&mut self) -> [Vec<Event>; 2] {
        let mut events = std::mem::take(&mut self.events);
        events.iter_mut().for_each(|events| events.retain(|event| !matches!(event, Event::Gathered(_))));
        events
    }
}

#[test]
fn either_side_may_begin_dtls() {
    for active in [0, 1] {
        let mut pair = Pair::new();
        pair.describe(active, Setup::Active);
        pair.describe(1 - active, Setup::Passive);
        pair.run(Duration::from_secs(1));
        assert_eq!(pair.take_events(), [vec![Event::Connected], vec![Event::Connected]]);
        let now = pair.now;
        // RFC 8832 section 6: the DTLS client has the even channels, and there is no handshake channel to avoid.
        assert_eq!(pair.ends[active].open(now), Some(0));
        assert_eq!(pair.ends[1 - active].open(now), Some(1));
    }
}

#[test]
fn certificate_that_is_not_the_described_one_ends_it_whoever_finds_out() {
    for deceived in [0, 1] {
        let mut pair = Pair::new();
        let now = pair.now;
        for to in [0, 1] {
            let mut remote = pair.description(1 - to);
            if to == deceived {
                remote.fingerprints = vec![Multihash::sha2_256([7; 32])];
            }
            pair.ends[to].set_remote(now, remote, if to == 0 { Setup::Active } else { Setup::Passive });
        }
        pair.run(Duration::from_secs(5));
        let events = pair.take_events();
        assert!(matches!(events[deceived][..], [Event::Over(End::WrongCertificate(_))]), "{events:?}");
        assert!(matches!(events[1 - deceived][..], [Event::Over(_)]), "{events:?}");
    }
}

#[test]
fn dtls_that_begins_before_the_answer_is_there_is_kept() {
    let mut pair = Pair::new();
    pair.describe(1, Setup::Active);
    pair.run(Duration::from_millis(10));
    assert!(pair.take_events().iter().all(Vec::is_empty));
    let begun = pair.now;
    pair.describe(0, Setup::Passive);
    pair.run(Duration::from_millis(10));
    assert_eq!(pair.take_events(), [vec![Event::Connected], vec![Event::Connected]]);
    assert!(pair.now - begun <= Duration::from_millis(10), "no retransmission was needed");
}

#[test]
fn description_that_never_comes_and_ice_that_nobody_answers_say_so() {
    let mut pair = Pair::new();
    pair.is_cut = true;
    pair.describe(0, Setup::Passive);
    pair.run(Duration::from_secs(60));
    assert_eq!(
        pair.take_events(),
        [
            vec![Event::Over(End::HandshakeTimedOut(Step::Ice))],
            vec![Event::Over(End::HandshakeTimedOut(Step::Description))]
        ]
    );
}

#[test]
fn remote_that_vanishes_is_noticed_and_no_more_is_sent_to_it() {
    let mut pair = Pair::connected();
    pair.run(Duration::from_secs(300));
    assert!(pair.take_events().iter().all(Vec::is_empty), "idle is not gone");
    pair.is_cut = true;
    pair.run(Duration::from_secs(31));
    assert_eq!(pair.take_events(), [vec![Event::Over(End::Silent)], vec![Event::Over(End::Silent)]]);
    assert!(pair.ends.iter().all(|connection| connection.poll_timeout().is_none()));
}

#[test]
fn init_channel_is_acknowledged_and_closed_with_the_remote_and_is_no_stream() {
    let mut pair = Pair::connected();
    let now = pair.now;
    let end = &mut pair.ends[0];
    let channel = end.free_channel().unwrap();
    let mut open = dcep::open().to_vec();
    open[9] = 4;
    open.extend_from_slice(b"init");
    let sctp = end.sctp.as_mut().unwrap();
    sctp.open(channel).unwrap();
    sctp.write(now, channel, PayloadProtocol::Dcep, &open.into()).unwrap();
    end.channels.insert(channel, Channel::Open { inbound: false });
    pair.run(Duration::from_millis(100));
    let [ours, theirs] = pair.take_events();
    assert!(ours.contains(&Event::Readable(channel)), "the acknowledgement");
    assert!(theirs.is_empty(), "{theirs:?}");
    let now = pair.now;
    assert_eq!(pair.ends[0].read(now, channel), None);
    pair.ends[0].close_channel(now, channel);
    pair.run(Duration::from_secs(3));
    assert!(pair.take_events()[0].contains(&Event::Closed(channel)));
    assert!(pair.ends.iter().all(|connection| connection.channels.is_empty()));
}

#[test]
fn second_description_has_no_effect() {
    let mut pair = Pair::connected();
    pair.describe(0, Setup::Passive);
    pair.run(Duration::from_secs(1));
    let now = pair.now;
    assert!(pair.ends[0].open(now).is_some());
}
