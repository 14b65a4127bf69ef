//! Who is next: the jobs that wait for a model, fair between callers and bounded in number.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): each caller's jobs get start tags one apart, and the lowest tag
//! runs next. A caller with one job waits for one job of each other caller, however many those have queued. Jobs of a higher
//! priority go before all of a lower one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Callers whose last tag is remembered; when there are more, those without waiting jobs are forgotten.
const CALLERS_MAX: usize = 1024;

/// How urgent a job is. A higher one goes first, whoever else waits.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// When nothing else is to be done.
    Low,
    /// As most are.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// Who wants a job done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller<'a> {
    /// Takes turns with the others; empty for those who are not told apart.
    pub name: &'a str,
    /// How urgent it is.
    pub priority: Priority,
}

/// The queue of a model.
#[derive(Debug)]
pub(super) struct Admission {
    queue: Arc<Mutex<Queue>>,
}

/// The right to run a job; gives way to the next when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    queue: Arc<Mutex<Queue>>,
}

/// A place in the queue: the right to run comes through it.
pub(super) type Place = oneshot::Receiver<Permit>;

/// What became of a job that wants to run.
pub(super) enum Entry {
    /// It may run.
    Now(Permit),
    /// It waits.
    Later(Place),
    /// So many wait already.
    Full(usize),
}

/// Order of those who wait: priority, start tag, arrival.
type Rank = (std::cmp::Reverse<Priority>, u64, u64);

#[derive(Debug)]
struct Queue {
    /// Jobs that may run at once.
    capacity: usize,
    running: usize,
    waiting_max: usize,
    waiting: BTreeMap<Rank, oneshot::Sender<Permit>>,
    /// The tag that the next job of a caller gets at least.
    next_tags: HashMap<String, u64>,
    /// Tag of the job that started last.
    clock: u64,
    /// Number of the next job; orders those with one tag.
    arrivals: u64,
}

impl Admission {
    /// A queue of at most `waiting_max` jobs before a model whose capacity is not known yet: all may run.
    pub(super) fn new(waiting_max: usize) -> Self {
        let queue = Queue {
            capacity: usize::MAX,
            running: 0,
            waiting_max,
            waiting: BTreeMap::new(),
            next_tags: HashMap::new(),
            clock: 0,
            arrivals: 0,
        };
        Self { queue: Arc::new(Mutex::new(queue)) }
    }

    /// Sets how many jobs may run at once; 0 means that the model does not say, and all may.
    pub(super) fn set_capacity(&self, slots: usize) {
        self.queue.lock().capacity = if slots == 0 { usize::MAX } else { slots };
        start_waiting(&self.queue);
    }

    /// Jobs that run and jobs that wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        (queue.running, queue.waiting.len())
    }

    /// Lets a job of `caller` in.
    pub(super) fn enter(&self, caller: Caller<'_>) -> Entry {
        let mut queue = self.queue.lock();
        queue.forget_place_holders();
        let tag = queue.tag(caller.name);
        if queue.running < queue.capacity && queue.waiting.is_empty() {
            queue.running += 1;
            queue.clock = queue.clock.max(tag);
            return Entry::Now(Permit { queue: Arc::clone(&self.queue) });
        }
        if queue.waiting.len() >= queue.waiting_max {
            return Entry::Full(queue.waiting.len());
        }
        let (sender, place) = oneshot::channel();
        queue.arrivals += 1;
        let rank = (std::cmp::Reverse(caller.priority), tag, queue.arrivals);
        queue.waiting.insert(rank, sender);
        Entry::Later(place)
    }
}

impl Queue {
    /// The start tag of a caller's next job.
    fn tag(&mut self, caller: &str) -> u64 {
        if self.next_tags.len() >= CALLERS_MAX {
            let clock = self.clock;
            self.next_tags.retain(|_, next| *next > clock);
        }
        let next = self.next_tags.entry(caller.to_owned()).or_default();
        let tag = (*next).max(self.clock);
        *next = tag + 1;
        tag
    }

    /// Removes jobs whose clients went away.
    fn forget_place_holders(&mut self) {
        self.waiting.retain(|_, place| !place.is_closed());
    }
}

/// Starts jobs while there is room. Outside the lock, a permit that nobody takes comes back by being dropped.
fn start_waiting(shared: &Arc<Mutex<Queue>>) {
    loop {
        let place = {
            let mut queue = shared.lock();
            if queue.running >= queue.capacity {
                return;
            }
            let Some(((_, tag, _), place)) = queue.waiting.pop_first() else { return };
            if place.is_closed() {
                continue;
            }
            queue.running += 1;
            queue.clock = queue.clock.max(tag);
            place
        };
        // Nobody waits any more: the permit in the error is dropped, which starts the next.
        let _ = place.send(Permit { queue: Arc::clone(shared) });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.queue.lock().running -= 1;
        start_waiting(&self.queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(slots: usize, waiting_max: usize) -> Admission {
        let admission = Admission::new(waiting_max);
        admission.set_capacity(slots);
        admission
    }

    fn now(admission: &Admission, caller: &str) -> Permit {
        match admission.enter(Caller { name: caller, ..Caller::default() }) {
            Entry::Now(permit) => permit,
            Entry::Later(_) | Entry::Full(_) => panic!("{caller} has to wait"),
        }
    }

    fn later(admission: &Admission, caller: &str) -> Place {
        match admission.enter(Caller { name: caller, ..Caller::default() }) {
            Entry::Later(place) => place,
            Entry::Now(_) | Entry::Full(_) => panic!("{caller} does not wait"),
        }
    }

    #[test]
    fn one_caller_does_not_starve_another() {
        let admission = queue(1, 100);
        let mut running = Some(now(&admission, "heavy"));
        let mut heavy: Vec<Place> = (0..31).map(|_| later(&admission, "heavy")).collect();
        let mut light = later(&admission, "light");
        let mut started = Vec::new();
        while !heavy.is_empty() {
            drop(running.take());
            if let Ok(permit) = light.try_recv() {
                started.push("light");
                running = Some(permit);
                continue;
            }
            let mut next = heavy.remove(0);
            running = Some(next.try_recv().unwrap());
            started.push("heavy");
        }
        let position = started.iter().position(|caller| *caller == "light").unwrap();
        assert!(position <= 1, "{started:?}");
    }

    #[test]
    fn callers_take_turns() {
        let admission = queue(1, 100);
        let first = now(&admission, "a");
        let places: Vec<(&str, Place)> =
            ["a", "a", "b", "b", "c"].map(|caller| (caller, later(&admission, caller))).into();
        let (mut running, mut places, mut order) = (Some(first), places, Vec::new());
        while !places.is_empty() {
            drop(running.take());
            let ready = places
                .iter_mut()
                .enumerate()
                .find_map(|(i, (caller, place))| place.try_recv().ok().map(|permit| (i, *caller, permit)));
            let (index, caller, permit) = ready.unwrap();
            order.push(caller);
            running = Some(permit);
            places.remove(index);
        }
        assert_eq!(order, ["b", "c", "a", "b", "a"]);
    }

    #[test]
    fn a_higher_priority_goes_first() {
        let admission = queue(1, 10);
        let running = now(&admission, "a");
        let mut places: Vec<(Priority, Place)> =
            [Priority::Low, Priority::Normal, Priority::High, Priority::Normal]
                .map(|priority| match admission.enter(Caller { name: "a", priority }) {
                    Entry::Later(place) => (priority, place),
                    Entry::Now(_) | Entry::Full(_) => panic!("{priority:?} does not wait"),
                })
                .into();
        let (mut running, mut order) = (Some(running), Vec::new());
        while !places.is_empty() {
            drop(running.take());
            let ready = places.iter_mut().position(|(_, place)| match place.try_recv() {
                Ok(permit) => running.replace(permit).is_none(),
                Err(_) => false,
            });
            order.push(places.remove(ready.unwrap()).0);
        }
        assert_eq!(order, [Priority::High, Priority::Normal, Priority::Normal, Priority::Low]);
    }

    #[test]
    fn the_queue_is_bounded_and_those_who_left_do_not_count() {
        let admission = queue(1, 2);
        let running = now(&admission, "a");
        let (first, second) = (later(&admission, "a"), later(&admission, "b"));
        assert!(matches!(admission.enter(Caller::default()), Entry::Full(2)));
        assert_eq!(admission.counts(), (1, 2));
        drop(first);
        let mut third = later(&admission, "c");
        drop(second);
        drop(running);
        assert!(third.try_recv().is_ok());
    }

    #[test]
    fn more_slots_let_the_waiting_in_and_an_unknown_number_lets_all() {
        let admission = queue(1, 10);
        let _running = now(&admission, "a");
        let mut places: Vec<Place> = (0..4).map(|_| later(&admission, "a")).collect();
        admission.set_capacity(3);
        let mut permits: Vec<Permit> = places.iter_mut().filter_map(|place| place.try_recv().ok()).collect();
        assert_eq!(permits.len(), 2);
        admission.set_capacity(0);
        permits.extend(places.iter_mut().filter_map(|place| place.try_recv().ok()));
        assert_eq!((permits.len(), admission.counts()), (4, (5, 0)));
        drop(permits);
        assert_eq!(admission.counts(), (1, 0));
    }
}
