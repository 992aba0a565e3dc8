//! What a worker has no means for is said, not suffered.

// Allowed in tests; clippy does not know those of wasm-bindgen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "wasm32")]

use peerloom_wasm::transports::BrowserPeerConnections;
use peerloom_webrtc_signaling::{PeerConnectionFactory as _, SignalingRole};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_dedicated_worker);

#[wasm_bindgen_test]
fn there_is_no_webrtc_between_pages_in_a_worker() {
    for role in [SignalingRole::Offerer, SignalingRole::Answerer] {
        let error = BrowserPeerConnections::new(Vec::new()).create(role).err().unwrap();
        assert!(error.contains("workers have none"), "{error}");
    }
}
