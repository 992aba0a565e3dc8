#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_websocket::fuzzing::websocket_pipe(data));
