//! The host's side of a worker: starts the process, speaks the protocol, hands events to jobs, and when the worker
//! ends, tells everyone who waits for it why.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use pajamas_plugin_api::native::Handshake;
use pajamas_plugin_api::{Error, LoadSpec, ModelInfo, ProbeReport, level_to_abi};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use super::confine::Confinement;
use super::protocol::{CallId, FromWorker, Hello, JobId, ToWorker, build_id};
use super::transport::{Outbox, SendError};
use super::wire::{Attachments, encode};
use super::worker::Host;
use crate::engine::{FailureCause, WorkerFailure};

mod handle;
mod jobs;
mod process;

pub use handle::ModelHandle;
use jobs::JobTable;
pub use jobs::{JobQueue, JobReceiver};

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The plugin's name.
    pub plugin: String,
    /// Folder with `plugin.toml`.
    pub plugin_dir: PathBuf,
    /// The library to load.
    pub library: PathBuf,
    /// Variables that the process gets where this one has none of that name.
    pub environment: BTreeMap<String, String>,
    /// The executable to run: this host itself.
    pub executable: PathBuf,
    /// What the process may touch.
    pub confinement: Confinement,
    /// Run inside this process, for debuggers.
    pub in_process: bool,
    /// Highest log level to pass on.
    pub log_level: tracing::Level,
    /// Limit for start, handshake and `init`.
    pub start_timeout: Duration,
    /// How long a job's events may wait for their reader before the job is cancelled.
    pub stall_timeout: Duration,
    /// How long a worker that has jobs may send no event of any of them before it is stopped.
    pub hang_timeout: Duration,
    /// Told when the worker has ended, before anybody who waits for it.
    pub on_end: OnEnd,
}

/// What is called when a worker has ended.
#[derive(Clone, Default)]
pub struct OnEnd(Option<Arc<Observer>>);

type Observer = dyn Fn(&Arc<WorkerFailure>) + Send + Sync;

impl OnEnd {
    /// Calls `observer`, on a task of the runtime: it must not block.
    pub fn new(observer: impl Fn(&Arc<WorkerFailure>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observer)))
    }

    fn tell(&self, failure: &Arc<WorkerFailure>) {
        if let Some(observer) = &self.0 {
            observer(failure);
        }
    }
}

impl std::fmt::Debug for OnEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnEnd").field(&self.0.is_some()).finish()
    }
}

/// Why a worker did not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// The system refuses.
    #[error("cannot start a worker for plugin {plugin}: {reason}")]
    Spawn {
        /// The plugin.
        plugin: String,
        /// The system's reason.
        reason: String,
    },
    /// The handshake or `init` failed.
    #[error("plugin {plugin} cannot be used: {reason}")]
    Refused {
        /// The plugin.
        plugin: String,
        /// The reason.
        reason: String,
    },
    /// It took too long.
    #[error("plugin {plugin} did not start within {timeout_ms} ms and was stopped")]
    Timeout {
        /// The plugin.
        plugin: String,
        /// The limit.
        timeout_ms: u128,
    },
    /// The process died.
    #[error("{0}")]
    Died(Arc<WorkerFailure>),
    /// It has crashed too often to be started again.
    #[error("plugin {plugin} is quarantined, {reason}")]
    Quarantined {
        /// The plugin.
        plugin: String,
        /// How it crashed.
        reason: String,
    },
}

/// Why a call to a worker failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The plugin's answer.
    #[error("{0}")]
    Plugin(Error),
    /// The worker ended, or was stopped because the call took too long.
    #[error("{0}")]
    Worker(Arc<WorkerFailure>),
}

/// Why a worker ends whose last handle is dropped.
const NOT_NEEDED: &str = "was stopped, because it was not needed any more";

type Answer = Result<String, CallError>;

/// A running worker. Dropping the last handle ends the process.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    handshake: Handshake,
    confined: String,
}

/// What the worker's tasks and handles share.
#[derive(Debug)]
struct Shared {
    plugin: String,
    stall_timeout: Duration,
    hang_timeout: Duration,
    socket: tokio::net::UnixStream,
    outbox: Outbox,
    flush: Notify,
    calls: Mutex<HashMap<CallId, oneshot::Sender<Answer>>>,
    jobs: JobTable,
    next_call: AtomicU32,
    next_job: AtomicU64,
    next_model: AtomicU32,
    /// Models that are being unloaded.
    unloading: watch::Sender<usize>,
    /// The process; none when the worker runs in this one.
    pid: OnceLock<u32>,
    /// Set once, when the worker has ended.
    ended: watch::Sender<Option<Arc<WorkerFailure>>>,
    /// Why the host itself stops the worker; goes into the failure.
    stop: Mutex<Option<Stop>>,
    stop_requested: Notify,
}

/// Why the host stops a worker.
#[derive(Clone, Debug)]
struct Stop {
    what: String,
    cause: FailureCause,
}

impl Worker {
    /// Starts a worker, waits for its handshake and its `init`.
    ///
    /// # Errors
    /// See [`StartError`]. The process is gone when this returns an error.
    ///
    /// # Cancellation
    /// Dropping the future ends the process.
    pub async fn start(options: WorkerOptions) -> Result<Self, StartError> {
        let plugin = options.plugin.clone();
        let spawn =
            |reason: std::io::Error| StartError::Spawn { plugin: plugin.clone(), reason: reason.to_string() };
        let id = build_id(&options.executable).map_err(spawn)?;
        let (ours, theirs) = UnixStream::pair().map_err(spawn)?;
        ours.set_nonblocking(true).map_err(spawn)?;
        let (hello_sender, hello) = oneshot::channel();
        let shared = Arc::new(Shared {
            plugin: plugin.clone(),
            stall_timeout: options.stall_timeout,
            hang_timeout: options.hang_timeout,
            socket: tokio::net::UnixStream::from_std(ours).map_err(spawn)?,
            outbox: Outbox::default(),
            flush: Notify::new(),
            calls: Mutex::default(),
            jobs: JobTable::default(),
            next_call: AtomicU32::new(1),
            next_job: AtomicU64::new(1),
            next_model: AtomicU32::new(1),
            unloading: watch::channel(0).0,
            pid: OnceLock::new(),
            ended: watch::channel(None).0,
            stop: Mutex::new(None),
            stop_requested: Notify::new(),
        });
        process::run(&shared, &options, theirs.into(), hello_sender).map_err(spawn)?;
        let mut guard = StopOnDrop(Some(Arc::clone(&shared)));
        let sent = shared.send(&ToWorker::Hello(Hello {
            build_id: id,
            plugin: plugin.clone(),
            plugin_dir: options.plugin_dir,
            library: options.library,
            confinement: (!options.in_process).then_some(options.confinement),
            log_level: level_to_abi(options.log_level),
        }));
        if sent.is_err() {
            return Err(StartError::Died(shared.failure().await));
        }
        match tokio::time::timeout(options.start_timeout, hello).await {
            Err(_) => {
                let timeout_ms = options.start_timeout.as_millis();
                shared.blame(format!("did not start within {timeout_ms} ms and was stopped"));
                Err(StartError::Timeout { plugin, timeout_ms })
            }
            Ok(Err(_)) => Err(StartError::Died(shared.failure().await)),
            Ok(Ok((Err(reason), _))) => Err(StartError::Refused { plugin, reason }),
            Ok(Ok((Ok(handshake), confined))) => {
                guard.0 = None;
                Ok(Self { shared, handshake, confined })
            }
        }
    }

    /// What the plugin said of itself.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// Waits until every model that is being unloaded is freed, but no longer than `timeout`.
    pub async fn unloaded(&self, timeout: Duration) {
        let mut unloading = self.shared.unloading.subscribe();
        let freed = unloading.wait_for(|count| *count == 0);
        // Whoever asks next sees how much it was.
        let _ = tokio::time::timeout(timeout, freed).await;
    }

    /// Bytes of memory that the process has resident; `None` where the system does not say, or after its end.
    #[must_use]
    pub fn resident_bytes(&self) -> Option<u64> {
        self.shared.pid.get().copied().and_then(process::resident_bytes)
    }

    /// How the process is confined, for the log.
    #[must_use]
    pub fn confined(&self) -> &str {
        &self.confined
    }

    /// Whether the process has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shared.ended.borrow().is_none()
    }

    /// Waits until the process has ended and says why. The future does not keep the worker alive.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub fn ended(&self) -> impl Future<Output = Arc<WorkerFailure>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.failure().await }
    }

    /// Ends the process now. Jobs that it holds go on in another worker where they can.
    pub fn retire(&self, why: &str) {
        self.shared.stop_because(why.to_owned(), FailureCause::Host);
    }

    /// Looks at the devices; `None` when the plugin has no probe.
    ///
    /// # Errors
    /// See [`CallError`]. A probe beyond `timeout` ends the worker.
    pub async fn probe(&self, timeout: Duration) -> Result<Option<ProbeReport>, CallError> {
        self.call("probe", timeout, |call| ToWorker::Probe { call }).await
    }

    /// Reads a model's metadata; `None` when the plugin cannot.
    ///
    /// # Errors
    /// See [`CallError`]. An inspection beyond `timeout` ends the worker.
    pub async fn inspect(&self, path: &Path, timeout: Duration) -> Result<Option<ModelInfo>, CallError> {
        let path = path.to_owned();
        self.call("inspect", timeout, |call| ToWorker::Inspect { call, path }).await
    }

    /// Loads a model.
    ///
    /// # Errors
    /// See [`CallError`]. A load beyond `timeout` ends the worker.
    pub async fn load(
        self: &Arc<Self>,
        spec: &LoadSpec,
        timeout: Duration,
    ) -> Result<ModelHandle, CallError> {
        let spec_json = serde_json::to_string(spec)
            .map_err(|e| CallError::Plugin(Error::internal(format!("load specification: {e}"))))?;
        let model = self.shared.next_model.fetch_add(1, Ordering::Relaxed);
        let info: ModelInfo =
            self.call("load", timeout, |call| ToWorker::Load { call, model, spec_json }).await?;
        Ok(ModelHandle { worker: Arc::clone(self), model, info: Arc::new(info) })
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        timeout: Duration,
        message: impl FnOnce(CallId) -> ToWorker,
    ) -> Result<T, CallError> {
        let shared = &self.shared;
        let call = shared.next_call.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        shared.calls.lock().insert(call, sender);
        // The process may have ended before the entry was there.
        let sent = shared.send(&message(call));
        if sent.is_err() || !self.is_alive() {
            shared.calls.lock().remove(&call);
            return Err(CallError::Worker(shared.failure().await));
        }
        let json = match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(CallError::Worker(shared.failure().await)),
            Err(_) => {
                shared.blame(format!(
                    "did not return from {name} within {} ms and was stopped",
                    timeout.as_millis()
                ));
                return Err(CallError::Worker(shared.failure().await));
            }
        };
        serde_json::from_str(&json)
            .map_err(|e| CallError::Plugin(Error::internal(format!("the answer of {name} is damaged: {e}"))))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stop_because(NOT_NEEDED.to_owned(), FailureCause::Host);
    }
}

/// Ends a worker whose start is abandoned.
struct StopOnDrop(Option<Arc<Shared>>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.stop_because("was stopped during its start".to_owned(), FailureCause::Host);
        }
    }
}

impl Shared {
    fn send(&self, message: &ToWorker) -> Result<(), SendError> {
        self.send_with(message, Attachments::default())
    }

    fn send_with(&self, message: &ToWorker, attachments: Attachments) -> Result<(), SendError> {
        let frame = encode(message, attachments).map_err(|_| SendError::Full)?;
        if self.outbox.send(self.socket.as_fd(), frame)? {
            self.flush.notify_one();
        }
        Ok(())
    }

    /// Ends the worker; the first reason wins.
    fn stop_because(&self, what: String, cause: FailureCause) {
        self.stop.lock().get_or_insert(Stop { what, cause });
        self.stop_requested.notify_one();
    }

    /// Ends the worker for what the plugin did.
    fn blame(&self, what: String) {
        self.stop_because(what, FailureCause::Plugin);
    }

    async fn failure(&self) -> Arc<WorkerFailure> {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone(),
            Err(_) => None,
        }
        .unwrap_or_else(|| self.unexplained())
    }

    /// What is said of an end whose reason is not known yet.
    fn unexplained(&self) -> Arc<WorkerFailure> {
        let (plugin, what) = (self.plugin.clone(), "has ended".to_owned());
        Arc::new(WorkerFailure { plugin, what, last_lines: Vec::new(), cause: FailureCause::Outside })
    }

    /// A frame from the worker.
    fn dispatch(&self, message: FromWorker, mut attachments: super::wire::Received) {
        match message {
            FromWorker::Hello { .. } => {}
            FromWorker::Answer { call, outcome } => {
                if let Some(waiting) = self.calls.lock().remove(&call) {
                    // Nobody waits any more: the caller gave up.
                    let _ = waiting.send(outcome.map_err(CallError::Plugin));
                }
            }
            FromWorker::Unloaded => self.unloading.send_modify(|count| *count = count.saturating_sub(1)),
            FromWorker::Progress { fraction, text, .. } => {
                tracing::info!(plugin = self.plugin, percent = (fraction * 100.0).round(), "{text}");
            }
            FromWorker::SubmitHangs { ms } => {
                self.blame(format!("did not return from submit within {ms} ms and was stopped"));
            }
            FromWorker::Event { job, event } => {
                if self.jobs.deliver(job, event, &mut attachments) == jobs::Delivery::CancelIt {
                    let _ = self.send(&ToWorker::Cancel { job });
                }
            }
            FromWorker::Log { level, target, message, fields_json } => {
                process::log(&self.plugin, level, &target, &message, &fields_json);
            }
        }
    }
}

/// What a job's receiver needs of its worker.
trait JobOwner {
    fn cancel(&self, job: JobId);
}

impl JobOwner for Weak<Shared> {
    fn cancel(&self, job: JobId) {
        if let Some(shared) = self.upgrade()
            && shared.jobs.give_up(job)
        {
            let _ = shared.send(&ToWorker::Cancel { job });
        }
    }
}

/// Where a worker runs, for the tasks in `process`.
fn place(options: &WorkerOptions) -> Host {
    if options.in_process { Host::SameProcess } else { Host::OtherProcess }
}
