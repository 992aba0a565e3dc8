//! What the fuzzer runs of this crate: see `fuzz/` and CONTRIBUTING.md. There only in tests, which replay the corpora, and
//! under the fuzzer.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target reports by panicking"
)]

mod dtls;
mod ice;
mod sctp;
mod text;

pub use dtls::webrtc_dtls;
pub use ice::{webrtc_demultiplexer, webrtc_ice_agent, webrtc_stun};
pub use sctp::webrtc_sctp;
pub use text::{webrtc_channel, webrtc_sdp};

#[cfg(test)]
mod tests {
    use peerloom_fuzz_corpus::replay;

    #[test]
    fn corpora_are_replayed() {
        replay("webrtc_stun", super::webrtc_stun);
        replay("webrtc_sdp", super::webrtc_sdp);
        replay("webrtc_channel", super::webrtc_channel);
        replay("webrtc_ice_agent", super::webrtc_ice_agent);
        replay("webrtc_demultiplexer", super::webrtc_demultiplexer);
        replay("webrtc_dtls", super::webrtc_dtls);
        replay("webrtc_sctp", super::webrtc_sctp);
    }
}
