//! What the fuzzer runs of what is private here: see `fuzz/` and CONTRIBUTING.md. There only in tests, which replay the
//! corpora, and under the fuzzer.
#![allow(clippy::expect_used, clippy::panic, reason = "a target reports by panicking")]

use super::{MAX_CLIENT_HELLO, Service, service};

/// What a dialer begins with, which chooses who serves it.
pub fn tcp_service(data: &[u8]) {
    let whole = service(data);
    assert!(whole.is_some() || data.len() < MAX_CLIENT_HELLO, "a dialer is not waited for without an end");
    // Of what is not TLS, a few bytes decide, and the rest changes nothing.
    for length in 0..data.len().min(5) {
        if let Some(early) = service(data.get(..length).unwrap_or_default()) {
            assert_eq!(whole, Some(early));
        }
    }
    assert_eq!(whole == Some(Service::Http), data.starts_with(b"GET "));
    assert!(whole != Some(Service::Https) || data.starts_with(&[0x16, 3]));
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        peerloom_fuzz_corpus::replay("tcp_service", super::tcp_service);
    }
}
