//! One version of a plugin: what its probe has shown, its crashes, and at most one running worker.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Accel, ProbeReport};
use pajamas_registry::Lease;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::crashes::{CRASHES_MAX, Crashes, WINDOW};
use super::error::{FailureCause, WorkerFailure};
use super::probe_cache;
use super::status::{PluginState, PluginStatus};
use crate::hardware::Hardware;
use crate::plugins::discover::FoundPlugin;
use crate::plugins::select::{DISABLED, ProbeState, cannot_run};
use crate::plugins::{OnEnd, StartError, Worker, WorkerOptions};

/// A version of a plugin.
#[derive(Debug)]
pub(super) struct PluginVersion {
    pub(super) found: FoundPlugin,
    /// Workers are started from its folder for as long as it serves, also after newer versions were installed.
    _lease: Option<Lease>,
    options: WorkerOptions,
    /// The operator's options for every model of this plugin.
    pub(super) load_options: serde_json::Map<String, serde_json::Value>,
    probe: watch::Sender<Probe>,
    worker: tokio::sync::Mutex<Weak<Worker>>,
    crashes: Arc<Mutex<Crashes>>,
    /// It has got the routes a moment ago; what happens to its jobs is blamed on it, not on them.
    is_new: AtomicBool,
    /// Counts failures: a crash for [`CRASH_WEIGHT`].
    trouble: Arc<watch::Sender<u32>>,
}

/// Trouble of a new version that brings the old one back.
const TROUBLE_MAX: u32 = 4;
/// How much trouble a crash is; a job that fails by the plugin's fault is 1.
const CRASH_WEIGHT: u32 = 2;

/// Outcome of a probe.
#[derive(Clone, Debug, Default)]
enum Probe {
    #[default]
    Pending,
    Usable(ProbeReport),
    Unusable(String),
}

fn note_crash(crashes: &Mutex<Crashes>, trouble: &watch::Sender<u32>, failure: &Arc<WorkerFailure>) {
    if failure.cause == FailureCause::Plugin {
        trouble.send_modify(|trouble| *trouble = trouble.saturating_add(CRASH_WEIGHT));
    }
    if crashes.lock().note(failure, Instant::now()) {
        let plugin = &failure.plugin;
        tracing::error!(plugin, "plugin quarantined after {CRASHES_MAX} crashes in {} s", WINDOW.as_secs());
    }
}

impl PluginVersion {
    pub(super) fn new(
        found: FoundPlugin,
        options: WorkerOptions,
        load_options: serde_json::Map<String, serde_json::Value>,
    ) -> Self {
        let lease = Lease::take(&found.dir);
        if let Err(error) = &lease {
            let error = crate::error_chain(error);
            tracing::warn!("a later installation may remove this version while it is in use: {error}");
        }
        Self {
            found,
            _lease: lease.ok(),
            options,
            load_options,
            probe: watch::channel(Probe::Pending).0,
            worker: tokio::sync::Mutex::default(),
            crashes: Arc::default(),
            is_new: AtomicBool::new(false),
            trouble: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Number of the version.
    pub(super) fn number(&self) -> String {
        self.found.manifest.version.to_string()
    }

    /// Begins the time in which trouble is the version's own fault.
    pub(super) fn start_probation(&self) {
        self.trouble.send_replace(0);
        self.is_new.store(true, Ordering::Relaxed);
    }

    /// Ends that time.
    pub(super) fn end_probation(&self) {
        self.is_new.store(false, Ordering::Relaxed);
    }

    /// Whether it got the routes a moment ago.
    pub(super) fn is_on_probation(&self) -> bool {
        self.is_new.load(Ordering::Relaxed)
    }

    /// Whether the old version is to come back.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.is_on_probation() && *self.trouble.borrow() >= TROUBLE_MAX
    }

    /// Waits until there is too much trouble: two crashes, four failed jobs, or one crash and two failed jobs.
    pub(super) async fn in_trouble(&self) {
        // An error means that the sender is gone, which lives as long as `self`.
        let _ = self.trouble.subscribe().wait_for(|trouble| *trouble >= TROUBLE_MAX).await;
    }

    /// Notes a job that failed by the plugin's fault.
    pub(super) fn note_failed_job(&self) {
        self.trouble.send_modify(|trouble| *trouble = trouble.saturating_add(1));
    }

    /// Why it cannot be used, if its probe has said so.
    pub(super) fn unusable(&self) -> Option<String> {
        match &*self.probe.borrow() {
            Probe::Unusable(reason) => Some(reason.clone()),
            Probe::Pending | Probe::Usable(_) => None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.found.manifest.name
    }

    /// What speaks against the plugin without running it.
    fn static_problem(&self, hardware: &Hardware) -> Option<String> {
        let library = &self.options.library;
        cannot_run(&self.found.manifest, hardware)
            .or_else(|| (!library.is_file()).then(|| format!("its library {} is missing", library.display())))
    }

    /// Marks the version as unusable when it is for another machine, without running it. Returns whether it is.
    pub(super) fn refuse_unfit(&self, hardware: &Hardware) -> bool {
        let Some(reason) = self.static_problem(hardware) else { return false };
        self.probe.send_replace(Probe::Unusable(reason));
        true
    }

    /// Forgets the crashes. Returns whether the plugin was in quarantine.
    pub(super) fn reset(&self) -> bool {
        self.crashes.lock().reset()
    }

    /// Marks the version as one that the operator does not want.
    pub(super) fn disable(&self) {
        self.probe.send_replace(Probe::Unusable(DISABLED.to_owned()));
    }

    /// Probes the plugin unless it is for another machine, or what its probe shows is known.
    pub(super) async fn probe(&self, hardware: &Hardware, cache_dir: &Path, timeout: Duration) {
        if self.refuse_unfit(hardware) {
            return;
        }
        let entry = probe_cache::Entry::new(cache_dir, self.name(), &self.options.library, hardware);
        if let Some(report) = entry.as_ref().and_then(probe_cache::Entry::read) {
            tracing::debug!(
                plugin = self.name(),
                engine = report.engine,
                "plugin usable, as its last probe showed"
            );
            self.probe.send_replace(Probe::Usable(report));
            return;
        }
        self.run_probe(timeout).await;
        if let (Some(entry), Probe::Usable(report)) = (entry, &*self.probe.borrow()) {
            entry.write(report);
        }
    }

    /// Whether it needs no accelerator.
    pub(super) fn computes_on_cpu(&self) -> bool {
        self.found.manifest.accel.as_ref().is_none_or(|needs| needs.api == Accel::Cpu)
    }

    /// Probes the plugin, whatever is known.
    pub(super) async fn run_probe(&self, timeout: Duration) {
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
        let (crashes, trouble) = (Arc::clone(&self.crashes), Arc::clone(&self.trouble));
        let on_end = OnEnd::new(move |failure| note_crash(&crashes, &trouble, failure));
        let worker = Arc::new(Worker::start(WorkerOptions { on_end, ..self.options.clone() }).await?);
        self.log_start(&worker);
        *slot = Arc::downgrade(&worker);
        Ok(worker)
    }

    pub(super) fn status(&self) -> PluginStatus {
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
