//! From a model's name to a running job: the catalog, selection, workers and loaded models behind one handle.

mod admission;
mod budget;
mod choice;
mod crashes;
mod error;
mod evict;
mod job;
mod lifecycle;
mod loaded;
mod machine;
mod memory;
mod pool;
mod probe_cache;
mod recovery;
mod routes;
mod self_test;
mod shadow;
mod status;
mod swap;
mod version;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pajamas_plugin_api::ModelInfo;
use tokio_util::task::TaskTracker;

pub use admission::{CALLER_WEIGHT_MAX, Caller, Priority};
use budget::Budget;
pub use choice::{Why, WhyPlugin};
pub use error::{EngineError, FailureCause, WorkerFailure};
pub use evict::Unloaded;
pub use job::{JobEvent, OutputTensor, TokenLogprob};
use lifecycle::ModelEntry;
pub use loaded::LoadedModel;
use machine::Machine;
use pool::PluginPool;
pub use recovery::JobStream;
use recovery::PoisonList;
use routes::{ROUTES_MAX, Route, Routes};
pub use self_test::SelfTestError;
pub use status::{ModelState, ModelStatus, PluginState, PluginStatus};

pub use swap::{ModelSwapReport, SwapError, SwapMode, SwapReport, SwapRequest, SwapStep};

use shadow::Shadows;

use crate::config::{Config, RouteConfig};
use crate::hardware::{GpuReading, Hardware};
use crate::models::{Catalog, ModelSpec};
use crate::plugins::discover::{DiscoverError, discover};

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The plugins folder cannot be read.
    #[error("cannot look for plugins: create the folder, or name another one with --plugins")]
    Plugins(#[source] DiscoverError),
    /// There is no usable plugin.
    #[error(
        "the plugins folder {dir} holds no usable plugin: put one there, each in a folder with its plugin.toml"
    )]
    NoPlugins {
        /// The folder.
        dir: PathBuf,
    },
    /// The path of this program is unknown, so workers cannot be started.
    #[error("cannot find this program's own file, which workers run")]
    Executable(#[source] std::io::Error),
}

/// Why a model was not swapped.
#[derive(Debug, thiserror::Error)]
pub enum ModelSwapError {
    /// There is no such model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The new one failed.
    #[error(transparent)]
    Swap(#[from] SwapError),
}

/// Why a route was not made.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// It names a model that is not there.
    #[error("there is no model \"{0}\" for the route: GET /v1/models lists what is there")]
    UnknownModel(String),
    /// There are too many routes.
    #[error("there are {ROUTES_MAX} routes already: remove one first")]
    TooMany,
}

/// Everything that serves models. Cheap to clone; all methods may be called from any task.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PluginPool,
    machine: Arc<Machine>,
    models: Vec<Arc<ModelEntry>>,
    routes: Routes,
    shadows: Shadows,
    /// One token per running job; waited for at shutdown.
    jobs: TaskTracker,
    closing: AtomicBool,
    budget: Arc<Budget>,
    /// How long a model may be unused before it is unloaded, unless its settings say otherwise.
    idle_timeout: Option<Duration>,
    poison: PoisonList,
    load_timeout: Duration,
    probe_timeout: Duration,
    cache_dir: PathBuf,
    plugins_dir: PathBuf,
}

impl Engine {
    /// Finds plugins and models. Runs no plugin code itself; probes start in the background, so this must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let found = discover(&config.plugins_dir).map_err(StartError::Plugins)?;
        for problem in &found.problems {
            tracing::warn!("{}", crate::error_chain(problem));
        }
        if found.plugins.is_empty() {
            return Err(StartError::NoPlugins { dir: config.plugins_dir.clone() });
        }
        let formats: Vec<String> =
            found.plugins.iter().flat_map(|plugin| plugin.manifest.formats.iter().cloned()).collect();
        let catalog = Catalog::scan(&config.models_dirs, &formats);
        let pool = PluginPool::new(&Arc::new(config.clone()), found.plugins, &catalog)
            .map_err(StartError::Executable)?;
        let shared = Arc::new(Shared {
            pool,
            machine: Arc::default(),
            models: catalog
                .models
                .into_iter()
                .map(|spec| Arc::new(ModelEntry::new(spec, config.limits.queue)))
                .collect(),
            routes: Routes::new(&config.routes),
            shadows: Shadows::default(),
            jobs: TaskTracker::new(),
            closing: AtomicBool::new(false),
            budget: Arc::new(Budget::new(&config.memory)),
            idle_timeout: config.memory.idle_timeout,
            poison: PoisonList::default(),
            load_timeout: config.worker.load_timeout,
            probe_timeout: config.worker.probe_timeout,
            cache_dir: config.cache_dir.clone(),
            plugins_dir: config.plugins_dir.clone(),
        });
        for (name, route) in &config.routes {
            if let Some(model) = shared.unknown_model(route) {
                tracing::warn!(
                    "the route {name} names the model {model}, which does not exist, and leaves it out"
                );
            }
        }
        shared.pool.probe_all(&shared.machine, shared.probe_timeout);
        tokio::spawn(budget::unload_idle(Arc::downgrade(&shared)));
        if config.watch {
            tokio::spawn(watch::run(Arc::downgrade(&shared)));
        }
        for entry in shared.models.iter().filter(|entry| entry.spec().preload) {
            let (shared, entry) = (Arc::clone(&shared), Arc::clone(entry));
            // Its failure is in the log and in the model's state.
            tokio::spawn(async move { drop(lifecycle::acquire(&shared, &entry).await) });
        }
        Ok(Self { shared })
    }

    /// All models, in the catalog's order.
    #[must_use]
    pub fn models(&self) -> Vec<ModelStatus> {
        self.shared.models.iter().map(|entry| entry.status()).collect()
    }

    /// The model of this id or alias.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<ModelStatus> {
        self.entry(name).ok().map(|entry| entry.status())
    }

    /// The model of this id or alias, if it is in memory; loads nothing.
    #[must_use]
    pub fn loaded(&self, name: &str) -> Option<LoadedModel> {
        let entry = self.entry(name).ok()?;
        let loaded = entry.ready()?;
        Some(LoadedModel::new(loaded, entry, Arc::clone(&self.shared)))
    }

    /// All routes, by name.
    #[must_use]
    pub fn routes(&self) -> Vec<(String, RouteConfig)> {
        self.shared.routes.list()
    }

    /// Makes a route, or replaces the one of this name, for the requests that come from now on.
    ///
    /// # Errors
    /// See [`RouteError`]; nothing is changed then.
    pub fn set_route(&self, name: &str, route: RouteConfig) -> Result<(), RouteError> {
        if let Some(model) = self.shared.unknown_model(&route) {
            return Err(RouteError::UnknownModel(model.to_owned()));
        }
        if !self.shared.routes.set(name, route) {
            return Err(RouteError::TooMany);
        }
        tracing::info!(route = name, "the route has changed");
        Ok(())
    }

    /// Removes a route; returns whether there was one.
    #[must_use]
    pub fn remove_route(&self, name: &str) -> bool {
        self.shared.routes.remove(name)
    }

    /// All plugins, by name.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.shared.pool.status()
    }

    /// What the machine is made of. The first call looks, which may take long where a driver has to wake up.
    pub async fn hardware(&self) -> Arc<Hardware> {
        self.shared.machine.hardware().await
    }

    /// What the machine's GPUs are doing, as far as they tell within two seconds.
    pub async fn gpu_readings(&self) -> Vec<GpuReading> {
        self.shared.machine.gpu_readings().await
    }

    /// Why a model is served by the plugin that serves it. Waits for the probes of the plugins that could read it.
    ///
    /// # Errors
    /// No such model.
    pub async fn why(&self, name: &str) -> Result<Why, EngineError> {
        let entry = self.entry(name)?;
        Ok(choice::choose(&self.shared, entry.spec()).await.why(entry.spec()))
    }

    /// Replaces the version of a plugin under live traffic.
    ///
    /// # Errors
    /// See [`SwapError`]; the old version still serves then.
    ///
    /// # Cancellation
    /// The swap goes on.
    pub async fn swap_plugin(&self, name: &str, request: SwapRequest) -> Result<SwapReport, SwapError> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        let task = tokio::spawn(async move { swap::swap(&shared, &name, &request).await });
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Loads a model again, whose file was replaced, beside the old one, and lets it take the old one's place.
    ///
    /// # Errors
    /// No such model, or the new one fails; the old one still serves then.
    pub async fn swap_model(
        &self,
        name: &str,
        drain_timeout: Duration,
    ) -> Result<ModelSwapReport, ModelSwapError> {
        let entry = self.entry(name)?;
        Ok(swap::swap_model(&self.shared, &entry, drain_timeout).await?)
    }

    /// Lifts a plugin's quarantine and forgets its crashes. Returns whether it was in quarantine; `None` when there is no
    /// such plugin.
    #[must_use]
    pub fn reset_plugin(&self, name: &str) -> Option<bool> {
        self.shared.pool.reset(name)
    }

    /// Waits until every plugin has been probed.
    pub async fn probed(&self) {
        self.shared.pool.probed().await;
    }

    /// The model, loaded on demand. All who ask at the same time wait for one load. The name of a route stands for the
    /// target whose turn it is; when that cannot be loaded, for the next one that can.
    ///
    /// # Errors
    /// No such model, no plugin for it, or the load failed; for a route, what its first target says.
    ///
    /// # Cancellation
    /// The load goes on for the others, and for the next request.
    pub async fn acquire(&self, name: &str) -> Result<LoadedModel, EngineError> {
        if let Some(route) = self.shared.routes.get(name) {
            return self.acquire_by(&route).await;
        }
        self.acquire_entry(self.entry(name)?).await
    }

    async fn acquire_entry(&self, entry: Arc<ModelEntry>) -> Result<LoadedModel, EngineError> {
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(EngineError::ShuttingDown);
        }
        let loaded = lifecycle::acquire(&self.shared, &entry).await?;
        Ok(LoadedModel::new(loaded, entry, Arc::clone(&self.shared)))
    }

    async fn acquire_by(&self, route: &Route) -> Result<LoadedModel, EngineError> {
        let mut first_error = None;
        for target in route.targets() {
            let acquired = match self.entry(target) {
                Ok(entry) => self.acquire_entry(entry).await,
                Err(error) => Err(error),
            };
            match acquired {
                Ok(model) => {
                    let shadows = route.shadows().into_iter().filter_map(|shadow| self.entry(shadow).ok());
                    return Ok(model.with_shadows(shadows.collect()));
                }
                Err(error) => {
                    tracing::warn!(model = target, "a route's target cannot answer: {error}");
                    first_error.get_or_insert(error);
                }
            }
        }
        // A route has at least one target.
        Err(first_error.unwrap_or(EngineError::ShuttingDown))
    }

    /// As [`Engine::acquire`], for an operator: a model whose last load failed a moment ago is tried at once.
    ///
    /// # Errors
    /// As for [`Engine::acquire`].
    pub async fn load(&self, name: &str) -> Result<LoadedModel, EngineError> {
        let entry = self.entry(name)?;
        entry.forgive();
        self.acquire_entry(entry).await
    }

    /// Unloads a model once its running jobs have ended. `None` when it was not loaded.
    ///
    /// # Errors
    /// No such model.
    ///
    /// # Cancellation
    /// The model is unloaded all the same.
    pub async fn unload(&self, name: &str) -> Result<Option<Unloaded>, EngineError> {
        Ok(self.entry(name)?.unload().await)
    }

    /// A model's metadata, read by a plugin without loading the model; also says which plugin read it.
    ///
    /// # Errors
    /// No plugin for it, or the file is unusable.
    pub async fn inspect(&self, spec: &ModelSpec) -> Result<(String, ModelInfo), EngineError> {
        lifecycle::inspect(&self.shared, spec).await
    }

    /// Metadata of a model of the catalog: as it was loaded last, else as a plugin reads them. Loads nothing.
    ///
    /// # Errors
    /// No such model, no plugin for it, or the file is unusable.
    pub async fn describe(&self, name: &str) -> Result<Arc<ModelInfo>, EngineError> {
        let entry = self.entry(name)?;
        match entry.status().info {
            Some(info) => Ok(info),
            None => self.inspect(entry.spec()).await.map(|(_, info)| Arc::new(info)),
        }
    }

    /// Whether requests are served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.shared.closing.load(Ordering::Acquire)
    }

    /// Refuses new jobs from now on; running ones go on.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.jobs.close();
    }

    /// Stops: refuses new jobs, waits for running ones up to `drain_timeout`, then ends all workers. Returns how many
    /// jobs were cut off.
    pub async fn shutdown(&self, drain_timeout: Duration) -> usize {
        self.close();
        let cut_off = match tokio::time::timeout(drain_timeout, self.shared.jobs.wait()).await {
            Ok(()) => 0,
            Err(_) => self.shared.jobs.len(),
        };
        for entry in &self.shared.models {
            entry.forget();
        }
        cut_off
    }

    fn entry(&self, name: &str) -> Result<Arc<ModelEntry>, EngineError> {
        self.shared.entry(name).cloned().ok_or_else(|| EngineError::UnknownModel { name: name.to_owned() })
    }
}

impl Shared {
    /// The model of this id, or else of this alias.
    fn entry(&self, name: &str) -> Option<&Arc<ModelEntry>> {
        let by_id = self.models.iter().find(|entry| entry.spec().id == name);
        by_id.or_else(|| self.models.iter().find(|e| e.spec().aliases.iter().any(|alias| alias == name)))
    }

    /// A model that a route names and that does not exist.
    fn unknown_model<'a>(&self, route: &'a RouteConfig) -> Option<&'a str> {
        let targets = route.targets.iter().map(|target| &target.model);
        let mut models = targets.chain(route.shadows.iter().map(|shadow| &shadow.model));
        models.find(|model| self.entry(model).is_none()).map(String::as_str)
    }
}

/// The folder that the plugin of this name may write to.
fn plugin_cache_dir(cache_dir: &Path, plugin: &str) -> PathBuf {
    cache_dir.join("plugins").join(plugin)
}
