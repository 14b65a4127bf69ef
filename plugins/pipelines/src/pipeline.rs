//! What a pipeline is to the plugin that contains it.

use std::path::Path;

use pajamas_plugin_api::{Error, Finish, Job, ModelInfo, Request, Usage};

use crate::runner::TensorRunner;

/// What networks look like on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkFiles {
    /// What their names end with, the preferred one first. A folder whose name ends so is a network too.
    pub extensions: &'static [&'static str],
    /// The subfolder in which they may lie, beside the JSON files of their model.
    pub folder: &'static str,
}

impl NetworkFiles {
    /// Of ONNX.
    pub const ONNX: Self = Self { extensions: &["onnx"], folder: "onnx" };

    /// Whether `path` is named as a network.
    #[must_use]
    pub fn fits(&self, path: &Path) -> bool {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|own| self.extensions.iter().any(|known| own.eq_ignore_ascii_case(known)))
    }

    /// Whether `path` is a folder of files that belong together, and not a network that is a folder itself.
    pub(crate) fn is_folder(&self, path: &Path) -> bool {
        path.is_dir() && !self.fits(path)
    }
}

/// How a pipeline gets the networks of its model: most have one, Whisper has two or three.
pub trait Networks {
    /// A network that is ready to run.
    type Runner: TensorRunner;

    /// Which files of a folder are networks.
    fn files(&self) -> NetworkFiles {
        NetworkFiles::ONNX
    }

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
