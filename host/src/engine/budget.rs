//! Memory by bytes: which models may be in it, and which have to go when another one is wanted.
//!
//! Each device has a budget: what the operator says, else nine tenths of what it has; one that nobody knows has none. What a
//! model takes is what its plugin measured when it was loaded last, else what a plugin expects, else the size of its file and
//! a tenth, in the machine's own memory. A load reserves that before it begins. When it does not fit, idle models go that take
//! memory of the device in want, the one that was used longest ago first; while there is none, the load waits. A model that
//! is pinned, busy or being loaded never goes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
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
    /// By model: those that are loaded or being loaded.
    taken: Mutex<HashMap<String, DeviceBytes>>,
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

    /// The first device that has too little left for this.
    fn want(&self, limits: &DeviceBytes, needed: &DeviceBytes) -> Option<Want> {
        let taken = self.taken.lock();
        let of = |bytes: &DeviceBytes, device: &str| bytes.get(device).copied().unwrap_or_default();
        limits.iter().find_map(|(device, limit)| {
            let needed_bytes = of(needed, device);
            let all = taken.values().map(|bytes| of(bytes, device)).sum::<u64>() + needed_bytes;
            (all > *limit).then(|| Want { device: device.clone(), needed_bytes, limit_bytes: *limit })
        })
    }

    /// Whether a model takes memory of this device.
    fn takes(&self, model: &str, device: &str) -> bool {
        self.taken.lock().get(model).is_some_and(|bytes| bytes.get(device).is_some_and(|bytes| *bytes > 0))
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
    let limits = budget.limits(&shared.machine).await;
    let (id, needed) = (entry.spec().id.clone(), entry.expected_bytes());
    let never = needed.iter().find_map(|(device, bytes)| {
        let limit_bytes = *limits.get(device).filter(|limit| bytes > limit)?;
        Some(Want { device: device.clone(), needed_bytes: *bytes, limit_bytes })
    });
    if let Some(want) = never {
        return Err(want.error(&id));
    }
    let started = Instant::now();
    let _alone = budget.making_room.lock().await;
    while let Some(want) = budget.want(limits, &needed) {
        let idle = budget.became_idle.notified();
        if evict_one(shared, &want.device).await {
            continue;
        }
        if started.elapsed() >= patience {
            return Err(want.error(&id));
        }
        // Whichever comes first; a request that ended without a job tells nobody.
        let _ = tokio::time::timeout(LOOK_AGAIN, idle).await;
    }
    budget.taken.lock().insert(id.clone(), needed);
    Ok(Reservation { budget: Arc::clone(budget), model: id })
}

/// Unloads the idle model with memory of this device that was used longest ago. Returns whether there was one.
async fn evict_one(shared: &Shared, device: &str) -> bool {
    let may_go =
        |entry: &&Arc<ModelEntry>| !entry.spec().pin && shared.budget.takes(&entry.spec().id, device);
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

/// Lets idle models go until those that are loaded fit: one may have turned out larger than expected.
///
/// # Errors
/// They do not fit although nothing else can go.
pub(super) async fn keep_within(shared: &Shared, entry: &ModelEntry) -> Result<(), EngineError> {
    let budget = &shared.budget;
    let limits = budget.limits(&shared.machine).await;
    while let Some(want) = budget.want(limits, &DeviceBytes::new()) {
        if !evict_one(shared, &want.device).await {
            let needed_bytes = entry.expected_bytes().get(&want.device).copied().unwrap_or_default();
            return Err(Want { needed_bytes, ..want }.error(&entry.spec().id));
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
        if let Some(bytes) = measured_bytes {
            self.budget.taken.lock().insert(self.model.clone(), bytes.clone());
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.taken.lock().remove(&self.model);
        self.budget.look_again();
    }
}
