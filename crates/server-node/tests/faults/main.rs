//! Hostile and broken peers, against the binary as an operator runs it: one port, every transport, over loopback. For as
//! long as each fault lasts, clients that are connected get their echoes, and new ones get in.
//!
//! What the server holds is printed before, during and after (`--nocapture`).

// Allowed in tests; clippy takes only the functions marked as such for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Real time, and tasks whose results are wanted.
#![allow(clippy::disallowed_methods)]

#[path = "../common/mod.rs"]
mod common;

mod floods;
mod frozen;
mod half_open;
mod honest;
mod interfaces;
mod limits;
mod mixed;
mod usage;
