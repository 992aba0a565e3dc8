//! Strangers whose checks were answered, and who have not shown that the answer has reached them.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use crate::limits;

/// The first check of each of so many addresses. A new one takes the place of the oldest.
///
/// Anybody can send a check in anybody's name, as many as the line carries; so nothing but this is kept for one. What needs
/// more begins with the handshake that follows the answer.
#[derive(Default)]
pub(super) struct Unproved {
    checks: HashMap<SocketAddr, (u64, Box<[u8]>)>,
    /// The oldest first. Those that were taken are still in it.
    order: VecDeque<(u64, SocketAddr)>,
    next: u64,
}

impl Unproved {
    /// Keeps the check for when more comes from there. Another one from there changes nothing of how old it is.
    pub(super) fn insert(&mut self, from: SocketAddr, check: &[u8]) {
        if let Some((_, known)) = self.checks.get_mut(&from) {
            *known = check.into();
            return;
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.checks.insert(from, (number, check.into()));
        self.order.push_back((number, from));
        if self.order.len() > limits::MAX_UNPROVED
            && let Some((number, oldest)) = self.order.pop_front()
            && self.checks.get(&oldest).is_some_and(|(known, _)| *known == number)
        {
            self.checks.remove(&oldest);
        }
    }

    /// The check that has come from there, if it is still known.
    pub(super) fn take(&mut self, from: SocketAddr) -> Option<Box<[u8]>> {
        self.checks.remove(&from).map(|(_, check)| check)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.checks.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> SocketAddr {
        let [a, b, c, d] = (number as u32).to_be_bytes();
        SocketAddr::from(([a, b, c, d], 1))
    }

    #[test]
    fn any_number_of_checks_takes_the_memory_of_so_many_and_the_last_are_known() {
        let mut unproved = Unproved::default();
        for number in 0..3 * limits::MAX_UNPROVED {
            unproved.insert(address(number), b"check");
            if number % 2 == 0 {
                assert!(unproved.take(address(number)).is_some());
                assert!(unproved.take(address(number)).is_none());
            }
        }
        assert!(
            unproved.order.len() <= limits::MAX_UNPROVED && unproved.checks.len() <= limits::MAX_UNPROVED
        );
        assert!(unproved.take(address(1)).is_none());
        assert!(unproved.take(address(3 * limits::MAX_UNPROVED - 1)).is_some());
    }

    #[test]
    fn an_address_that_comes_again_is_not_forgotten_for_what_it_was_before() {
        let mut unproved = Unproved::default();
        unproved.insert(address(0), b"first");
        unproved.take(address(0));
        for number in 1..limits::MAX_UNPROVED {
            unproved.insert(address(number), b"check");
        }
        unproved.insert(address(0), b"second");
        unproved.insert(address(0), b"third");
        assert_eq!(unproved.take(address(0)).as_deref(), Some(&b"third"[..]));
    }
}
