//! The life of a model: loaded on demand by the best plugin that can, unloaded when asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::future::{BoxFuture, FutureExt as _, Shared as SharedFuture};
use pajamas_plugin_api::{Error, LoadSpec, ModelInfo, Task};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::budget::{self, CPU, DeviceBytes, Reservation};
use super::choice::choose;
use super::error::{EngineError, FailureCause};
use super::evict::{Evicted, Unloaded};
use super::loaded::{Extensions, Loaded};
use super::status::{ModelState, ModelStatus};
use super::version::PluginVersion;
use super::{Shared, plugin_cache_dir};
use crate::models::ModelSpec;
use crate::plugins::{CallError, StartError};

/// What a load comes to; shared by all who wait for it.
pub(super) type LoadOutcome = Result<Arc<Loaded>, EngineError>;
type LoadFuture = SharedFuture<BoxFuture<'static, LoadOutcome>>;

/// A model of the catalog and what became of it.
#[derive(Debug)]
pub(super) struct ModelEntry {
    spec: Arc<ModelSpec>,
    slot: Mutex<Slot>,
    /// Metadata and plugin of the last load.
    last: Mutex<Option<(Arc<ModelInfo>, String)>>,
    /// Held by the one job that may be poison and runs all the same.
    isolation: Arc<tokio::sync::Mutex<()>>,
    /// Loads that failed in a row.
    failures: AtomicU32,
    /// Who runs and who waits.
    admission: Admission,
    /// When a request last asked for the model, or ended.
    used_at: Mutex<Instant>,
    /// What it took when it was loaded last.
    measured_bytes: Mutex<Option<DeviceBytes>>,
    /// What a plugin expects it to take.
    estimated_bytes: Mutex<Option<DeviceBytes>>,
    /// The memory that is set aside for it.
    reservation: Mutex<Option<Reservation>>,
}

#[derive(Debug)]
enum Slot {
    Unloaded,
    Loading(LoadFuture),
    Ready(Arc<Loaded>),
    Failed(Failure),
}

/// A load that failed.
#[derive(Debug)]
struct Failure {
    reason: String,
    /// Until then nobody tries again.
    cools_until: Instant,
}

/// Pause after the first failed load; each further one in a row doubles it, up to [`COOL_DOWN_MAX`].
const COOL_DOWN: Duration = Duration::from_secs(1);
/// Longest pause.
const COOL_DOWN_MAX: Duration = Duration::from_secs(60);

impl ModelEntry {
    pub(super) fn new(spec: ModelSpec, queue_max: usize) -> Self {
        Self {
            spec: Arc::new(spec),
            slot: Mutex::new(Slot::Unloaded),
            last: Mutex::new(None),
            isolation: Arc::default(),
            failures: AtomicU32::new(0),
            admission: Admission::new(queue_max),
            used_at: Mutex::new(Instant::now()),
            measured_bytes: Mutex::new(None),
            estimated_bytes: Mutex::new(None),
            reservation: Mutex::new(None),
        }
    }

    pub(super) fn spec(&self) -> &Arc<ModelSpec> {
        &self.spec
    }

    /// Lets the next request try to load the model again, whatever failed before.
    pub(super) fn forgive(&self) {
        let mut slot = self.slot.lock();
        if matches!(*slot, Slot::Failed(_)) {
            *slot = Slot::Unloaded;
        }
    }

    /// Notes that the model is used.
    pub(super) fn touch(&self) {
        *self.used_at.lock() = Instant::now();
    }

    /// When a request last asked for the model, or ended.
    pub(super) fn last_used(&self) -> Instant {
        *self.used_at.lock()
    }

    /// Bytes of memory that the model will take: what it took last, else what a plugin or else its size on the disk makes
    /// expect.
    pub(super) fn expected_bytes(&self) -> DeviceBytes {
        let known = self.measured_bytes.lock().clone().or_else(|| self.estimated_bytes.lock().clone());
        let of_size = self.spec.size_bytes + self.spec.size_bytes / 10;
        known.unwrap_or_else(|| DeviceBytes::from([(CPU.to_owned(), of_size)]))
    }

    /// Asks a plugin how much the model will take, unless that is known. Nobody need be able to tell. A plugin inspects
    /// without options, so where some are set (a shorter context, fewer slots), its answer is of no use.
    async fn estimate(&self, shared: &Shared) {
        let is_known = self.measured_bytes.lock().is_some() || self.estimated_bytes.lock().is_some();
        if is_known || !self.spec.options.is_empty() || shared.pool.has_load_options() {
            return;
        }
        let Ok(plugins) = choose(shared, &self.spec).await.fitting(&self.spec) else { return };
        match ask(shared, &self.spec, plugins).await {
            Ok((_, info)) if info.estimated_bytes.is_empty() => {}
            Ok((_, info)) => *self.estimated_bytes.lock() = Some(info.estimated_bytes),
            // The load will tell what is wrong.
            Err(error) => tracing::debug!(model = self.spec.id, "no estimate: {error}"),
        }
    }

    /// How long it may be unused; `None` for ever.
    pub(super) fn idle_timeout(&self, default: Option<Duration>) -> Option<Duration> {
        if self.spec.pin { None } else { self.spec.idle_timeout.or(default) }
    }

    /// Takes the model out of its place if nobody has used it for so long and nobody is about to.
    pub(super) fn take_idle(&self, unused_for: Duration) -> Option<Evicted> {
        let mut slot = self.slot.lock();
        let Slot::Ready(loaded) = &*slot else { return None };
        // Whoever has a job in it, or is about to submit one, holds a reference.
        let is_idle = Arc::strong_count(loaded) == 1 && self.admission.counts() == (0, 0);
        if !is_idle || self.last_used().elapsed() < unused_for {
            return None;
        }
        match std::mem::replace(&mut *slot, Slot::Unloaded) {
            Slot::Ready(loaded) => Some(Evicted::new(loaded, self.reservation.lock().take())),
            Slot::Unloaded | Slot::Loading(_) | Slot::Failed(_) => None,
        }
    }

    /// The queue before the model.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Lets one suspicious job at a time run.
    pub(super) fn isolation(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.isolation)
    }

    pub(super) fn status(&self) -> ModelStatus {
        let state = match &*self.slot.lock() {
            Slot::Unloaded => ModelState::Unloaded,
            Slot::Loading(_) => ModelState::Loading,
            Slot::Ready(loaded) if loaded.is_alive() => ModelState::Ready,
            Slot::Ready(_) => {
                ModelState::Failed("its worker ended; the next request loads it again".to_owned())
            }
            Slot::Failed(failure) => ModelState::Failed(failure.reason.clone()),
        };
        let (running, waiting) = self.admission.counts();
        let last = self.last.lock().clone();
        let (info, plugin) = last.unzip();
        let spec = &self.spec;
        let modified = spec.modified.duration_since(UNIX_EPOCH);
        ModelStatus {
            id: spec.id.clone(),
            aliases: spec.aliases.clone(),
            format: spec.format.clone(),
            path: spec.path.clone(),
            tasks: info
                .as_ref()
                .map_or_else(|| spec.tasks_override.clone().unwrap_or_default(), |info| info.tasks.clone()),
            state,
            running,
            waiting,
            plugin,
            created_unix_s: modified.map_or(0, |since| since.as_secs()),
            size_bytes: spec.size_bytes,
            info,
        }
    }

    /// The model, if it is in memory.
    pub(super) fn ready(&self) -> Option<Arc<Loaded>> {
        match &*self.slot.lock() {
            Slot::Ready(loaded) if loaded.is_alive() => Some(Arc::clone(loaded)),
            _ => None,
        }
    }

    /// Puts `new` in the place of `old`. A model that is not in that place any more, because it was unloaded meanwhile,
    /// stays so.
    pub(super) fn put(&self, old: &Arc<Loaded>, new: Arc<Loaded>) {
        let mut slot = self.slot.lock();
        if matches!(&*slot, Slot::Ready(loaded) if Arc::ptr_eq(loaded, old)) {
            self.remember(&new);
            *slot = Slot::Ready(new);
        }
    }

    /// Lets everybody who wants the model wait for `outcome`, until [`ModelEntry::resume`].
    pub(super) fn hold(&self, outcome: LoadFuture) {
        *self.slot.lock() = Slot::Loading(outcome);
    }

    /// Ends what [`ModelEntry::hold`] began: those who wait and those who come get `outcome`.
    pub(super) fn resume(&self, outcome: LoadOutcome, waiting: oneshot::Sender<LoadOutcome>) {
        self.settle(&outcome);
        // Nobody waits.
        let _ = waiting.send(outcome);
    }

    fn settle(&self, outcome: &LoadOutcome) {
        *self.slot.lock() = match outcome {
            Ok(loaded) => {
                self.remember(loaded);
                Slot::Ready(Arc::clone(loaded))
            }
            Err(error) => {
                tracing::error!(model = self.spec.id, "{error}");
                // What a version that could not be replaced had taken.
                drop(self.reservation.lock().take());
                let before = self.failures.fetch_add(1, Ordering::Relaxed).min(6);
                let pause = if is_lasting(error) { COOL_DOWN * (1 << before) } else { Duration::ZERO };
                let cools_until = Instant::now() + pause.min(COOL_DOWN_MAX);
                Slot::Failed(Failure { reason: error.to_string(), cools_until })
            }
        };
    }

    fn remember(&self, loaded: &Loaded) {
        *self.last.lock() = Some((Arc::clone(&loaded.info), loaded.version.name().to_owned()));
        self.failures.store(0, Ordering::Relaxed);
        self.admission.set_capacity(loaded.slots);
        if let Some(bytes) = &loaded.bytes {
            *self.measured_bytes.lock() = Some(bytes.clone());
            // Another version of the plugin, or of the file, may take more or less than the one before.
            self.reservation.lock().iter().for_each(|reservation| reservation.settle(Some(bytes)));
        }
    }

    /// Drops the model without waiting for its jobs.
    pub(super) fn forget(&self) -> Option<Arc<Loaded>> {
        match std::mem::replace(&mut *self.slot.lock(), Slot::Unloaded) {
            Slot::Ready(loaded) => Some(loaded),
            Slot::Unloaded | Slot::Loading(_) | Slot::Failed(_) => None,
        }
    }

    /// Drops the model and waits until its last job has ended. `None` when it was not loaded.
    pub(super) async fn unload(&self) -> Option<Unloaded> {
        let loaded = self.forget()?;
        let reservation = self.reservation.lock().take();
        let returned_bytes = Evicted::new(loaded, reservation).end().await;
        tracing::info!(model = self.spec.id, returned_bytes, "model unloaded");
        Some(Unloaded { returned_bytes })
    }
}

/// The loaded model, from memory or by loading it; one load serves all who wait.
pub(super) async fn acquire(shared: &Arc<Shared>, entry: &Arc<ModelEntry>) -> LoadOutcome {
    entry.touch();
    let load = {
        let mut slot = entry.slot.lock();
        match &*slot {
            Slot::Ready(loaded) if loaded.is_alive() => return Ok(Arc::clone(loaded)),
            Slot::Loading(load) => load.clone(),
            Slot::Failed(failure) if Instant::now() < failure.cools_until => {
                let wait = failure.cools_until.saturating_duration_since(Instant::now());
                return Err(EngineError::CoolingDown {
                    model: entry.spec.id.clone(),
                    reason: failure.reason.clone(),
                    retry_after_s: wait.as_secs() + 1,
                });
            }
            Slot::Unloaded | Slot::Failed(_) | Slot::Ready(_) => {
                let task = tokio::spawn(load(Arc::clone(shared), Arc::clone(entry)));
                let load = task
                    .map(|joined| {
                        joined.unwrap_or_else(|e| {
                            Err(EngineError::Plugin(Error::internal(format!("the load was abandoned: {e}"))))
                        })
                    })
                    .boxed()
                    .shared();
                *slot = Slot::Loading(load.clone());
                load
            }
        }
    };
    load.await
}

async fn load(shared: Arc<Shared>, entry: Arc<ModelEntry>) -> LoadOutcome {
    let outcome = load_within_budget(&shared, &entry).await;
    entry.settle(&outcome);
    outcome
}

/// Whether the next load will most likely fail in the same way. A worker that was killed from outside, and want of memory,
/// say nothing about the model.
fn is_lasting(error: &EngineError) -> bool {
    match error {
        EngineError::Load { .. } => true,
        EngineError::Worker(failure) => failure.cause == FailureCause::Plugin,
        _ => false,
    }
}

/// Loads the model once there is memory for it. One that turns out larger than expected, while the others are busy, goes
/// again and waits until there is room for what it takes.
async fn load_within_budget(shared: &Shared, entry: &ModelEntry) -> LoadOutcome {
    // What a worker that has died took.
    drop(entry.reservation.lock().take());
    entry.estimate(shared).await;
    let mut is_first = true;
    loop {
        let reservation = budget::reserve(shared, entry, shared.load_timeout).await?;
        let loaded = load_with_best_plugin(shared, &entry.spec).await?;
        reservation.settle(loaded.bytes.as_ref());
        let taken = loaded.bytes.clone().unwrap_or_else(|| entry.expected_bytes());
        let kept = budget::keep_within(shared, &entry.spec.id, &taken).await;
        match kept {
            Ok(()) => {
                *entry.reservation.lock() = Some(reservation);
                return Ok(loaded);
            }
            Err(_) if is_first => {
                is_first = false;
                entry.measured_bytes.lock().clone_from(&loaded.bytes);
                Evicted::new(loaded, Some(reservation)).end().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Tries the plugins in the order of selection; the first failure is the one that is reported. A fall-back from an
/// accelerator to the CPU is never silent.
async fn load_with_best_plugin(shared: &Shared, spec: &ModelSpec) -> LoadOutcome {
    let choice = choose(shared, spec).await;
    if let Some(warning) = choice.warning() {
        tracing::warn!(model = spec.id, "{warning}");
    }
    let mut first_error = None;
    for plugin in choice.fitting(spec)? {
        if let Some(error) = first_error.as_ref().filter(|_| plugin.computes_on_cpu()) {
            tracing::warn!(model = spec.id, plugin = plugin.name(), "falling back to the CPU: {error}");
        }
        match load_with(shared, spec, &plugin).await {
            Ok(loaded) => return Ok(Arc::new(loaded)),
            Err(error) => {
                tracing::warn!(model = spec.id, plugin = plugin.name(), "load failed: {error}");
                first_error.get_or_insert(error);
            }
        }
    }
    // There is at least one plugin that fits, and none has loaded the model.
    Err(first_error.unwrap_or(EngineError::ShuttingDown))
}

/// Loads a model with one version of a plugin. The catalog is not told.
pub(super) async fn load_with(
    shared: &Shared,
    spec: &ModelSpec,
    plugin: &Arc<PluginVersion>,
) -> Result<Loaded, EngineError> {
    let started = Instant::now();
    tracing::info!(model = spec.id, plugin = plugin.name(), path = %spec.path.display(), "loading model");
    let worker = plugin.worker().await.map_err(start_error)?;
    let mut options = plugin.load_options.clone();
    options.extend(spec.options.clone());
    let load_spec = LoadSpec {
        path: spec.path.clone(),
        options,
        cache_dir: Some(plugin_cache_dir(&shared.cache_dir, plugin.name())),
    };
    let handle = worker.load(&load_spec, shared.load_timeout).await.map_err(|error| match error {
        CallError::Plugin(error) => {
            EngineError::Load { model: spec.id.clone(), plugin: plugin.name().to_owned(), error }
        }
        CallError::Worker(failure) => EngineError::Worker(failure),
    })?;
    // A plugin that does not tell its slots takes all jobs at once.
    let stats = handle.stats(shared.probe_timeout).await.ok().flatten();
    let slots = stats.as_ref().map_or(0, |stats| stats.slots_total as usize);
    let bytes = stats.map(|stats| stats.bytes).filter(|bytes| !bytes.is_empty());
    let elapsed_ms = started.elapsed().as_millis() as u64;
    tracing::info!(model = spec.id, plugin = plugin.name(), elapsed_ms, "model loaded");
    Ok(Loaded {
        id: spec.id.clone(),
        version: Arc::clone(plugin),
        jobs: TaskTracker::new(),
        slots,
        bytes,
        info: Arc::new(restrict(handle.info(), spec)),
        handle,
        extensions: Extensions::default(),
        is_useful: AtomicBool::new(false),
        gone: watch::channel(()).0,
    })
}

/// The plugin's metadata with what the operator said in `model.toml`.
fn restrict(info: &ModelInfo, spec: &ModelSpec) -> ModelInfo {
    let mut info = info.clone();
    if let Some(tasks) = &spec.tasks_override {
        info.tasks.retain(|task: &Task| tasks.contains(task));
    }
    if !spec.labels.is_empty() {
        info.labels.clone_from(&spec.labels);
    }
    info
}

/// Metadata of a model that need not be in the catalog, also of one that no device here can run.
pub(super) async fn inspect(shared: &Shared, spec: &ModelSpec) -> Result<(String, ModelInfo), EngineError> {
    let plugins = choose(shared, spec).await.inspecting(spec)?;
    ask(shared, spec, plugins).await
}

/// The metadata from the first of the plugins that can tell.
async fn ask(
    shared: &Shared,
    spec: &ModelSpec,
    plugins: Vec<Arc<PluginVersion>>,
) -> Result<(String, ModelInfo), EngineError> {
    let mut first_error = None;
    for plugin in plugins {
        let answer = match plugin.worker().await {
            Ok(worker) => worker.inspect(&spec.path, shared.probe_timeout).await.map_err(call_error),
            Err(error) => Err(start_error(error)),
        };
        match answer {
            Ok(Some(info)) => return Ok((plugin.name().to_owned(), restrict(&info, spec))),
            Ok(None) => {}
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| {
        let message = format!("no plugin can inspect {}", spec.path.display());
        EngineError::Plugin(Error::unsupported(message))
    }))
}

pub(super) fn call_error(error: CallError) -> EngineError {
    match error {
        CallError::Plugin(error) => EngineError::Plugin(error),
        CallError::Worker(failure) => EngineError::Worker(failure),
    }
}

fn start_error(error: StartError) -> EngineError {
    match error {
        StartError::Died(failure) => EngineError::Worker(failure),
        StartError::Quarantined { plugin, reason } => EngineError::Quarantined { plugin, reason },
        other => EngineError::Plugin(Error::internal(other.to_string())),
    }
}
