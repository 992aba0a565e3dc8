#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_webrtc::fuzzing::webrtc_ice_agent(data));
