//! Remotes that break the rules.
