//! What a pipeline is to the plugin that contains it.

use std::path::Path;

use pajamas_plugin_api::{Error, Finish, Job, ModelInfo, Request, Usage};

use crate::runner::TensorRunner;

/// How a pipeline gets the networks of its model: most have one, Whisper has two or three.
pub trait Networks {
    /// A network that is ready to run.
    type Runner: TensorRunner;

    /// Opens one file.
    ///
    /// # Errors
    /// The file is missing, corrupt or of an unknown kind, or memory does not suffice.
    fn open(&self, file: &Path) -> Result<Self::Runner, Error>;
}

/// A loaded model of one kind. Any thread may call any method, also at the same time.
pub trait Pipeline: Send + Sync + 'static {
    /// Adds what the pipeline knows to what the engine says: architecture, tasks, labels, lengths.
    fn describe(&self, info: &mut ModelInfo);

    /// Does one request on the calling thread: pushes its events, but not the terminal one. Looks at
    /// [`Job::is_cancelled`] between runs and then ends early with [`Finish::Cancelled`].
    ///
    /// # Errors
    /// The request is not valid, or the engine failed.
    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error>;
}
