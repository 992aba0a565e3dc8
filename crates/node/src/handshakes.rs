//! Inbound handshakes under way: how many there may be, and which of them makes room for the next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::{AbortHandle, Abortable, abortable};
use parking_lot::Mutex;
use peerloom_core::runtime::{Instant, sleep_until};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The handshakes of all listeners of a node.
///
/// As long as there is room, a handshake has its whole time. Once there is none, the oldest gives way as soon as it has had
/// its grace: those who stall cannot keep honest dialers out for long.
pub(crate) struct Handshakes {
    slots: Arc<Semaphore>,
    grace: Duration,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Default)]
struct UnderWay {
    next: u64,
    /// The oldest first.
    by_age: BTreeMap<u64, (Instant, AbortHandle)>,
}

impl Handshakes {
    pub(crate) fn new(most: usize, grace: Duration) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            grace,
            under_way: Arc::default(),
        }
    }

    /// A place for one more, waiting for it if need be. Cancel-safe.
    pub(crate) async fn place(&self) -> Place {
        let acquiring = self.slots.clone().acquire_owned();
        futures_util::pin_mut!(acquiring);
        let mut made_room = false;
        loop {
            tokio::select! {
                biased;
                slot = &mut acquiring => return Place { _slot: slot.ok() },
                // One for each who waits: whoever was ended lets go of its place soon.
                () = sleep_until(self.next_in_turn()), if !made_room => made_room = self.end_oldest(),
            }
        }
    }

    /// `handshake`, counted from now on until it is dropped, and ended early if it has to make room.
    pub(crate) fn begin<F: Future>(&self, handshake: F) -> impl Future<Output = Option<F::Output>> + use<F> {
        let (handshake, handle) = abortable(handshake);
        let mut under_way = self.under_way.lock();
        let id = under_way.next;
        under_way.next = id.wrapping_add(1);
        under_way.by_age.insert(id, (Instant::now(), handle));
        let entry = Entry { under_way: self.under_way.clone(), id };
        run(handshake, entry)
    }

    /// When the oldest has had its grace.
    fn next_in_turn(&self) -> Instant {
        let began = self.under_way.lock().by_age.first_key_value().map(|(_, (began, _))| *began);
        began.unwrap_or_else(Instant::now) + self.grace
    }

    /// Ends the oldest, if it has had its grace.
    fn end_oldest(&self) -> bool {
        let mut under_way = self.under_way.lock();
        let Some(oldest) = under_way.by_age.first_entry() else { return false };
        let is_due = oldest.get().0.elapsed() >= self.grace;
        if is_due {
            oldest.remove().1.abort();
        }
        is_due
    }
}

async fn run<F: Future>(handshake: Abortable<F>, _entry: Entry) -> Option<F::Output> {
    handshake.await.ok()
}

/// The right to one handshake.
pub(crate) struct Place {
    /// None only if the semaphore was closed, which it never is.
    _slot: Option<OwnedSemaphorePermit>,
}

/// Takes its handshake out of the list.
struct Entry {
    under_way: Arc<Mutex<UnderWay>>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.under_way.lock().by_age.remove(&self.id);
    }
}
