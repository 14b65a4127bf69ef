//! From a model's name to a running job: the catalog, selection, workers and loaded models behind one handle.

mod admission;
mod budget;
mod crashes;
mod error;
mod job;
mod lifecycle;
mod loaded;
mod memory;
mod pool;
mod recovery;
mod self_test;
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

pub use admission::{Caller, Priority};
use budget::Budget;
pub use error::{EngineError, FailureCause, WorkerFailure};
pub use job::{JobEvent, OutputTensor, TokenLogprob};
use lifecycle::ModelEntry;
pub use loaded::LoadedModel;
use pool::PluginPool;
pub use recovery::JobStream;
use recovery::PoisonList;
pub use self_test::SelfTestError;
pub use status::{ModelState, ModelStatus, PluginState, PluginStatus};

pub use swap::{ModelSwapReport, SwapError, SwapMode, SwapReport, SwapRequest, SwapStep};

use crate::config::Config;
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

/// Everything that serves models. Cheap to clone; all methods may be called from any task.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PluginPool,
    models: Vec<Arc<ModelEntry>>,
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
            models: catalog
                .models
                .into_iter()
                .map(|spec| Arc::new(ModelEntry::new(spec, config.limits.queue)))
                .collect(),
            jobs: TaskTracker::new(),
            closing: AtomicBool::new(false),
            budget: Arc::new(Budget::new(config.memory.budget_bytes.or_else(memory::nine_tenths))),
            idle_timeout: config.memory.idle_timeout,
            poison: PoisonList::default(),
            load_timeout: config.worker.load_timeout,
            probe_timeout: config.worker.probe_timeout,
            cache_dir: config.cache_dir.clone(),
            plugins_dir: config.plugins_dir.clone(),
        });
        shared.pool.probe_all(shared.probe_timeout);
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

    /// All plugins, by name.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.shared.pool.status()
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

    /// The model, loaded on demand. All who ask at the same time wait for one load.
    ///
    /// # Errors
    /// No such model, no plugin for it, or the load failed.
    ///
    /// # Cancellation
    /// The load goes on for the others, and for the next request.
    pub async fn acquire(&self, name: &str) -> Result<LoadedModel, EngineError> {
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(EngineError::ShuttingDown);
        }
        let entry = self.entry(name)?;
        let loaded = lifecycle::acquire(&self.shared, &entry).await?;
        Ok(LoadedModel::new(loaded, entry, Arc::clone(&self.shared)))
    }

    /// As [`Engine::acquire`], for an operator: a model whose last load failed a moment ago is tried at once.
    ///
    /// # Errors
    /// As for [`Engine::acquire`].
    pub async fn load(&self, name: &str) -> Result<LoadedModel, EngineError> {
        self.entry(name)?.forgive();
        self.acquire(name).await
    }

    /// Unloads a model once its running jobs have ended. Returns whether it was loaded.
    ///
    /// # Errors
    /// No such model.
    ///
    /// # Cancellation
    /// The model is unloaded all the same.
    pub async fn unload(&self, name: &str) -> Result<bool, EngineError> {
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
        let by_id = self.shared.models.iter().find(|entry| entry.spec().id == name);
        let by_alias =
            || self.shared.models.iter().find(|e| e.spec().aliases.iter().any(|alias| alias == name));
        by_id.or_else(by_alias).cloned().ok_or_else(|| EngineError::UnknownModel { name: name.to_owned() })
    }
}

/// The folder that the plugin of this name may write to.
fn plugin_cache_dir(cache_dir: &Path, plugin: &str) -> PathBuf {
    cache_dir.join("plugins").join(plugin)
}
