//! What a plugin implements. This is all of it: a [`Backend`] loads models, a [`Model`] takes jobs.

use std::path::Path;

use crate::device::ProbeReport;
use crate::error::Error;
use crate::job::{Job, Progress};
use crate::model_info::{LoadSpec, ModelInfo, ModelStats};
use crate::task::Request;

/// One runtime. Created once in a process; all methods may be called from any thread, also at the same time.
/// A panic in any of them becomes an error of the call.
pub trait Backend: Sized + Send + Sync + 'static {
    /// What [`Backend::load`] returns.
    type Model: Model;

    /// Creates the backend. `plugin_dir` is the folder that holds `plugin.toml`.
    ///
    /// # Errors
    /// The runtime cannot work in this process; the message reaches the user.
    fn init(plugin_dir: &Path) -> Result<Self, Error>;

    /// Looks at the devices. Loads no model, takes less than 10 s.
    ///
    /// # Errors
    /// The runtime cannot be used on this machine.
    fn probe(&self) -> Result<ProbeReport, Error>;

    /// Reads a model's metadata without loading it.
    ///
    /// # Errors
    /// The file is missing, corrupt or of another kind.
    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error>;

    /// Loads a model; blocks, reports progress, and gives up when [`Progress::is_cancelled`].
    ///
    /// # Errors
    /// The file is unusable, an option is wrong, or memory does not suffice.
    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<Self::Model, Error>;
}

/// A loaded model. Methods may be called from any thread, also at the same time. Dropped after its last job ended.
pub trait Model: Send + Sync + 'static {
    /// Metadata as loaded, with what the options changed.
    fn info(&self) -> ModelInfo;

    /// Starts a job and returns at once; `job` moves to wherever the work is done. Every job, a refused one too,
    /// ends with [`Job::done`] or [`Job::fail`]; dropping it unfinished is reported as a failure.
    fn submit(&self, request: Request, job: Job);

    /// Measured memory and occupancy.
    fn stats(&self) -> ModelStats;
}
