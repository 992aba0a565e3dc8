use std::{
    collections::VecDeque,
    sync::LazyLock,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    certificate::Certificate,
    driver,
    dtls::{Dtls, DtlsConfig, DtlsEvent},
};

static CONFIGS: LazyLock<[DtlsConfig; 2]> = LazyLock::new(|| {
    [true, false].map(|is_client| {
        let certificate = Certificate::generate().expect("a certificate");
        certificate.dtls_config(is_client).expect("settings")
    })
});

/// A handshake into which a stranger throws datagrams: the first two bytes of each are when, and how long it is. Neither
/// end believes what only a stranger has said.
pub fn webrtc_dtls(data: &[u8]) {
    let [client, server] = &*CONFIGS;
    let mut now = driver::now();
    let mut ends =
        [Dtls::client(client.clone(), now).expect("a handshake begins"), Dtls::server(server.clone())];
    let mut flying: [VecDeque<Bytes>; 2] = Default::default();
    let mut rest = data;
    while let Some(([when, length], after)) = rest.split_first_chunk::<2>() {
        // So many datagrams arrive before it, at one end or the other, and it may be one of them that is changed.
        for _ in 0..when & 7 {
            deliver(&mut ends, &mut flying, now);
        }
        let (datagram, after) = after.split_at(after.len().min((*length).into()));
        rest = after;
        let to = usize::from(when & 8 != 0);
        let changed = match flying[to].front().filter(|_| when & 16 != 0) {
            Some(honest) => {
                let mut changed = honest.to_vec();
                changed.iter_mut().zip(datagram).for_each(|(byte, difference)| *byte ^= difference);
                changed
            }
            None => datagram.to_vec(),
        };
        let _ = ends[to].handle_datagram(now, &changed);
        if when & 32 != 0 {
            now += Duration::from_millis((*when).into());
            for end in &mut ends {
                settle(end, now);
            }
        }
        collect(&mut ends, &mut flying);
        check(&mut ends);
    }
    for _ in 0..100 {
        deliver(&mut ends, &mut flying, now);
        check(&mut ends);
    }
    ends.iter_mut().for_each(|end| end.close(now));
    collect(&mut ends, &mut flying);
}

fn check(ends: &mut [Dtls; 2]) {
    for end in ends {
        while let Some(event) = end.poll_event() {
            assert!(!matches!(event, DtlsEvent::Packet(_)), "nobody has sent this");
        }
        if end.is_connected() {
            assert!(end.remote_fingerprint().is_some(), "a remote shows its certificate");
        }
    }
}

fn settle(end: &mut Dtls, now: Instant) {
    for _ in 0..64 {
        if end.poll_timeout().is_none_or(|due| due > now) || end.handle_timeout(now).is_err() {
            return;
        }
    }
    panic!("a handshake wants to be woken again and again");
}

fn collect(ends: &mut [Dtls; 2], flying: &mut [VecDeque<Bytes>; 2]) {
    for (from, end) in ends.iter_mut().enumerate() {
        let sent: Vec<_> = std::iter::from_fn(|| end.poll_transmit()).take(1000).collect();
        assert!(sent.len() < 1000, "one datagram makes many");
        flying[1 - from].extend(sent);
    }
}

fn deliver(ends: &mut [Dtls; 2], flying: &mut [VecDeque<Bytes>; 2], now: Instant) {
    collect(ends, flying);
    for (to, end) in ends.iter_mut().enumerate() {
        if let Some(datagram) = flying[to].pop_front() {
            let _ = end.handle_datagram(now, &datagram);
        }
    }
    collect(ends, flying);
}
