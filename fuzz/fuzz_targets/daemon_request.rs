#![no_main]

/// Of the server, which is a program and cannot be depended upon: as much of its module as the target needs.
#[path = "../../crates/server-node/src/daemon"]
#[allow(dead_code, unused_imports, reason = "the rest of the server uses it")]
mod daemon {
    mod address;
    pub(crate) mod protocol;
    mod wire;
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| daemon::protocol::fuzzing::daemon_request(data));
