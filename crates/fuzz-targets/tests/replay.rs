//! Every corpus of a public target, on stable and in a moment.

use peerloom_fuzz_corpus::replay;
use peerloom_fuzz_targets::{core, protocols, transports, upgrade, yamux};

#[test]
fn corpora_of_core_are_replayed() {
    replay("multiaddr_text", core::multiaddr_text);
    replay("multiaddr_binary", core::multiaddr_binary);
    replay("peer_id", core::peer_id);
    replay("multihash", core::multihash);
    replay("unsigned_varint", core::unsigned_varint);
    replay("message_framing", core::message_framing);
    replay("keys", core::keys);
    replay("signed_envelope", core::signed_envelope);
    replay("peer_record", core::peer_record);
    replay("multistream_dialer", core::multistream_dialer);
    replay("multistream_listener", core::multistream_listener);
    replay("webrtc_stream", core::webrtc_stream);
}

#[test]
fn corpora_of_yamux_are_replayed() {
    replay("yamux_frame", yamux::yamux_frame);
    replay("yamux_session", yamux::yamux_session);
    replay("yamux_pair", yamux::yamux_pair);
}

#[test]
fn corpora_of_upgrade_are_replayed() {
    replay("noise_handshake", upgrade::noise_handshake);
    replay("pnet_key_file", upgrade::pnet_key_file);
    replay("pnet_pipe", upgrade::pnet_pipe);
    replay("tls_certificate", upgrade::tls_certificate);
}

#[test]
fn corpora_of_protocols_are_replayed() {
    replay("autonat_messages", protocols::autonat_messages);
    replay("relay_messages", protocols::relay_messages);
    replay("relay_voucher", protocols::relay_voucher);
    replay("signaling_message", protocols::signaling_message);
    replay("signaling_session", protocols::signaling_session);
}

#[test]
fn corpora_of_transports_are_replayed() {
    replay("transport_addresses", transports::transport_addresses);
    replay("webtransport_certificate", transports::webtransport_certificate);
    replay("dns_resolution", transports::dns_resolution);
}
