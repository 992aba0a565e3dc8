use std::time::Duration;

use peerloom_core::CircuitLimits;

/// Everything of a relay that strangers could make grow, bounded in one place. The defaults are those of go-libp2p, unless
/// said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayLimits {
    /// Reservations at one time; 128. A peer has one, which it renews.
    pub reservations: usize,
    /// Reservations at one time from one IPv4 address, or from one IPv6 network (/64); 8.
    pub reservations_per_ip: usize,
    /// Reservations at one time from one autonomous system, where it is known; 32.
    pub reservations_per_asn: usize,
    /// How long a reservation holds if it is not renewed; 1 h.
    pub reservation_ttl: Duration,
    /// Circuits at one time, those that are being opened included; 1024. go-libp2p has no such limit.
    pub circuits: usize,
    /// Circuits at one time from or to one peer; 16.
    pub circuits_per_peer: usize,
    /// How long a circuit lasts; 2 min. `None` for no limit. Told to clients in whole seconds.
    pub circuit_duration: Option<Duration>,
    /// Bytes that a circuit carries in each direction; 128 KiB. `None` for no limit.
    pub circuit_bytes: Option<u64>,
    /// What a client has to say what it wants, after it has opened a stream; 10 s (go-libp2p: 1 min).
    pub request_timeout: Duration,
    /// What the destination of a circuit has to accept it; 10 s (go-libp2p: 1 min).
    pub connect_timeout: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            reservations: 128,
            reservations_per_ip: 8,
            reservations_per_asn: 32,
            reservation_ttl: Duration::from_secs(3600),
            circuits: 1024,
            circuits_per_peer: 16,
            circuit_duration: Some(Duration::from_secs(120)),
            circuit_bytes: Some(128 * 1024),
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl RelayLimits {
    /// What both ends of a circuit are told.
    pub(super) fn of_circuit(&self) -> CircuitLimits {
        CircuitLimits { bytes: self.circuit_bytes, duration: self.circuit_duration }
    }
}
