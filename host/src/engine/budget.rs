//! Memory by bytes: which models may be in it, and which have to go when another one is wanted.
//!
//! What a model takes is what its plugin measured when it was loaded last, else the size of its file and a tenth. A load
//! reserves that before it begins. When it does not fit, idle models go, the one that was used longest ago first; while
//! there is none, the load waits. A model that is pinned, busy or being loaded never goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Shared;
use super::error::EngineError;
use super::lifecycle::ModelEntry;

/// How often a load that waits for memory looks again, although nobody told it that a model has become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Bytes of the machine's memory for models.
#[derive(Debug)]
pub(super) struct Budget {
    /// All models together; `None` where neither the operator nor the system says.
    limit_bytes: Option<u64>,
    /// By model: those that are loaded or being loaded.
    taken: Mutex<HashMap<String, u64>>,
    /// One load at a time makes room, so that two do not wait for each other.
    making_room: tokio::sync::Mutex<()>,
    became_idle: Notify,
}

/// Bytes that are set aside for a model; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    model: String,
}

impl Budget {
    pub(super) fn new(limit_bytes: Option<u64>) -> Self {
        Self {
            limit_bytes,
            taken: Mutex::default(),
            making_room: tokio::sync::Mutex::default(),
            became_idle: Notify::new(),
        }
    }

    /// Tells loads that wait that a model may have become idle.
    pub(super) fn look_again(&self) {
        self.became_idle.notify_waiters();
    }

    fn fits(&self, needed: u64) -> bool {
        let Some(limit) = self.limit_bytes else { return true };
        self.taken.lock().values().sum::<u64>() + needed <= limit
    }
}

/// Sets memory aside for a model, after idle ones have made room for it. Waits up to `patience` for a model to become idle.
///
/// # Errors
/// The model is larger than the whole budget, or all others stay busy or pinned.
pub(super) async fn reserve(
    shared: &Shared,
    entry: &ModelEntry,
    patience: Duration,
) -> Result<Reservation, EngineError> {
    let budget = &shared.budget;
    let (id, needed) = (entry.spec().id.clone(), entry.expected_bytes());
    let full =
        |limit| EngineError::OutOfMemory { model: id.clone(), needed_bytes: needed, limit_bytes: limit };
    if let Some(limit) = budget.limit_bytes.filter(|limit| needed > *limit) {
        return Err(full(limit));
    }
    let started = Instant::now();
    let _alone = budget.making_room.lock().await;
    while !budget.fits(needed) {
        let idle = budget.became_idle.notified();
        if evict_one(shared).await {
            continue;
        }
        if started.elapsed() >= patience {
            return Err(full(budget.limit_bytes.unwrap_or_default()));
        }
        // Whichever comes first; a request that ended without a job tells nobody.
        let _ = tokio::time::timeout(LOOK_AGAIN, idle).await;
    }
    budget.taken.lock().insert(id.clone(), needed);
    Ok(Reservation { budget: Arc::clone(budget), model: id })
}

/// Unloads the idle model that was used longest ago. Returns whether there was one.
async fn evict_one(shared: &Shared) -> bool {
    let mut entries: Vec<&Arc<ModelEntry>> = shared.models.iter().filter(|entry| !entry.spec().pin).collect();
    entries.sort_by_key(|entry| entry.last_used());
    for entry in entries {
        if let Some(loaded) = entry.take_idle(Duration::ZERO) {
            tracing::info!(model = entry.spec().id, "unloading an idle model to make room");
            loaded.end().await;
            return true;
        }
    }
    false
}

/// Lets idle models go until those that are loaded fit: one may have turned out larger than expected.
///
/// # Errors
/// They do not fit although nothing else can go.
pub(super) async fn keep_within(shared: &Shared, entry: &ModelEntry) -> Result<(), EngineError> {
    while !shared.budget.fits(0) {
        if !evict_one(shared).await {
            return Err(EngineError::OutOfMemory {
                model: entry.spec().id.clone(),
                needed_bytes: entry.expected_bytes(),
                limit_bytes: shared.budget.limit_bytes.unwrap_or_default(),
            });
        }
    }
    Ok(())
}

/// Unloads models that nobody has used for as long as their settings say. Runs until the engine closes.
pub(super) async fn unload_idle(shared: std::sync::Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let Some(shared) = shared.upgrade() else { return };
        for entry in &shared.models {
            let Some(timeout) = entry.idle_timeout(shared.idle_timeout) else { continue };
            if let Some(loaded) = entry.take_idle(timeout) {
                tracing::info!(model = entry.spec().id, "unloading a model that nobody uses");
                loaded.end().await;
            }
        }
    }
}

impl Reservation {
    /// Replaces the expectation by what was measured.
    pub(super) fn settle(&self, measured_bytes: Option<u64>) {
        if let Some(bytes) = measured_bytes {
            self.budget.taken.lock().insert(self.model.clone(), bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.taken.lock().remove(&self.model);
        self.budget.look_again();
    }
}
