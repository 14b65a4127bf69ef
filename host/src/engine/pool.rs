//! The installed plugins: what their probes have shown, and at most one running worker each.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pajamas_plugin_api::ProbeReport;
use pajamas_plugin_api::version::abi_version;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::crashes::{CRASHES_MAX, Crashes, WINDOW};
use super::error::WorkerFailure;
use super::plugin_cache_dir;
use super::status::{PluginState, PluginStatus};
use crate::config::Config;
use crate::models::Catalog;
use crate::plugins::confine::Confinement;
use crate::plugins::discover::FoundPlugin;
use crate::plugins::select::{Machine, ProbeState, target_problem};
use crate::plugins::{StartError, Worker, WorkerOptions};

/// Probes that run at the same time.
const PROBES_AT_ONCE: usize = 2;

/// All installed plugins.
#[derive(Debug)]
pub(super) struct PluginPool {
    plugins: Vec<Arc<PluginEntry>>,
    machine: Machine,
}

/// One installed plugin.
#[derive(Debug)]
pub(super) struct PluginEntry {
    pub(super) found: FoundPlugin,
    options: WorkerOptions,
    /// The operator's options for every model of this plugin.
    pub(super) load_options: serde_json::Map<String, serde_json::Value>,
    probe: watch::Sender<Probe>,
    worker: tokio::sync::Mutex<Weak<Worker>>,
    crashes: Arc<Mutex<Crashes>>,
}

/// Outcome of a probe.
#[derive(Clone, Debug, Default)]
enum Probe {
    #[default]
    Pending,
    Usable(ProbeReport),
    Unusable(String),
}

impl PluginPool {
    pub(super) fn new(config: &Config, found: Vec<FoundPlugin>, catalog: &Catalog) -> std::io::Result<Self> {
        let executable = own_executable()?;
        let mut models: Vec<PathBuf> = config.models_dirs.clone();
        models.extend(catalog.models.iter().flat_map(|spec| spec.files.iter().cloned()));
        let models: Vec<PathBuf> = models.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let plugins = found.into_iter().map(|found| {
            let name = &found.manifest.name;
            let cache_dir = plugin_cache_dir(&config.cache_dir, name);
            if let Err(error) = std::fs::create_dir_all(&cache_dir) {
                tracing::warn!(dir = %cache_dir.display(), "the plugin {name} has no cache folder: {error}");
            }
            let mut read = models.clone();
            read.push(found.dir.clone());
            let options = WorkerOptions {
                plugin: name.clone(),
                plugin_dir: found.dir.clone(),
                library: found.library(),
                executable: executable.clone(),
                confinement: Confinement { read, write: vec![cache_dir], network: false },
                in_process: config.in_process,
                log_level: log_level(),
                start_timeout: config.worker.start_timeout,
                stall_timeout: config.worker.stall_timeout,
                hang_timeout: config.worker.hang_timeout,
            };
            let load_options = config.plugins.get(name).map(|p| p.options.clone()).unwrap_or_default();
            Arc::new(PluginEntry {
                found,
                options,
                load_options,
                probe: watch::channel(Probe::Pending).0,
                worker: tokio::sync::Mutex::default(),
                crashes: Arc::default(),
            })
        });
        Ok(Self { plugins: plugins.collect(), machine: Machine::detect() })
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(super) fn plugins(&self) -> &[Arc<PluginEntry>] {
        &self.plugins
    }

    pub(super) fn status(&self) -> Vec<PluginStatus> {
        self.plugins.iter().map(|entry| entry.status()).collect()
    }

    /// Probes all plugins in the background, each in a worker that ends with the probe.
    pub(super) fn probe_all(&self, timeout: Duration) {
        let permits = Arc::new(Semaphore::new(PROBES_AT_ONCE));
        for entry in &self.plugins {
            if let Some(reason) = entry.static_problem(&self.machine) {
                entry.probe.send_replace(Probe::Unusable(reason));
                continue;
            }
            let (entry, permits) = (Arc::clone(entry), Arc::clone(&permits));
            tokio::spawn(async move {
                // The semaphore is never closed.
                let _permit = permits.acquire().await;
                entry.run_probe(timeout).await;
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
        let entry = self.plugins.iter().find(|entry| entry.name() == plugin)?;
        Some(entry.crashes.lock().reset())
    }

    pub(super) async fn probed(&self) {
        for entry in &self.plugins {
            entry.probe_state().await;
        }
    }
}

fn note_crash(crashes: &Mutex<Crashes>, failure: &Arc<WorkerFailure>) {
    if crashes.lock().note(failure, Instant::now()) {
        let plugin = &failure.plugin;
        tracing::error!(plugin, "plugin quarantined after {CRASHES_MAX} crashes in {} s", WINDOW.as_secs());
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

impl PluginEntry {
    pub(super) fn name(&self) -> &str {
        &self.found.manifest.name
    }

    /// What speaks against the plugin without running it.
    fn static_problem(&self, machine: &Machine) -> Option<String> {
        let manifest = &self.found.manifest;
        let ours = abi_version();
        if !manifest.abi.matches(&ours) {
            return Some(format!("it is for hosts of ABI {}, this host speaks {ours}", manifest.abi));
        }
        if !self.options.library.is_file() {
            return Some(format!("its library {} is missing", self.options.library.display()));
        }
        target_problem(&manifest.target, machine)
    }

    async fn run_probe(&self, timeout: Duration) {
        let outcome = match Worker::start(self.options.clone()).await {
            Err(error) => Probe::Unusable(error.to_string()),
            Ok(worker) => {
                self.log_start(&worker);
                match worker.probe(timeout).await {
                    Err(error) => Probe::Unusable(error.to_string()),
                    Ok(None) => Probe::Usable(ProbeReport::default()),
                    Ok(Some(report)) if report.devices.is_empty() => {
                        Probe::Unusable(report.reason.unwrap_or_else(|| "it found no device".to_owned()))
                    }
                    Ok(Some(report)) => Probe::Usable(report),
                }
            }
        };
        match &outcome {
            Probe::Unusable(reason) => tracing::warn!(plugin = self.name(), "plugin not usable: {reason}"),
            Probe::Usable(report) => {
                let devices: Vec<&str> = report.devices.iter().map(|d| d.id.as_str()).collect();
                tracing::info!(plugin = self.name(), engine = report.engine, ?devices, "plugin usable");
            }
            Probe::Pending => {}
        }
        self.probe.send_replace(outcome);
    }

    fn log_start(&self, worker: &Worker) {
        let handshake = worker.handshake();
        let manifest = &self.found.manifest;
        if handshake.id != manifest.name || handshake.version != manifest.version.to_string() {
            tracing::warn!(
                plugin = self.name(),
                "the library says it is {} {}, its manifest says {} {}",
                handshake.id,
                handshake.version,
                manifest.name,
                manifest.version
            );
        }
        let confined = worker.confined();
        let abi = format!("{}.{}", handshake.versions.abi_major, handshake.negotiated_minor);
        if confined.starts_with("confined") {
            tracing::debug!(plugin = self.name(), abi, confined, "worker started");
        } else {
            tracing::warn!(plugin = self.name(), abi, confined, "worker started");
        }
    }

    /// What the probe shows, once it has finished.
    pub(super) async fn probe_state(&self) -> ProbeState {
        let mut probe = self.probe.subscribe();
        match probe.wait_for(|probe| !matches!(probe, Probe::Pending)).await.as_deref() {
            Ok(Probe::Unusable(reason)) => ProbeState::Unusable(reason.clone()),
            Ok(_) => ProbeState::Usable,
            Err(_) => ProbeState::Unknown,
        }
    }

    /// The plugin's worker, started on demand; it ends with its last model.
    pub(super) async fn worker(&self) -> Result<Arc<Worker>, StartError> {
        let mut slot = self.worker.lock().await;
        if let Some(worker) = slot.upgrade().filter(|worker| worker.is_alive()) {
            return Ok(worker);
        }
        let pause = {
            let mut crashes = self.crashes.lock();
            if let Some(reason) = crashes.quarantine() {
                let (plugin, reason) = (self.name().to_owned(), reason.to_owned());
                return Err(StartError::Quarantined { plugin, reason });
            }
            crashes.pause(Instant::now())
        };
        tokio::time::sleep(pause).await;
        let worker = match Worker::start(self.options.clone()).await {
            Ok(worker) => Arc::new(worker),
            Err(error) => {
                if let StartError::Died(failure) = &error {
                    note_crash(&self.crashes, failure);
                }
                return Err(error);
            }
        };
        self.log_start(&worker);
        let (ended, crashes) = (worker.ended(), Arc::clone(&self.crashes));
        tokio::spawn(async move { note_crash(&crashes, &ended.await) });
        *slot = Arc::downgrade(&worker);
        Ok(worker)
    }

    fn status(&self) -> PluginStatus {
        let manifest = &self.found.manifest;
        let running = self.worker.try_lock().is_ok_and(|w| w.upgrade().is_some_and(|w| w.is_alive()));
        let probe = self.probe.borrow().clone();
        let quarantine = self.crashes.lock().quarantine().map(str::to_owned);
        let (state, report) = match probe {
            Probe::Usable(report) if quarantine.is_some() => {
                (PluginState::Quarantined(quarantine.unwrap_or_default()), report)
            }
            Probe::Pending => (PluginState::Probing, ProbeReport::default()),
            Probe::Unusable(reason) => (PluginState::Rejected(reason), ProbeReport::default()),
            Probe::Usable(report) if running => (PluginState::Running, report),
            Probe::Usable(report) => (PluginState::Ready, report),
        };
        PluginStatus {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            description: manifest.description.clone(),
            path: self.found.dir.clone(),
            formats: manifest.formats.clone(),
            tasks: manifest.tasks.clone(),
            state,
            engine: report.engine,
            devices: report.devices,
        }
    }
}
