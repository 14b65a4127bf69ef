//! What can go wrong between a request and its answer, in the words of the person who sent it.

use std::sync::Arc;

use pajamas_plugin_api::{Error as PluginError, ErrorKind, Task};

use super::budget::CPU;
use super::recovery::CRASHES_MAX;

/// Why a request could not be served. Cloneable, because all that wait for one load get the same failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// No model of this name or alias.
    #[error("the model \"{name}\" does not exist: GET /v1/models lists what is there")]
    UnknownModel {
        /// The name as asked for.
        name: String,
    },
    /// The model cannot do what was asked.
    #[error("the model \"{model}\" does not support the task \"{task}\"; it supports: {supported}")]
    UnsupportedTask {
        /// The model.
        model: String,
        /// What was asked.
        task: Task,
        /// What it can do, comma-separated.
        supported: String,
    },
    /// No installed plugin can serve the model; the reasons name each plugin.
    #[error("no installed plugin can serve the model \"{model}\": {reasons}")]
    NoPlugin {
        /// The model.
        model: String,
        /// Why not, plugin by plugin.
        reasons: String,
    },
    /// Loading failed.
    #[error("the model \"{model}\" could not be loaded by plugin {plugin}: {error}")]
    Load {
        /// The model.
        model: String,
        /// The plugin.
        plugin: String,
        /// The plugin's error.
        error: PluginError,
    },
    /// The plugin answered with an error.
    #[error("{0}")]
    Plugin(PluginError),
    /// The worker process died or was killed, and the request could not be continued in another one.
    #[error("{0}")]
    Worker(Arc<WorkerFailure>),
    /// The request ended the worker each time that it was tried.
    #[error(
        "this request is refused, because it ended the plugin's process {CRASHES_MAX} times; the last time, {0}"
    )]
    Poison(Arc<WorkerFailure>),
    /// The model does not fit beside those that are in use.
    #[error(
        "the model \"{model}\" needs about {needed_bytes} bytes of {device}, and the models that are in use or pinned leave less of \
         the {limit_bytes} that models may take: try again later, or raise memory.{}", if .device == CPU { "budget_bytes" } else { "device_budget_bytes" }
    )]
    OutOfMemory {
        /// The model.
        model: String,
        /// The device whose memory does not suffice; `cpu` for the machine's own.
        device: String,
        /// What it needs.
        needed_bytes: u64,
        /// What all models may take.
        limit_bytes: u64,
    },
    /// The last load failed a moment ago.
    #[error(
        "the model \"{model}\" could not be loaded a moment ago, and is not tried again for {retry_after_s} s: {reason}"
    )]
    CoolingDown {
        /// The model.
        model: String,
        /// Why it could not be loaded.
        reason: String,
        /// When it is tried again.
        retry_after_s: u64,
    },
    /// So many requests wait for the model that another one would wait too long.
    #[error("{waiting} requests wait for the model \"{model}\" already: try again later")]
    QueueFull {
        /// The model.
        model: String,
        /// How many wait.
        waiting: usize,
    },
    /// The plugin crashed too often.
    #[error("plugin {plugin} is quarantined, {reason}: POST /admin/plugins/{plugin}/reset lifts it")]
    Quarantined {
        /// The plugin.
        plugin: String,
        /// How it crashed.
        reason: String,
    },
    /// The host is shutting down.
    #[error("the server is shutting down: try another one or try again later")]
    ShuttingDown,
}

impl EngineError {
    /// The plugin's kind of error, where there is one.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Load { error, .. } | Self::Plugin(error) => Some(error.kind()),
            _ => None,
        }
    }

    /// Whether the same request may succeed when sent again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Worker(_) => true,
            Self::Load { error, .. } | Self::Plugin(error) => {
                matches!(error.kind(), ErrorKind::Overloaded | ErrorKind::Deadline | ErrorKind::OutOfMemory)
            }
            Self::ShuttingDown
            | Self::CoolingDown { .. }
            | Self::QueueFull { .. }
            | Self::OutOfMemory { .. } => true,
            _ => false,
        }
    }
}

/// How a worker ended, with its last words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the worker of plugin {plugin} {what}{}", LastLines(.last_lines))]
pub struct WorkerFailure {
    /// The plugin.
    pub plugin: String,
    /// What happened, such as `was killed by SIGSEGV (invalid memory access)`.
    pub what: String,
    /// The last lines that it wrote to its output.
    pub last_lines: Vec<String>,
    /// Whose doing it was.
    pub cause: FailureCause,
}

/// Whose doing the end of a worker was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The plugin's: it crashed, exited, or hung and was stopped.
    Plugin,
    /// Somebody else's: killed from outside, by a person or because the machine ran out of memory.
    Outside,
    /// The host's: the worker was not needed any more, or another one takes its place.
    Host,
}

struct LastLines<'a>(&'a [String]);

impl std::fmt::Display for LastLines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; its last output: {}", self.0.join(" | "))
    }
}
