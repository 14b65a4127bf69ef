//! How many jobs are worked on at the same time, and how many may wait.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How often a waiting job looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(20);

/// The slots of a model, and the queue before them.
#[derive(Debug)]
pub(super) struct Slots {
    total: u32,
    queue: u32,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    busy: u32,
    /// The tickets of jobs that wait, oldest first.
    waiting: Vec<u64>,
    next_ticket: u64,
}

impl Slots {
    /// `total` jobs at the same time, and `queue` that wait.
    pub(super) fn new(total: u32, queue: u32) -> Arc<Self> {
        Arc::new(Self { total, queue, state: Mutex::default(), freed: Condvar::new() })
    }

    /// A slot or a place in the queue; `None` when both are full.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state.lock();
        if state.busy.saturating_add(state.waiting()) >= self.total.saturating_add(self.queue) {
            return None;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push(ticket);
        Some(Place { slots: Arc::clone(self), ticket, has_slot: false })
    }

    /// How many jobs are worked on, and how many wait.
    pub(super) fn occupancy(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.busy, state.waiting())
    }
}

impl State {
    fn waiting(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }
}

/// One job's slot, or its place in the queue. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    slots: Arc<Slots>,
    ticket: u64,
    has_slot: bool,
}

impl Place {
    /// Waits for a slot, in turn. Answers `false` when the job is no longer wanted.
    pub(super) fn wait(&mut self, is_wanted: impl Fn() -> bool) -> bool {
        let mut state = self.slots.state.lock();
        while state.busy >= self.slots.total || state.waiting.first() != Some(&self.ticket) {
            if !is_wanted() {
                return false;
            }
            self.slots.freed.wait_for(&mut state, POLL);
        }
        state.busy += 1;
        state.waiting.remove(0);
        self.has_slot = true;
        drop(state);
        // Another slot may be free for the next.
        self.slots.freed.notify_all();
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        if self.has_slot {
            state.busy -= 1;
        } else {
            state.waiting.retain(|ticket| *ticket != self.ticket);
        }
        drop(state);
        self.slots.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_get_slots_in_turn_and_what_is_too_much_is_refused() {
        let slots = Slots::new(1, 1);
        let mut first = slots.enter().unwrap();
        let mut second = slots.enter().unwrap();
        assert!(slots.enter().is_none(), "one slot and one place in the queue");
        assert!(first.wait(|| true));
        assert_eq!(slots.occupancy(), (1, 1));
        assert!(!second.wait(|| false), "an unwanted job does not wait");
        drop(first);
        assert!(second.wait(|| true));
        drop(second);
        assert_eq!(slots.occupancy(), (0, 0));
        // A job that is dropped while it waits leaves the queue.
        let (gone, mut next) = (slots.enter().unwrap(), slots.enter().unwrap());
        drop(gone);
        assert!(next.wait(|| true));
    }
}
