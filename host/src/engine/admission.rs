//! Who is next: the jobs that wait for a model, fair between callers and bounded in number.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): the start tag of a caller's job is where its job before would
//! end, which is its start plus its tokens divided by the caller's weight; the lowest tag runs next. So callers share the
//! model's tokens by their weights, however many jobs each has queued. A job's tokens are expected when it comes and
//! corrected when it ends. Jobs of a higher priority go before all of a lower one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Callers whose last tag is remembered; when there are more, those without waiting jobs are forgotten.
const CALLERS_MAX: usize = 1024;
/// Largest weight of a caller.
pub const CALLER_WEIGHT_MAX: u32 = 1000;
/// What a token moves the tag of a caller with [`CALLER_WEIGHT_MAX`]; more by as much as the weight is less.
const TOKEN_TAG: u64 = 1;

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
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Takes turns with the others; empty for those who are not told apart.
    pub name: &'a str,
    /// How urgent it is.
    pub priority: Priority,
    /// Its share in relation to the others, 1 to [`CALLER_WEIGHT_MAX`].
    pub weight: u32,
}

impl Default for Caller<'_> {
    fn default() -> Self {
        Self { name: "", priority: Priority::default(), weight: 1 }
    }
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
    bill: Bill,
}

/// What a job costs its caller.
#[derive(Debug)]
struct Bill {
    caller: String,
    weight: u32,
    expected_tokens: u32,
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
    waiting: BTreeMap<Rank, Waiting>,
    /// The tag that the next job of a caller gets at least.
    next_tags: HashMap<String, u64>,
    /// Tag of the job that started last.
    clock: u64,
    /// Number of the next job; orders those with one tag.
    arrivals: u64,
}

/// A job that waits.
#[derive(Debug)]
struct Waiting {
    place: oneshot::Sender<Permit>,
    bill: Bill,
}

impl Bill {
    /// How far so many tokens move the caller's tag.
    fn tags(&self, tokens: u32) -> u64 {
        let per_token = TOKEN_TAG * u64::from(CALLER_WEIGHT_MAX / self.weight.clamp(1, CALLER_WEIGHT_MAX));
        u64::from(tokens) * per_token
    }
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

    /// Lets a job of `caller` in, which will take about so many tokens.
    pub(super) fn enter(&self, caller: Caller<'_>, expected_tokens: u32) -> Entry {
        let bill = Bill { caller: caller.name.to_owned(), weight: caller.weight, expected_tokens };
        let mut queue = self.queue.lock();
        queue.forget_place_holders();
        let tag = queue.tag(&bill);
        if queue.running < queue.capacity && queue.waiting.is_empty() {
            queue.running += 1;
            queue.clock = queue.clock.max(tag);
            return Entry::Now(Permit { queue: Arc::clone(&self.queue), bill });
        }
        if queue.waiting.len() >= queue.waiting_max {
            return Entry::Full(queue.waiting.len());
        }
        let (sender, receiver) = oneshot::channel();
        queue.arrivals += 1;
        let rank = (std::cmp::Reverse(caller.priority), tag, queue.arrivals);
        queue.waiting.insert(rank, Waiting { place: sender, bill });
        Entry::Later(receiver)
    }
}

impl Queue {
    /// The start tag of a caller's next job.
    fn tag(&mut self, bill: &Bill) -> u64 {
        if self.next_tags.len() >= CALLERS_MAX {
            let clock = self.clock;
            self.next_tags.retain(|_, next| *next > clock);
        }
        let next = self.next_tags.entry(bill.caller.clone()).or_default();
        let tag = (*next).max(self.clock);
        *next = tag + bill.tags(bill.expected_tokens);
        tag
    }

    /// Removes jobs whose clients went away.
    fn forget_place_holders(&mut self) {
        self.waiting.retain(|_, waiting| !waiting.place.is_closed());
    }
}

/// Starts jobs while there is room. Outside the lock, a permit that nobody takes comes back by being dropped.
fn start_waiting(shared: &Arc<Mutex<Queue>>) {
    loop {
        let (place, bill) = {
            let mut queue = shared.lock();
            if queue.running >= queue.capacity {
                return;
            }
            let Some(((_, tag, _), waiting)) = queue.waiting.pop_first() else { return };
            if waiting.place.is_closed() {
                continue;
            }
            queue.running += 1;
            queue.clock = queue.clock.max(tag);
            (waiting.place, waiting.bill)
        };
        // Nobody waits any more: the permit in the error is dropped, which starts the next.
        let _ = place.send(Permit { queue: Arc::clone(shared), bill });
    }
}

impl Permit {
    /// Corrects what the job costs its caller by the tokens that it really took.
    pub(super) fn settle(&mut self, tokens: u32) {
        let (expected, actual) = (self.bill.tags(self.bill.expected_tokens), self.bill.tags(tokens));
        if let Some(next) = self.queue.lock().next_tags.get_mut(&self.bill.caller) {
            *next = next.saturating_sub(expected).saturating_add(actual);
        }
        self.bill.expected_tokens = tokens;
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
        match admission.enter(Caller { name: caller, ..Caller::default() }, 10) {
            Entry::Now(permit) => permit,
            Entry::Later(_) | Entry::Full(_) => panic!("{caller} has to wait"),
        }
    }

    fn later(admission: &Admission, caller: &str) -> Place {
        match admission.enter(Caller { name: caller, ..Caller::default() }, 10) {
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

    /// Starts all jobs of these callers, one after the other, and counts how many of each are among the first `first`.
    fn shares(callers: [(Caller<'_>, u32, u32); 2], first: usize) -> [usize; 2] {
        let admission = queue(1, 1000);
        let mut running = Some(now(&admission, "someone"));
        let mut places = Vec::new();
        for (index, (caller, expected, actual)) in callers.into_iter().enumerate() {
            for _ in 0..100 {
                match admission.enter(caller, expected) {
                    Entry::Later(place) => places.push((index, actual, place)),
                    Entry::Now(_) | Entry::Full(_) => panic!("{caller:?} does not wait"),
                }
            }
        }
        let mut counts = [0; 2];
        for _ in 0..first {
            drop(running.take());
            let ready = places.iter_mut().enumerate().find_map(|(at, (index, actual, place))| {
                place.try_recv().ok().map(|permit| (at, *index, *actual, permit))
            });
            let (at, index, actual, mut permit) = ready.unwrap();
            permit.settle(actual);
            counts[index] += 1;
            running = Some(permit);
            places.remove(at);
        }
        counts
    }

    #[test]
    fn callers_share_tokens_by_weight() {
        let caller = |name, weight| Caller { name, weight, ..Caller::default() };
        let [heavy, light] = shares([(caller("a", 3), 50, 50), (caller("b", 1), 50, 50)], 80);
        assert!((59..=61).contains(&heavy) && (19..=21).contains(&light), "{heavy} {light}");
        // Jobs of thrice the length: a third as many.
        let [long, short] = shares([(caller("a", 1), 150, 150), (caller("b", 1), 50, 50)], 80);
        assert!((19..=21).contains(&long) && (59..=61).contains(&short), "{long} {short}");
    }

    #[test]
    fn what_a_job_really_took_counts_for_the_next() {
        let admission = queue(1, 10);
        let caller = |name| Caller { name, ..Caller::default() };
        let Entry::Now(mut permit) = admission.enter(caller("greedy"), 1) else { panic!("a slot is free") };
        permit.settle(1000);
        let mut greedy = later(&admission, "greedy");
        let mut others: Vec<Place> = (0..3).map(|_| later(&admission, "modest")).collect();
        for other in &mut others {
            drop(permit);
            permit = other.try_recv().unwrap();
        }
        drop(permit);
        assert!(greedy.try_recv().is_ok());
    }

    #[test]
    fn a_higher_priority_goes_first() {
        let admission = queue(1, 10);
        let running = now(&admission, "a");
        let mut places: Vec<(Priority, Place)> =
            [Priority::Low, Priority::Normal, Priority::High, Priority::Normal]
                .map(|priority| {
                    match admission.enter(Caller { name: "a", priority, ..Caller::default() }, 10) {
                        Entry::Later(place) => (priority, place),
                        Entry::Now(_) | Entry::Full(_) => panic!("{priority:?} does not wait"),
                    }
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
        assert!(matches!(admission.enter(Caller::default(), 10), Entry::Full(2)));
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
