//! Replacing the version of a plugin under live traffic.
//!
//! Side by side when memory allows: the new version loads the same models beside the old one, passes its tests, and takes
//! the routes in one step; then the old one is drained. Otherwise requests wait while the old one is drained and its
//! models are loaded again. Whatever fails before the routes change leaves the old version serving; trouble after it
//! brings the old version back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::Shared;
use super::error::EngineError;
use super::lifecycle::{self, LoadOutcome, ModelEntry};
use super::loaded::Loaded;
use super::memory;
use super::pool::PluginSlot;
use super::self_test::{self, SelfTestError};
use super::version::PluginVersion;
use crate::install::keep_active;
use crate::metrics::METRICS;
use crate::models::ModelSpec;
use crate::plugins::discover::{self, FoundPlugin, VersionError};

/// How long a new version is watched; trouble in this time brings the old one back.
pub(super) const PROBATION: Duration = Duration::from_secs(60);

/// How the old version makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SwapMode {
    /// Both versions are loaded for a while; nobody waits.
    SideBySide,
    /// The old one is drained first; requests wait meanwhile.
    DrainFirst,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct SwapRequest {
    /// The version, as its manifest or its folder says; `None` takes what the plugin's folder now points to.
    pub version: Option<String>,
    /// How; `None` decides by memory.
    pub mode: Option<SwapMode>,
    /// How long streams may finish in the old version; then they go on in the new one.
    pub drain_timeout: Duration,
}

/// What was done.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SwapReport {
    /// The plugin.
    pub plugin: String,
    /// The version before.
    pub from: String,
    /// The version that serves now.
    pub to: String,
    /// How.
    pub mode: SwapMode,
    /// The models that moved.
    pub models: Vec<String>,
    /// Streams that ended in the old version.
    pub streams_drained: usize,
    /// Streams that went on in the new version.
    pub streams_migrated: usize,
    /// What was done, in order.
    pub steps: Vec<SwapStep>,
}

/// A part of a swap.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct SwapStep {
    /// What.
    pub step: &'static str,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// What was done to a model whose file was replaced.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ModelSwapReport {
    /// The model.
    pub model: String,
    /// Whether it was in memory; if not, the next request loads the new file, and nothing had to be done.
    pub was_loaded: bool,
    /// Streams that ended in the old model.
    pub streams_drained: usize,
    /// Streams that go on in the old model, which is unloaded when they have ended.
    pub streams_left: usize,
    /// What was done, in order.
    pub steps: Vec<SwapStep>,
}

/// Loads a model again, whose file was replaced: beside the old one, tested, and then instead of it. Streams end in the model
/// that they began in, because another model would say something else.
pub(super) async fn swap_model(
    shared: &Shared,
    entry: &Arc<ModelEntry>,
    drain_timeout: Duration,
) -> Result<ModelSwapReport, SwapError> {
    let mut clock = Clock::new();
    let spec = entry.spec();
    let mut report = ModelSwapReport {
        model: spec.id.clone(),
        was_loaded: false,
        streams_drained: 0,
        streams_left: 0,
        steps: Vec::new(),
    };
    let Some(old) = entry.ready() else {
        entry.forgive();
        return Ok(report);
    };
    let version = Arc::clone(&old.version);
    if !memory::fits_twice(&shared.machine, std::iter::once(&old)).await {
        return Err(SwapError::NoRoom { model: spec.id.clone() });
    }
    let new = load(shared, spec, &version).await?;
    clock.step("load");
    test(spec, &version, &new).await?;
    clock.step("self-test");
    let running = old.jobs.len();
    entry.put(&old, new);
    clock.step("flip");
    old.jobs.close();
    let is_drained = tokio::time::timeout(drain_timeout, old.jobs.wait()).await.is_ok();
    clock.step("drain");
    report.was_loaded = true;
    report.streams_left = if is_drained { 0 } else { old.jobs.len() };
    report.streams_drained = running.saturating_sub(report.streams_left);
    report.steps = clock.steps;
    tracing::info!(model = spec.id, steps = ?report.steps, left = report.streams_left, "model swapped");
    Ok(report)
}

async fn load(
    shared: &Shared,
    spec: &ModelSpec,
    version: &Arc<PluginVersion>,
) -> Result<Arc<Loaded>, SwapError> {
    lifecycle::load_with(shared, spec, version).await.map(Arc::new).map_err(|error| SwapError::Load {
        version: version.number(),
        model: spec.id.clone(),
        error,
    })
}

async fn test(spec: &ModelSpec, version: &PluginVersion, model: &Arc<Loaded>) -> Result<(), SwapError> {
    let tests = version.found.manifest.self_test.iter().filter(|test| test.model.is_none());
    let tests: Vec<_> = tests.chain(&spec.golden).cloned().collect();
    self_test::run(model, &tests).await.map_err(|error| SwapError::SelfTest {
        version: version.number(),
        model: spec.id.clone(),
        error,
    })
}

/// Why the old version still serves.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// No plugin of this name.
    #[error("there is no plugin \"{0}\"")]
    UnknownPlugin(String),
    /// Another swap of the plugin runs.
    #[error("plugin {0} is being swapped already: try again when that is done")]
    Busy(String),
    /// The version is not there.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The new version cannot be used here.
    #[error("version {version} of plugin {plugin} cannot be used: {reason}")]
    Unfit {
        /// The plugin.
        plugin: String,
        /// The version.
        version: String,
        /// Why.
        reason: String,
    },
    /// The new version cannot load a model that the old one serves.
    #[error("version {version} cannot serve the model \"{model}\": {error}")]
    Load {
        /// The version.
        version: String,
        /// The model.
        model: String,
        /// Why.
        error: EngineError,
    },
    /// The model does not fit twice.
    #[error(
        "memory does not suffice for the model \"{model}\" twice: unload it, and the next request loads the new file"
    )]
    NoRoom {
        /// The model.
        model: String,
    },
    /// The new version does not do what it should.
    #[error("version {version} failed its self-test with the model \"{model}\": {error}")]
    SelfTest {
        /// The version.
        version: String,
        /// The model.
        model: String,
        /// How.
        error: SelfTestError,
    },
}

/// A model that moves.
struct Moving {
    entry: Arc<ModelEntry>,
    old: Arc<Loaded>,
}

/// Measures the parts of a swap.
struct Clock {
    since: Instant,
    steps: Vec<SwapStep>,
}

impl Clock {
    fn new() -> Self {
        Self { since: Instant::now(), steps: Vec::new() }
    }

    fn step(&mut self, step: &'static str) {
        let elapsed_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.steps.push(SwapStep { step, elapsed_ms });
        self.since = Instant::now();
    }
}

/// Replaces the version of a plugin.
pub(super) async fn swap(
    shared: &Arc<Shared>,
    name: &str,
    request: &SwapRequest,
) -> Result<SwapReport, SwapError> {
    let slot = shared.pool.slot(name).ok_or_else(|| SwapError::UnknownPlugin(name.to_owned()))?;
    let _guard = slot.swapping.try_lock().map_err(|_| SwapError::Busy(name.to_owned()))?;
    let found = discover::version(&shared.plugins_dir, name, request.version.as_deref())?;
    let replaced = replace(shared, slot, found, request).await;
    METRICS.swapped(name, if replaced.is_ok() { "done" } else { "refused" });
    let (old, report) = replaced?;
    let new = slot.current();
    keep(shared, &new).await;
    tokio::spawn(watch(Arc::clone(shared), name.to_owned(), new, old));
    Ok(report)
}

/// Lets the next start find the version that serves now.
async fn keep(shared: &Shared, version: &PluginVersion) {
    let (plugins_dir, dir) = (shared.plugins_dir.clone(), version.found.dir.clone());
    let kept = tokio::task::spawn_blocking(move || keep_active(&plugins_dir, &dir)).await;
    let plugin = version.name();
    match kept {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = crate::error_chain(&error);
            tracing::warn!(plugin, "version {} holds until the next start only: {error}", version.number());
        }
        Err(error) => tracing::error!(plugin, "the version that serves was not remembered: {error}"),
    }
}

/// A swap on its way.
struct Swap<'a> {
    shared: &'a Arc<Shared>,
    slot: &'a PluginSlot,
    old: Arc<PluginVersion>,
    new: Arc<PluginVersion>,
    drain_timeout: Duration,
    clock: Clock,
}

async fn replace(
    shared: &Arc<Shared>,
    slot: &PluginSlot,
    found: FoundPlugin,
    request: &SwapRequest,
) -> Result<(Arc<PluginVersion>, SwapReport), SwapError> {
    let mut swap = Swap {
        shared,
        slot,
        old: slot.current(),
        new: Arc::new(shared.pool.version(found)),
        drain_timeout: request.drain_timeout,
        clock: Clock::new(),
    };
    swap.check().await?;
    swap.clock.step("start and probe");
    let moving = swap.moving();
    let mode = match request.mode {
        Some(mode) => mode,
        None if memory::fits_twice(&shared.machine, moving.iter().map(|model| &model.old)).await => {
            SwapMode::SideBySide
        }
        None => SwapMode::DrainFirst,
    };
    let models = moving.iter().map(|model| model.entry.spec().id.clone()).collect();
    let (streams_drained, streams_migrated) = match mode {
        SwapMode::SideBySide => swap.side_by_side(moving).await?,
        SwapMode::DrainFirst => swap.drain_first(moving).await?,
    };
    let Swap { old, new, clock, .. } = swap;
    let report = SwapReport {
        plugin: slot.name.clone(),
        from: old.number(),
        to: new.number(),
        mode,
        models,
        streams_drained,
        streams_migrated,
        steps: clock.steps,
    };
    tracing::info!(
        plugin = slot.name,
        from = report.from,
        to = report.to,
        ?mode,
        streams_drained,
        streams_migrated,
        steps = ?report.steps,
        "plugin swapped"
    );
    Ok((old, report))
}

impl Swap<'_> {
    /// Handshake, `init` and probe of the new version.
    async fn check(&self) -> Result<(), SwapError> {
        let hardware = self.shared.machine.hardware().await;
        if !self.new.refuse_unfit(&hardware) {
            self.new.run_probe(self.shared.probe_timeout).await;
        }
        match self.new.unusable() {
            None => Ok(()),
            Some(reason) => {
                let (plugin, version) = (self.slot.name.clone(), self.new.number());
                Err(SwapError::Unfit { plugin, version, reason })
            }
        }
    }

    /// The models that the old version serves.
    fn moving(&self) -> Vec<Moving> {
        let entries = self.shared.models.iter();
        entries
            .filter_map(|entry| {
                let old = entry.ready().filter(|loaded| Arc::ptr_eq(&loaded.version, &self.old))?;
                Some(Moving { entry: Arc::clone(entry), old })
            })
            .collect()
    }

    /// Loads the models beside the old ones, flips, drains. Returns how many streams ended and how many moved.
    async fn side_by_side(&mut self, moving: Vec<Moving>) -> Result<(usize, usize), SwapError> {
        let mut loaded = Vec::with_capacity(moving.len());
        for model in &moving {
            loaded.push(self.load(&model.entry).await?);
        }
        self.clock.step("load");
        for (model, new) in moving.iter().zip(&loaded) {
            self.test(&model.entry, new).await?;
        }
        self.clock.step("self-test");
        self.new.start_probation();
        self.slot.replace(Arc::clone(&self.new));
        for (model, new) in moving.iter().zip(loaded) {
            model.entry.put(&model.old, new);
        }
        self.clock.step("flip");
        Ok(self.drain(moving.into_iter().map(|model| model.old).collect()).await)
    }

    /// Lets requests wait, drains, loads the models, flips. Returns how many streams ended and how many moved.
    async fn drain_first(&mut self, moving: Vec<Moving>) -> Result<(usize, usize), SwapError> {
        let mut waiting = Vec::with_capacity(moving.len());
        for model in &moving {
            let (sender, receiver) = oneshot::channel::<LoadOutcome>();
            let outcome = receiver.map(|outcome| outcome.unwrap_or(Err(EngineError::ShuttingDown)));
            model.entry.hold(outcome.boxed().shared());
            waiting.push((Arc::clone(&model.entry), sender));
        }
        let drained = self.drain(moving.into_iter().map(|model| model.old).collect()).await;
        self.new.start_probation();
        match self.load_all(&waiting).await {
            Ok(loaded) => {
                self.slot.replace(Arc::clone(&self.new));
                for ((entry, sender), model) in waiting.into_iter().zip(loaded) {
                    entry.resume(Ok(model), sender);
                }
                self.clock.step("load, self-test and flip");
                Ok(drained)
            }
            Err(error) => {
                for (entry, sender) in waiting {
                    let outcome = lifecycle::load_with(self.shared, entry.spec(), &self.old).await;
                    entry.resume(outcome.map(Arc::new), sender);
                }
                Err(error)
            }
        }
    }

    async fn load_all<T>(&self, entries: &[(Arc<ModelEntry>, T)]) -> Result<Vec<Arc<Loaded>>, SwapError> {
        let mut loaded = Vec::with_capacity(entries.len());
        for (entry, _) in entries {
            let model = self.load(entry).await?;
            self.test(entry, &model).await?;
            loaded.push(model);
        }
        Ok(loaded)
    }

    async fn load(&self, entry: &ModelEntry) -> Result<Arc<Loaded>, SwapError> {
        load(self.shared, entry.spec(), &self.new).await
    }

    async fn test(&self, entry: &ModelEntry, model: &Arc<Loaded>) -> Result<(), SwapError> {
        test(entry.spec(), &self.new, model).await
    }

    /// Lets running jobs end; what still runs at the end of the patience loses its worker and goes on in the new version.
    /// Returns how many ended and how many moved. Afterwards the worker is gone.
    async fn drain(&mut self, old: Vec<Arc<Loaded>>) -> (usize, usize) {
        let Some(worker) = old.first().map(|model| Arc::clone(model.handle.worker())) else { return (0, 0) };
        let running: usize = old.iter().map(|model| model.jobs.len()).sum();
        for model in &old {
            model.jobs.close();
        }
        let all = join_all(old.iter().map(|model| model.jobs.wait()));
        let migrated = match tokio::time::timeout(self.drain_timeout, all).await {
            Ok(_) => 0,
            Err(_) => old.iter().map(|model| model.jobs.len()).sum(),
        };
        worker.retire(&format!("was replaced by version {}", self.new.number()));
        worker.ended().await;
        self.clock.step("drain");
        (running.saturating_sub(migrated), migrated)
    }
}

/// Brings the old version back when the new one gets into trouble soon.
async fn watch(shared: Arc<Shared>, name: String, new: Arc<PluginVersion>, old: Arc<PluginVersion>) {
    let Some(slot) = shared.pool.slot(&name) else { return };
    tokio::select! {
        () = new.in_trouble() => {}
        () = tokio::time::sleep(PROBATION) => return new.end_probation(),
        // Neither version is needed any longer than that: each holds its folder.
        () = slot.replaced(&new) => return,
    }
    let _guard = slot.swapping.lock().await;
    if !Arc::ptr_eq(&slot.current(), &new) {
        return;
    }
    let (from, to) = (new.number(), old.number());
    tracing::error!(plugin = name, from, to, "the new version is in trouble: rolling back");
    let request = SwapRequest { version: None, mode: None, drain_timeout: Duration::ZERO };
    match replace(&shared, slot, old.found.clone(), &request).await {
        Ok(_) => {
            METRICS.swapped(&name, "rolled_back");
            keep(&shared, &old).await;
        }
        Err(error) => tracing::error!(plugin = name, "the roll-back failed: {}", crate::error_chain(&error)),
    }
    // Nobody waits for another roll-back.
    slot.settle();
}
