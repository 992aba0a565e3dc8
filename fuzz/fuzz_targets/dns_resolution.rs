#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_fuzz_targets::transports::dns_resolution(data));
