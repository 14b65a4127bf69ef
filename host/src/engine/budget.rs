//! Memory by bytes: which models may be in it, and which have to go when another one is wanted.
//!
//! Each device has a budget: what the operator says, else nine tenths of what it has; one that nobody knows has none. What a
//! model takes is what its plugin measured when it was loaded last, else what a plugin expects, else the size of its file and
//! a tenth, in the machine's own memory. A load reserves that before it begins. When it does not fit, idle models go that take
//! memory of the device in want, the one that was used longest ago first; while there is none, the load waits. A model that
//! is pinned, busy or being loaded never goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};

use super::Shared;
use super::error::EngineError;
use super::lifecycle::ModelEntry;
use super::machine::Machine;
use crate::config::MemoryConfig;

/// How often a load that waits for memory looks again, although nobody told it that a model has become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The machine's own memory, as plugins call it.
pub(super) const CPU: &str = "cpu";

/// Bytes by device.
pub(super) type DeviceBytes = BTreeMap<String, u64>;

/// Memory for models.
#[derive(Debug)]
pub(super) struct Budget {
    /// What the operator says.
    configured: DeviceBytes,
    /// All models together, by device; a device that is not in it has no limit.
    limits: OnceCell<DeviceBytes>,
    /// By reservation: models that are loaded, being loaded, or not quite gone. A model may have two for a while.
    taken: Mutex<HashMap<u64, Taken>>,
    /// Number of the next reservation.
    next: AtomicU64,
    /// One load at a time looks and makes room; none waits meanwhile.
    making_room: tokio::sync::Mutex<()>,
    became_idle: Notify,
}

/// What is set aside.
#[derive(Debug)]
struct Taken {
    model: String,
    bytes: DeviceBytes,
}

/// Bytes that are set aside for a model; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    id: u64,
}

/// Where a model does not fit.
struct Want {
    device: String,
    needed_bytes: u64,
    limit_bytes: u64,
}

impl Want {
    fn error(self, model: &str) -> EngineError {
        let Self { device, needed_bytes, limit_bytes } = self;
        EngineError::OutOfMemory { model: model.to_owned(), device, needed_bytes, limit_bytes }
    }
}

impl Budget {
    pub(super) fn new(config: &MemoryConfig) -> Self {
        let mut configured = config.device_budget_bytes.clone();
        configured.extend(config.budget_bytes.map(|bytes| (CPU.to_owned(), bytes)));
        Self {
            configured,
            limits: OnceCell::new(),
            taken: Mutex::default(),
            next: AtomicU64::new(0),
            making_room: tokio::sync::Mutex::default(),
            became_idle: Notify::new(),
        }
    }

    /// Tells loads that wait that a model may have become idle.
    pub(super) fn look_again(&self) {
        self.became_idle.notify_waiters();
    }

    /// The limits. The first who asks waits for a look at the machine.
    async fn limits(&self, machine: &Machine) -> &DeviceBytes {
        let look = async || {
            let hardware = machine.hardware().await;
            let gpus = hardware.gpus.iter().map(|gpu| (gpu.id.clone(), gpu.memory_total_bytes));
            let known = gpus.chain([(CPU.to_owned(), hardware.memory.total_bytes)]);
            let mut limits: DeviceBytes =
                known.filter_map(|(device, total)| Some((device, total? / 10 * 9))).collect();
            limits.extend(self.configured.clone());
            limits
        };
        self.limits.get_or_init(look).await
    }

    /// The first of the devices of `needed` that has too little left for as much again; with `is_taken`, for what is taken
    /// already, these bytes among it.
    fn want(&self, limits: &DeviceBytes, needed: &DeviceBytes, is_taken: bool) -> Option<Want> {
        needed.iter().filter(|(_, bytes)| **bytes > 0).find_map(|(device, needed_bytes)| {
            let limit_bytes = *limits.get(device)?;
            let all = self.sum(device, |_| true) + if is_taken { 0 } else { *needed_bytes };
            let (device, needed_bytes) = (device.clone(), *needed_bytes);
            (all > limit_bytes).then_some(Want { device, needed_bytes, limit_bytes })
        })
    }

    /// Bytes of a device that these models have taken.
    fn sum(&self, device: &str, counts: impl Fn(&str) -> bool) -> u64 {
        let taken = self.taken.lock();
        let counted = taken.values().filter(|taken| counts(&taken.model));
        counted.filter_map(|taken| taken.bytes.get(device)).sum()
    }

    fn take(self: &Arc<Self>, model: String, bytes: DeviceBytes) -> Reservation {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.taken.lock().insert(id, Taken { model, bytes });
        Reservation { budget: Arc::clone(self), id }
    }
}

/// Sets memory aside for a model, after idle ones have made room for it. Waits up to `patience` for a model to become idle;
/// loads for other devices, and those that fit, do not wait for it.
///
/// # Errors
/// The model does not fit beside those that are pinned, or all others stay busy.
pub(super) async fn reserve(
    shared: &Shared,
    entry: &ModelEntry,
    patience: Duration,
) -> Result<Reservation, EngineError> {
    let budget = &shared.budget;
    let limits = budget.limits(&shared.machine).await;
    let (id, needed) = (&entry.spec().id, entry.expected_bytes());
    let stays = |model: &str| model != id && shared.entry(model).is_some_and(|entry| entry.spec().pin);
    let never = needed.iter().find_map(|(device, needed_bytes)| {
        let limit_bytes = *limits.get(device)?;
        let (device, needed_bytes) = (device.clone(), *needed_bytes);
        let fits = budget.sum(&device, stays) + needed_bytes <= limit_bytes;
        (!fits).then_some(Want { device, needed_bytes, limit_bytes })
    });
    if let Some(want) = never {
        return Err(want.error(id));
    }
    let started = Instant::now();
    loop {
        let idle = budget.became_idle.notified();
        {
            let _alone = budget.making_room.lock().await;
            let Some(want) = budget.want(limits, &needed, false) else {
                return Ok(budget.take(id.clone(), needed));
            };
            if evict_one(shared, &want.device).await {
                continue;
            }
            if started.elapsed() >= patience {
                return Err(want.error(id));
            }
        }
        // Whichever comes first; a request that ended without a job tells nobody.
        let _ = tokio::time::timeout(LOOK_AGAIN, idle).await;
    }
}

/// Unloads the idle model with memory of this device that was used longest ago. Returns whether there was one.
async fn evict_one(shared: &Shared, device: &str) -> bool {
    let may_go = |entry: &&Arc<ModelEntry>| {
        !entry.spec().pin && shared.budget.sum(device, |model| model == entry.spec().id) > 0
    };
    let mut entries: Vec<&Arc<ModelEntry>> = shared.models.iter().filter(may_go).collect();
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

/// Lets idle models go until a model that is loaded fits beside the others: it may have turned out larger than expected.
///
/// # Errors
/// It does not fit although nothing else can go.
pub(super) async fn keep_within(
    shared: &Shared,
    model: &str,
    bytes: &DeviceBytes,
) -> Result<(), EngineError> {
    let budget = &shared.budget;
    let limits = budget.limits(&shared.machine).await;
    while let Some(want) = budget.want(limits, bytes, true) {
        if !evict_one(shared, &want.device).await {
            return Err(want.error(model));
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
    pub(super) fn settle(&self, measured_bytes: Option<&DeviceBytes>) {
        if let (Some(bytes), Some(taken)) = (measured_bytes, self.budget.taken.lock().get_mut(&self.id)) {
            taken.bytes.clone_from(bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.taken.lock().remove(&self.id);
        self.budget.look_again();
    }
}
