//! What the fuzzer runs, as far as it needs nothing that is private: bytes against the decoders and state machines of
//! Peerloom. The targets of private ones are in the `fuzzing` module of their crates, which exists in tests and under the
//! fuzzer only.
//!
//! A target takes any bytes and panics if something does not hold; `fuzz/fuzz_targets` has the program of each, and
//! `fuzz/corpus` what the fuzzer has found to be different, which `tests/replay.rs` runs on stable.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a target reports by panicking"
)]

mod input;

pub mod core;
pub mod protocols;
pub mod transports;
pub mod upgrade;
pub mod yamux;
