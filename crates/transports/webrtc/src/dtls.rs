//! DTLS 1.2 for one connection: the library's endpoint behind a guard for what strangers send.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use peerloom_core::Multihash;
use rtc_dtls::{
    config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig},
    crypto::Certificate,
    endpoint::{Endpoint, EndpointEvent},
    extension::extension_use_srtp::SrtpProtectionProfile,
};
use rtc_shared::{TransportProtocol, error::Error};

mod records;

use records::{RecordGuard, Verdict};

/// The library tells connections apart by address. There is one per endpoint here, whatever paths it takes.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 65535);

/// How wide the window of record numbers is in which a replay is recognised. Wider than the default of 64, because a
/// flight of SCTP packets that overtakes another would otherwise be taken for one.
const REPLAY_WINDOW: usize = 1024;

/// How often a flight of the handshake is sent again because the remote repeats its own, and how soon after the last time.
/// Browsers repeat themselves after 50 ms at first.
const MAX_REPETITIONS: usize = 16;
const REPETITION_INTERVAL: Duration = Duration::from_millis(20);

/// What both kinds of connections of a transport need to know.
pub(crate) type DtlsConfig = Arc<HandshakeConfig>;

/// The settings of a listener (`is_client` false) or a dialer with this certificate.
///
/// The library is told to accept any certificate: a listener learns the dialer's from this very handshake, and a dialer
/// compares the listener's with the hash in the address as soon as it has it ([`Dtls::remote_fingerprint`]). The Noise
/// handshake then binds both to the peers' identities.
pub(crate) fn dtls_config(certificate: Certificate, is_client: bool) -> Result<DtlsConfig, Error> {
    let provider =
        rtc_dtls::crypto_provider::default_provider().map_err(|error| Error::Crypto(error.to_string()))?;
    let config = ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_certificates(vec![certificate])
        // Browsers always ask for SRTP, and some stacks do not go on without an answer.
        .with_srtp_protection_profiles(vec![
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        ])
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_insecure_skip_verify(true)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        .with_replay_protection_window(REPLAY_WINDOW)
        .build(is_client, None)?;
    Ok(Arc::new(config))
}

/// What DTLS has to report.
#[derive(Debug)]
pub(crate) enum DtlsEvent {
    /// The handshake is complete.
    Connected,
    /// One decrypted packet of the layer above.
    Packet(Bytes),
    /// The remote has sent a close_notify.
    ClosedByRemote,
}

/// The DTLS half of a connection.
pub(crate) struct Dtls {
    endpoint: Endpoint,
    state: State,
    guard: RecordGuard,
    flight: Flight,
    transmits: VecDeque<Bytes>,
    events: VecDeque<DtlsEvent>,
}

/// What was last sent in the handshake. Sent again as it is, for the library sends it no more once the remote has repeated
/// itself: records that did arrive are replays to the remote, and the others are not.
#[derive(Default)]
struct Flight {
    datagrams: Vec<Bytes>,
    repetitions: usize,
    last: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Handshaking,
    Connected,
    Closed,
}

impl Dtls {
    /// Waits for a ClientHello.
    pub(crate) fn server(config: DtlsConfig) -> Self {
        Self::new(Endpoint::new(PEER, TransportProtocol::UDP, Some(config)))
    }

    /// Queues a ClientHello.
    pub(crate) fn client(config: DtlsConfig, now: Instant) -> Result<Self, Error> {
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
        endpoint.connect(now, PEER, config, None)?;
        let mut dtls = Self::new(endpoint);
        dtls.collect_flight(now);
        Ok(dtls)
    }

    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            state: State::Handshaking,
            guard: RecordGuard::default(),
            flight: Flight::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a datagram that is not STUN. An error means that the handshake has failed, or that the remote has ended an
    /// established connection with a fatal alert.
    pub(crate) fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Error> {
        let connected = self.state == State::Connected;
        // A closed endpoint would take what comes late for the start of a new handshake.
        if self.state == State::Closed {
            return Ok(());
        }
        match self.guard.judge(datagram, connected) {
            Verdict::Pass => {}
            Verdict::Repetition if !connected => {
                self.repeat_flight(now);
                return Ok(());
            }
            Verdict::Repetition | Verdict::Drop => return Ok(()),
        }
        let read = self.endpoint.read(now, PEER, None, BytesMut::from(datagram));
        self.collect_flight(now);
        let events = match read {
            Ok(events) => events,
            // Whoever spoofs the remote's address can make a record that does not parse, but no authentic alert.
            Err(error) if connected && !matches!(error, Error::ErrAlertFatalOrClose) => {
                tracing::debug!(%error, "dropped a DTLS record");
                return Ok(());
            }
            Err(error) => {
                self.state = State::Closed;
                return Err(error);
            }
        };
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    self.state = State::Connected;
                    self.flight = Flight::default();
                    self.events.push_back(DtlsEvent::Connected);
                }
                EndpointEvent::ApplicationData(data) => {
                    self.events.push_back(DtlsEvent::Packet(data.freeze()))
                }
                EndpointEvent::PeerClosed => {
                    self.state = State::Closed;
                    self.events.push_back(DtlsEvent::ClosedByRemote);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Encrypts and queues one packet of the layer above.
    pub(crate) fn send(&mut self, now: Instant, packet: &[u8]) -> Result<(), Error> {
        if self.state == State::Connected { self.endpoint.write(now, PEER, packet) } else { Ok(()) }
    }

    pub(crate) fn poll_event(&mut self) -> Option<DtlsEvent> {
        self.events.pop_front()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmits
            .pop_front()
            .or_else(|| self.endpoint.poll_transmit().map(|transmit| transmit.message.freeze()))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&PEER)
    }

    /// An error means that the handshake has used up its retransmissions.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.endpoint.get_connection_state(PEER).is_none() {
            return Ok(());
        }
        let handled = self.endpoint.handle_timeout(PEER, now);
        self.collect_flight(now);
        handled
    }

    /// The hash of the certificate with which the remote has completed the handshake.
    pub(crate) fn remote_fingerprint(&self) -> Option<Multihash> {
        let state = self.endpoint.get_connection_state(PEER)?;
        state.peer_certificates.first().map(|certificate| Multihash::sha2_256_of(certificate))
    }

    /// Takes what the library wants sent, and remembers it as long as the handshake lasts.
    fn collect_flight(&mut self, now: Instant) {
        if self.state != State::Handshaking {
            return;
        }
        let mut datagrams = Vec::new();
        while let Some(transmit) = self.endpoint.poll_transmit() {
            datagrams.push(transmit.message.freeze());
        }
        if !datagrams.is_empty() {
            self.transmits.extend(datagrams.iter().cloned());
            self.flight.datagrams = datagrams;
            self.flight.last = Some(now);
        }
    }

    fn repeat_flight(&mut self, now: Instant) {
        let soon =
            self.flight.last.is_some_and(|last| now.saturating_duration_since(last) < REPETITION_INTERVAL);
        if soon || self.flight.repetitions >= MAX_REPETITIONS {
            return;
        }
        self.flight.repetitions += 1;
        self.flight.last = Some(now);
        self.transmits.extend(self.flight.datagrams.iter().cloned());
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Queues a close_notify.
    pub(crate) fn close(&mut self, now: Instant) {
        if self.state != State::Closed {
            self.state = State::Closed;
            if let Err(error) = self.endpoint.close(now) {
                tracing::debug!(%error, "could not queue a close_notify");
            }
        }
    }
}
