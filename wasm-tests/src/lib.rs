//! The tests are in `tests/`: what needs a browser, run by `cargo xtask test` in Chromium and in Firefox.
