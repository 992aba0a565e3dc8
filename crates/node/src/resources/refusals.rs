//! Who is refused something is told of, but a flood of them is not a flood of events.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use peerloom_core::runtime::Instant;

use super::{LimitExceeded, Resource, ScopeKind};
use crate::event::{EventSender, NodeEvent};

/// Between two events about one resource of one kind of scope.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Refusals {
    events: EventSender,
    /// As many as there are kinds of scopes and resources, at most.
    told: Mutex<BTreeMap<(ScopeKind, Resource), Told>>,
}

struct Told {
    at: Instant,
    /// Since then.
    untold: u64,
}

impl Refusals {
    pub(super) fn new(events: EventSender) -> Self {
        Self { events, told: Mutex::default() }
    }

    pub(super) fn tell(&self, refused: &LimitExceeded) {
        let now = Instant::now();
        let untold = {
            let mut told = self.told.lock();
            match told.get_mut(&(refused.scope.kind(), refused.resource)) {
                Some(told) if now.saturating_duration_since(told.at) < INTERVAL => {
                    told.untold = told.untold.saturating_add(1);
                    return;
                }
                Some(told) => {
                    told.at = now;
                    std::mem::take(&mut told.untold)
                }
                None => {
                    told.insert((refused.scope.kind(), refused.resource), Told { at: now, untold: 0 });
                    0
                }
            }
        };
        self.events.emit(NodeEvent::IncomingRefused { error: refused.clone(), untold });
    }
}
