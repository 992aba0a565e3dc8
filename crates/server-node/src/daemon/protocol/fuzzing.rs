//! What the fuzzer runs of what is private here: see `fuzz/` and CONTRIBUTING.md. There only in tests, which replay the
//! corpora, and under the fuzzer.
#![allow(clippy::expect_used, clippy::panic, reason = "a target reports by panicking")]

use bytes::Bytes;

use super::{LocalAddress, MAX_PROTOCOLS, MAX_TAG_LENGTH, MAX_TIMEOUT, Request};

/// What a program on this machine asks of the daemon, or a page that got hold of its port.
pub(crate) fn daemon_request(data: &[u8]) {
    let request = match Request::decode(Bytes::copy_from_slice(data)) {
        Ok(request) => request,
        Err(error) => {
            // Goes to the client.
            assert!(!error.to_string().is_empty());
            assert!(!data.starts_with(b"GET ") || error.is_foreign(), "a browser is not answered");
            return;
        }
    };
    assert!(!data.starts_with(b"POST "), "a browser is not answered");
    match request {
        Request::Connect { peer, addresses, timeout } => {
            assert!(timeout <= MAX_TIMEOUT && !timeout.is_zero());
            assert!(addresses.iter().all(|address| address.peer_id().is_none_or(|named| named == peer)));
        }
        Request::OpenStream { protocols, timeout, .. } => {
            assert!(timeout <= MAX_TIMEOUT && !timeout.is_zero());
            assert!((1..=MAX_PROTOCOLS).contains(&protocols.len()));
        }
        Request::HandleStreams { address, protocols } => {
            assert!((1..=MAX_PROTOCOLS).contains(&protocols.len()));
            if let LocalAddress::Tcp(address) = address {
                assert!(address.ip().is_loopback(), "streams are given to {address}, in the clear");
            }
        }
        Request::TagPeer { tag, .. } | Request::UntagPeer { tag, .. } => {
            assert!((1..=MAX_TAG_LENGTH).contains(&tag.len()));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        peerloom_fuzz_corpus::replay("daemon_request", super::daemon_request);
    }
}
