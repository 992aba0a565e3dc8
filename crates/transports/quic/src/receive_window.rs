//! How much connections may receive before it is read: little at first, more for those whose remotes say that they are
//! held up, all of it out of one budget.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use quinn::VarInt;

use crate::limits::{MAX_RECEIVE_WINDOW, MIN_RECEIVE_WINDOW, STREAM_RECEIVE_WINDOW};

/// What all connections of a transport may receive unread beyond [`MIN_RECEIVE_WINDOW`] each, in bytes.
#[derive(Debug)]
pub(crate) struct ReceiveBudget {
    left: AtomicU64,
}

impl ReceiveBudget {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(bytes) })
    }

    fn take(&self, bytes: u64) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The receive window of one connection. What it has of the budget goes back when it is dropped: a window that was
/// granted cannot be taken back while the remote lives.
#[derive(Debug)]
pub(crate) struct ReceiveWindow {
    budget: Arc<ReceiveBudget>,
    read: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: u64,
    /// How often the remote had said that the window holds it up when we last looked.
    blocked: u64,
    /// `read` at that time.
    read: u64,
}

impl ReceiveWindow {
    pub(crate) fn new(budget: Arc<ReceiveBudget>) -> Self {
        let state = State { window: MIN_RECEIVE_WINDOW, blocked: 0, read: 0 };
        Self { budget, read: AtomicU64::new(0), state: Mutex::new(state) }
    }

    /// Counts bytes that were read. Looks at the window each time half of it was.
    pub(crate) fn read(&self, connection: &quinn::Connection, bytes: usize) {
        let bytes = bytes as u64;
        let read = self.read.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let Some(mut state) = self.state.try_lock() else { return };
        if read.saturating_sub(state.read) >= state.window / 2 {
            state.read = read;
            self.widen_if_blocked(&mut state, connection, 0);
        }
    }

    /// For a connection on which nothing may be read any more because one stream that nobody reads holds the window:
    /// the others must go on.
    pub(crate) fn check(&self, connection: &quinn::Connection) {
        self.widen_if_blocked(&mut self.state.lock(), connection, STREAM_RECEIVE_WINDOW + MIN_RECEIVE_WINDOW);
    }

    fn widen_if_blocked(&self, state: &mut State, connection: &quinn::Connection, at_least: u64) {
        let blocked = connection.stats().frame_rx.data_blocked;
        if std::mem::replace(&mut state.blocked, blocked) == blocked {
            return;
        }
        let window = state.window.saturating_mul(2).max(at_least).min(MAX_RECEIVE_WINDOW);
        let more = window.saturating_sub(state.window);
        if more > 0 && self.budget.take(more) {
            state.window = window;
            connection.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
    }
}

impl Drop for ReceiveWindow {
    fn drop(&mut self) {
        let window = self.state.get_mut().window;
        self.budget.give_back(window.saturating_sub(MIN_RECEIVE_WINDOW));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_no_more_than_it_has_and_takes_back_what_it_gave() {
        let budget = ReceiveBudget::new(10);
        assert!(budget.take(7));
        assert!(!budget.take(4));
        assert!(budget.take(3));
        budget.give_back(7);
        assert!(budget.take(7));
        let window = ReceiveWindow::new(budget.clone());
        window.state.lock().window += 5;
        drop(window);
        assert!(budget.take(5));
        assert!(!budget.take(1));
    }
}
