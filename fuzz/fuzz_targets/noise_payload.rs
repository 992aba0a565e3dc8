#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_upgrade::noise::fuzzing::noise_payload(data));
