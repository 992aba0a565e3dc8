//! The section `[relay]` of the configuration.

use std::time::Duration;

use anyhow::bail;
use peerloom_relay::RelayLimits;
use serde::Deserialize;

/// As it is written. What is left out has the default of [`RelayLimits`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRelay {
    #[serde(default)]
    enabled: bool,
    reservations: Option<usize>,
    reservations_per_ip: Option<usize>,
    reservation_seconds: Option<u64>,
    circuits: Option<usize>,
    circuits_per_peer: Option<usize>,
    /// Each direction; 0 for no limit.
    circuit_bytes: Option<u64>,
    /// 0 for no limit.
    circuit_seconds: Option<u64>,
}

impl FileRelay {
    /// The limits to relay within; `None` if this node is no relay. `by_flag` is whether the command line says that it is one.
    pub(crate) fn limits(self, by_flag: bool) -> anyhow::Result<Option<RelayLimits>> {
        let mut limits = RelayLimits::default();
        for (key, written, limit) in [
            ("reservations", self.reservations, &mut limits.reservations),
            ("reservations_per_ip", self.reservations_per_ip, &mut limits.reservations_per_ip),
            ("circuits", self.circuits, &mut limits.circuits),
            ("circuits_per_peer", self.circuits_per_peer, &mut limits.circuits_per_peer),
        ] {
            match written {
                Some(0) => bail!("relay.{key}: must be at least 1"),
                Some(written) => *limit = written,
                None => {}
            }
        }
        match self.reservation_seconds {
            Some(0) => bail!("relay.reservation_seconds: must be at least 1"),
            Some(seconds) => limits.reservation_ttl = Duration::from_secs(seconds),
            None => {}
        }
        if let Some(bytes) = self.circuit_bytes {
            limits.circuit_bytes = Some(bytes).filter(|bytes| *bytes > 0);
        }
        if let Some(seconds) = self.circuit_seconds {
            limits.circuit_duration = Some(Duration::from_secs(seconds)).filter(|_| seconds > 0);
        }
        Ok((self.enabled || by_flag).then_some(limits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str, by_flag: bool) -> anyhow::Result<Option<RelayLimits>> {
        toml::from_str::<FileRelay>(text)?.limits(by_flag)
    }

    #[test]
    fn a_node_is_a_relay_only_if_told_so() {
        assert_eq!(limits("circuits = 5", false).unwrap(), None);
        assert_eq!(limits("", true).unwrap(), Some(RelayLimits::default()));
        assert_eq!(limits("enabled = true\ncircuits = 5", false).unwrap().unwrap().circuits, 5);
    }

    #[test]
    fn a_zero_is_no_limit_for_a_circuit_and_an_error_elsewhere() {
        let unlimited = limits("circuit_bytes = 0\ncircuit_seconds = 0", true).unwrap().unwrap();
        assert_eq!((unlimited.circuit_bytes, unlimited.circuit_duration), (None, None));
        let error = limits("reservations_per_ip = 0", true).unwrap_err().to_string();
        assert_eq!(error, "relay.reservations_per_ip: must be at least 1");
        let error = limits("reservation_seconds = 0", true).unwrap_err().to_string();
        assert_eq!(error, "relay.reservation_seconds: must be at least 1");
    }
}
