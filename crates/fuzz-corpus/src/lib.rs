//! The corpora under `fuzz/corpus`, and how a test replays them: what the fuzzer has found once is tested ever after, on
//! stable and in a moment.
//!
//! A crate of its own, and one without dependencies, because the bodies of some targets are in the crates that they test:
//! those depend on nothing that depends on them.

#![allow(clippy::expect_used, clippy::panic, reason = "only tests use it")]

use std::{fs, path::Path};

/// What a corpus may take, in bytes: a file that is longer wants to be minimised.
pub const MAX_FILE_BYTES: usize = 4 * 1024;

/// Runs `target` with every file of the corpus that has its name, with no bytes, and with each file cut short.
///
/// # Panics
/// If there is no such corpus, or one of its files is too long; and as `target` does.
pub fn replay(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a folder is read").path()).collect();
    // In an order that does not depend on the file system, so that the first failure is always the same.
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    target(&[]);
    for file in files {
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(bytes.len() <= MAX_FILE_BYTES, "{} has {} bytes", file.display(), bytes.len());
        // Tests show what was printed when they fail: this is the input that did it.
        println!("{}", file.display());
        target(&bytes);
        target(bytes.get(..bytes.len() / 2).unwrap_or_default());
    }
}
