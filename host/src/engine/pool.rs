//! The installed plugins, each with the version that serves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::machine::Machine;
use super::plugin_cache_dir;
use super::status::PluginStatus;
use super::version::PluginVersion;
use crate::config::Config;
use crate::install::granted_to;
use crate::models::Catalog;
use crate::plugins::confine::Confinement;
use crate::plugins::discover::FoundPlugin;
use crate::plugins::select::Preferences;
use crate::plugins::{OnEnd, WorkerOptions};

/// Probes that run at the same time.
const PROBES_AT_ONCE: usize = 2;

/// All installed plugins.
#[derive(Debug)]
pub(super) struct PluginPool {
    slots: Vec<PluginSlot>,
    executable: PathBuf,
    /// What every worker may read.
    models: Vec<PathBuf>,
    config: Arc<Config>,
}

/// A plugin by its name, whatever version of it serves.
#[derive(Debug)]
pub(super) struct PluginSlot {
    pub(super) name: String,
    current: watch::Sender<Arc<PluginVersion>>,
    /// Held while the version is being replaced.
    pub(super) swapping: tokio::sync::Mutex<()>,
}

impl PluginSlot {
    /// The version that serves.
    pub(super) fn current(&self) -> Arc<PluginVersion> {
        Arc::clone(&self.current.borrow())
    }

    /// Waits while the version that serves is about to be replaced by the one before.
    pub(super) async fn settled(&self) {
        // An error means that the sender is gone, which lives as long as `self`.
        let _ = self.current.subscribe().wait_for(|version| !version.is_in_trouble()).await;
    }

    /// Waits until another version than this one serves.
    pub(super) async fn replaced(&self, version: &Arc<PluginVersion>) {
        // An error means that the sender is gone, which lives as long as `self`.
        let _ = self.current.subscribe().wait_for(|current| !Arc::ptr_eq(current, version)).await;
    }

    /// Ends the probation of the version that serves, whatever its trouble.
    pub(super) fn settle(&self) {
        self.current.send_modify(|version| version.end_probation());
    }

    /// Lets another version serve from now on; returns the one before.
    pub(super) fn replace(&self, version: Arc<PluginVersion>) -> Arc<PluginVersion> {
        self.current.send_replace(version)
    }
}

impl PluginPool {
    pub(super) fn new(
        config: &Arc<Config>,
        found: Vec<FoundPlugin>,
        catalog: &Catalog,
    ) -> std::io::Result<Self> {
        let mut models: Vec<PathBuf> = config.models_dirs.clone();
        models.extend(catalog.models.iter().flat_map(|spec| spec.files.iter().cloned()));
        let mut pool = Self {
            slots: Vec::new(),
            executable: own_executable()?,
            models: models.iter().filter_map(|path| path.canonicalize().ok()).collect(),
            config: Arc::clone(config),
        };
        let slots = found.into_iter().map(|found| PluginSlot {
            name: found.manifest.name.clone(),
            current: watch::Sender::new(Arc::new(pool.version(found))),
            swapping: tokio::sync::Mutex::default(),
        });
        pool.slots = slots.collect();
        Ok(pool)
    }

    /// A version of a plugin, ready to be probed and started.
    pub(super) fn version(&self, found: FoundPlugin) -> PluginVersion {
        let (name, config) = (&found.manifest.name, &self.config);
        let cache_dir = plugin_cache_dir(&config.cache_dir, name);
        if let Err(error) = std::fs::create_dir_all(&cache_dir) {
            tracing::warn!(dir = %cache_dir.display(), "the plugin {name} has no cache folder: {error}");
        }
        let plugin_config = config.plugins.get(name).cloned().unwrap_or_default();
        let granted = granted_to(&found, plugin_config.grant);
        let read = self.models.iter().cloned().chain([found.dir.clone()]).chain(granted.read).collect();
        let write = std::iter::once(cache_dir).chain(granted.write).collect();
        let options = WorkerOptions {
            plugin: name.clone(),
            plugin_dir: found.dir.clone(),
            library: found.library(),
            environment: found.manifest.environment.clone(),
            executable: self.executable.clone(),
            confinement: Confinement { read, write, network: granted.network },
            in_process: config.in_process,
            log_level: log_level(),
            start_timeout: config.worker.start_timeout,
            stall_timeout: config.worker.stall_timeout,
            hang_timeout: config.worker.hang_timeout,
            on_end: OnEnd::default(),
        };
        PluginVersion::new(found, options, plugin_config.options)
    }

    /// What the operator prefers for all models.
    pub(super) fn preferences(&self) -> &Preferences {
        &self.config.selection
    }

    /// The versions that serve.
    pub(super) fn plugins(&self) -> Vec<Arc<PluginVersion>> {
        self.slots.iter().map(PluginSlot::current).collect()
    }

    /// Whether the operator has set options for every load by some plugin.
    pub(super) fn has_load_options(&self) -> bool {
        self.config.plugins.values().any(|plugin| !plugin.options.is_empty())
    }

    pub(super) fn slot(&self, name: &str) -> Option<&PluginSlot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    pub(super) fn status(&self) -> Vec<PluginStatus> {
        self.plugins().iter().map(|version| version.status()).collect()
    }

    /// Probes all plugins in the background, each in a worker that ends with the probe. What a probe has shown before is
    /// not asked again.
    pub(super) fn probe_all(&self, machine: &Arc<Machine>, timeout: Duration) {
        let permits = Arc::new(Semaphore::new(PROBES_AT_ONCE));
        for version in self.plugins() {
            if self.preferences().disabled.iter().any(|name| name == version.name()) {
                version.disable();
                continue;
            }
            let (permits, machine) = (Arc::clone(&permits), Arc::clone(machine));
            let cache_dir = self.config.cache_dir.clone();
            tokio::spawn(async move {
                let hardware = machine.hardware().await;
                // The semaphore is never closed.
                let _permit = permits.acquire().await;
                version.probe(&hardware, &cache_dir, timeout).await;
            });
        }
    }

    /// Forgets the crashes of a plugin, which a request was found to be guilty of.
    pub(super) fn forgive(&self, plugin: &str) {
        if self.reset(plugin) == Some(true) {
            tracing::info!(plugin, "quarantine lifted: a request was to blame");
        }
    }

    /// Forgets the crashes of a plugin. Returns whether it was in quarantine; `None` when there is no such plugin.
    pub(super) fn reset(&self, plugin: &str) -> Option<bool> {
        Some(self.slot(plugin)?.current().reset())
    }

    /// Whether the plugin's version got the routes a moment ago.
    pub(super) fn is_on_probation(&self, plugin: &str) -> bool {
        self.slot(plugin).is_some_and(|slot| slot.current().is_on_probation())
    }

    /// Waits while a plugin is about to get its version before back.
    pub(super) async fn settled(&self, plugin: &str) {
        if let Some(slot) = self.slot(plugin) {
            slot.settled().await;
        }
    }

    pub(super) async fn probed(&self) {
        for version in self.plugins() {
            version.probe_state().await;
        }
    }
}

/// The program that workers run: this one, even when its file was replaced since it started.
fn own_executable() -> std::io::Result<PathBuf> {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { Ok(link) } else { std::env::current_exe() }
}

fn log_level() -> tracing::Level {
    tracing::level_filters::LevelFilter::current().into_level().unwrap_or(tracing::Level::ERROR)
}
