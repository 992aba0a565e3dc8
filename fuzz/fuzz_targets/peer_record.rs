#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_fuzz_targets::core::peer_record(data));
