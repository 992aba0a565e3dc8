#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_node::identify::fuzzing::identify_message(data));
