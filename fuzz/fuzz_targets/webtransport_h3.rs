#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_quic::fuzzing::webtransport_h3(data));
