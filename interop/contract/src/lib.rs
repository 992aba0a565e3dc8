//! What the peer programs in Rust have in common; ../README.md has their contracts.

pub mod test_plans;
