//! What the peer programs in Rust have in common; ../README.md has their contracts.

pub mod test_plans;

/// Bytes of which no two stretches are alike, so that a lost, doubled or swapped chunk shows.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}
