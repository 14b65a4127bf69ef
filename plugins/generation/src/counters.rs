//! What a model's threads have done so far, and the places for its jobs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What the engine has done so far; written by its threads, read by `stats`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Jobs that run or wait.
    pub jobs: AtomicU32,
    /// Slots in use.
    pub busy: AtomicU32,
    /// Prompt tokens that were computed.
    pub prompt_tokens: AtomicU64,
    /// Prompt tokens whose computation was reused.
    pub cached_tokens: AtomicU64,
    /// Generated tokens.
    pub generated_tokens: AtomicU64,
    /// Steps of the engine.
    pub steps: AtomicU64,
    /// Streams that gave up their cells to others and were computed again later.
    pub preemptions: AtomicU64,
    /// Texts that were embedded or scored.
    pub embedded_texts: AtomicU64,
}

impl Counters {
    /// The counters by name.
    pub fn named(&self) -> BTreeMap<String, f64> {
        [
            ("prompt_tokens", &self.prompt_tokens),
            ("cached_tokens", &self.cached_tokens),
            ("generated_tokens", &self.generated_tokens),
            ("steps", &self.steps),
            ("preemptions", &self.preemptions),
            ("embedded_texts", &self.embedded_texts),
        ]
        .into_iter()
        .map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed) as f64))
        .collect()
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

/// A place among the jobs that run or wait; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Counters>);

impl Ticket {
    /// Takes a place, or `None` when `limit` jobs run or wait already.
    pub(crate) fn take(counters: &Arc<Counters>, limit: u32) -> Option<Self> {
        counters
            .jobs
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |jobs| (jobs < limit).then_some(jobs + 1))
            .ok()
            .map(|_| Self(Arc::clone(counters)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}
