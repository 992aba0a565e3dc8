#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_socket::tcp::fuzzing::tcp_service(data));
