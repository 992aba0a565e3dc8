#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_quic::fuzzing::quic_client_hello(data));
