//! Buffers for what was opened.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Plaintexts that are remembered: those of a read, and those of the reads before that their streams have not read yet. Up to
/// 1 MiB that a busy connection has beyond what it must have.
const REMEMBERED: usize = 16;
/// Shorter ones cost little to allocate.
const WORTH_IT: usize = 16 * 1024;

/// Plaintexts handed out of late, whose memory is used again when nobody has them any more.
///
/// An allocator gives large buffers that are freed back to the system, which hands them out again page by page, zeroed: without
/// this, that takes a fifth of a receiver's time (glibc, 64 KiB frames).
#[derive(Default)]
pub(crate) struct Plaintexts(VecDeque<Bytes>);

impl Plaintexts {
    /// A buffer with room for `length`, of whatever content. Not one that is much larger: who keeps a slice keeps all of it.
    pub(crate) fn buffer(&mut self, length: usize) -> BytesMut {
        let unused = self.0.iter().position(Bytes::is_unique).filter(|_| length >= WORTH_IT);
        let memory =
            unused.and_then(|index| self.0.remove(index)).and_then(|unused| unused.try_into_mut().ok());
        match memory {
            Some(memory) if memory.capacity() >= length && memory.capacity() / 2 <= length => memory,
            _ => BytesMut::with_capacity(length),
        }
    }

    /// Hands the plaintext in `buffer` out.
    pub(crate) fn hand_out(&mut self, buffer: BytesMut) -> Bytes {
        let plaintext = buffer.freeze();
        if plaintext.len() >= WORTH_IT {
            if self.0.len() >= REMEMBERED {
                self.0.pop_front();
            }
            self.0.push_back(plaintext.clone());
        }
        plaintext
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(plaintexts: &mut Plaintexts, length: usize) -> Bytes {
        let mut buffer = plaintexts.buffer(length);
        buffer.resize(length, 7);
        plaintexts.hand_out(buffer)
    }

    #[test]
    fn memory_is_used_again_when_nobody_has_it_any_more() {
        let mut plaintexts = Plaintexts::default();
        let first = filled(&mut plaintexts, 60_000);
        let memory = first.as_ptr();
        let second = filled(&mut plaintexts, 60_000);
        assert_ne!(second.as_ptr(), memory);
        drop(first.slice(100..200));
        drop(first);
        assert_eq!(filled(&mut plaintexts, 50_000).as_ptr(), memory);
        assert_eq!(second, vec![7; 60_000]);
    }

    #[test]
    fn a_buffer_is_at_most_twice_as_large_as_what_it_is_for() {
        let mut plaintexts = Plaintexts::default();
        drop(filled(&mut plaintexts, 60_000));
        assert!(plaintexts.buffer(20_000).capacity() < 40_000);
    }

    #[test]
    fn few_are_remembered_and_small_ones_not_at_all() {
        let mut plaintexts = Plaintexts::default();
        for _ in 0..100 {
            filled(&mut plaintexts, 1000);
        }
        assert!(plaintexts.is_empty());
        let held: Vec<Bytes> = (0..100).map(|_| filled(&mut plaintexts, 60_000)).collect();
        assert_eq!(plaintexts.0.len(), REMEMBERED);
        drop(held);
        plaintexts.clear();
        assert!(plaintexts.is_empty());
    }
}
