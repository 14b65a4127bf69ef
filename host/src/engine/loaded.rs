//! A loaded model.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pajamas_plugin_api::{ErrorKind, ModelInfo, ModelStats, Request, Task};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::admission::Caller;
use super::budget::DeviceBytes;
use super::error::EngineError;
use super::job::JobEvent;
use super::lifecycle::ModelEntry;
use super::recovery::JobStream;
use super::version::PluginVersion;
use super::{Shared, lifecycle, recovery, shadow};
use crate::plugins::ModelHandle;

/// A model in a worker; dropping the last reference unloads it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) id: String,
    pub(super) version: Arc<PluginVersion>,
    /// What it takes of each device's memory, where the plugin measures.
    pub(super) bytes: Option<DeviceBytes>,
    /// Jobs that it can do at once; 0 where the plugin does not tell.
    pub(super) slots: usize,
    /// One token per job that runs here.
    pub(super) jobs: TaskTracker,
    pub(super) info: Arc<ModelInfo>,
    pub(super) handle: ModelHandle,
    pub(super) extensions: Extensions,
    /// It has delivered a token to somebody.
    pub(super) is_useful: AtomicBool,
    /// Dropped with the model: tells who waits for its end.
    pub(super) gone: watch::Sender<()>,
}

/// One value per type, made on first use.
#[derive(Default)]
pub(super) struct Extensions(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl std::fmt::Debug for Extensions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Extensions").field(&self.0.lock().len()).finish()
    }
}

impl Loaded {
    /// Takes notice of an event of one of its jobs.
    pub(super) fn note(&self, event: &JobEvent) {
        match event {
            JobEvent::Token { .. } => self.is_useful.store(true, Ordering::Relaxed),
            JobEvent::Failed(error)
                if matches!(
                    error.kind(),
                    Some(ErrorKind::Internal | ErrorKind::Panic | ErrorKind::Device | ErrorKind::BadModel)
                ) =>
            {
                self.version.note_failed_job();
            }
            _ => {}
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.handle.worker().is_alive()
    }
}

/// A loaded model, ready for jobs. Keeps the model in memory while it lives.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    loaded: Arc<Loaded>,
    entry: Arc<ModelEntry>,
    shared: Arc<Shared>,
    /// Who gets copies of its requests.
    shadows: Vec<Arc<ModelEntry>>,
}

impl LoadedModel {
    pub(super) fn new(loaded: Arc<Loaded>, entry: Arc<ModelEntry>, shared: Arc<Shared>) -> Self {
        Self { loaded, entry, shared, shadows: Vec::new() }
    }

    /// The same model, whose requests these get too.
    pub(super) fn with_shadows(self, shadows: Vec<Arc<ModelEntry>>) -> Self {
        Self { shadows, ..self }
    }

    /// The model's public name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.loaded.id
    }

    /// Name of the plugin that serves it.
    #[must_use]
    pub fn plugin(&self) -> &str {
        self.loaded.version.name()
    }

    /// Version of the plugin that serves it.
    #[must_use]
    pub fn plugin_version(&self) -> String {
        self.loaded.version.number()
    }

    /// Metadata as loaded.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.loaded.info
    }

    /// Whether the model can do this.
    #[must_use]
    pub fn supports(&self, task: &Task) -> bool {
        self.loaded.info.tasks.contains(task)
    }

    /// Like [`LoadedModel::supports`], with an error that says what the model can do.
    ///
    /// # Errors
    /// The model does not offer the task.
    pub fn require(&self, task: &Task) -> Result<(), EngineError> {
        if self.supports(task) {
            return Ok(());
        }
        let supported: Vec<&str> = self.loaded.info.tasks.iter().map(Task::name).collect();
        Err(EngineError::UnsupportedTask {
            model: self.loaded.id.clone(),
            task: task.clone(),
            supported: supported.join(", "),
        })
    }

    /// Starts a job, or queues it when all slots are busy; callers take turns. Never waits; the job's own errors arrive
    /// in the stream. When the worker ends, the job goes on in the next one, see [`JobStream`].
    ///
    /// # Errors
    /// The host is shutting down, too many requests wait, the request has ended its worker before, or it is too large.
    pub fn submit(&self, request: Request, caller: Caller<'_>) -> Result<JobStream, EngineError> {
        if self.shared.closing.load(Ordering::Acquire) {
            return Err(EngineError::ShuttingDown);
        }
        let copy = (!self.shadows.is_empty()).then(|| request.clone());
        let job = recovery::start(&self.shared, &self.entry, &self.loaded, request, caller)?;
        if let Some(copy) = copy {
            shadow::send(&self.shared, &self.shadows, &copy);
        }
        Ok(job)
    }

    /// Measured memory and occupancy; `None` when the plugin does not measure.
    ///
    /// # Errors
    /// The worker has ended or the plugin failed.
    pub async fn stats(&self) -> Result<Option<ModelStats>, EngineError> {
        let timeout = self.shared.probe_timeout;
        self.loaded.handle.stats(timeout).await.map_err(lifecycle::call_error)
    }

    /// A value that lives with the loaded model, such as its compiled chat template; made by the first caller.
    pub fn extension<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut values = self.loaded.extensions.0.lock();
        if let Some(value) = values.get(&TypeId::of::<T>()).cloned().and_then(|v| v.downcast().ok()) {
            return value;
        }
        let value = Arc::new(make());
        values.insert(TypeId::of::<T>(), Arc::<T>::clone(&value));
        value
    }
}
