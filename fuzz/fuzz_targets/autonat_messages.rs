#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_fuzz_targets::protocols::autonat_messages(data));
