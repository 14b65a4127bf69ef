//! A model's networks: loaded when it is loaded, as descriptions of files when it is only looked at.

use std::path::Path;
use std::sync::Arc;

use pajamas_pipelines::{
    BatchCounts, BatchLimits, Batcher, HeaderRunner, NetworkFiles, Networks, TensorRunner,
};
use pajamas_plugin_api::{Error, ErrorKind, Progress};
use parking_lot::Mutex;

use crate::library::Library;
use crate::network::ExecuTorchNetwork;
use crate::options::Options;
use crate::program::Program;
use crate::signature::Signature;

/// What ExecuTorch's programs are called.
const FILES: NetworkFiles = NetworkFiles { extensions: &["pte"], folder: "executorch" };

/// Opens programs as networks.
pub(crate) struct Loader<'a> {
    library: &'static Library,
    options: &'a Options,
    progress: &'a Progress,
    counts: Arc<BatchCounts>,
    opened: Mutex<Vec<Program>>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(library: &'static Library, options: &'a Options, progress: &'a Progress) -> Self {
        Self { library, options, progress, counts: Arc::default(), opened: Mutex::default() }
    }

    /// What the networks count, and the programs that were opened.
    pub(crate) fn into_parts(self) -> (Arc<BatchCounts>, Vec<Program>) {
        (self.counts, self.opened.into_inner())
    }
}

impl Networks for Loader<'_> {
    type Runner = Batcher<ExecuTorchNetwork>;

    fn files(&self) -> NetworkFiles {
        FILES
    }

    fn open(&self, file: &Path) -> Result<Self::Runner, Error> {
        // Damage is found here with a better reason than the engine has.
        let program = Program::open(file)?;
        let cancelled = || Error::new(ErrorKind::Cancelled, "the load was cancelled");
        if self.progress.is_cancelled() {
            return Err(cancelled());
        }
        // How many networks there are only the pipeline knows: each takes half of what is left.
        let opened = i32::try_from(self.opened.lock().len()).unwrap_or(i32::MAX);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        self.progress.report(1.0 - 0.5_f32.powi(opened), &format!("loading {name}"));
        let network = ExecuTorchNetwork::open(self.library, &program, self.options)?;
        // The engine cannot be interrupted, so that this is looked at when it is done.
        if self.progress.is_cancelled() {
            return Err(cancelled());
        }
        self.opened.lock().push(program);
        // Batch, channels, height and width.
        let takes_pictures = network.inputs().iter().any(|input| input.shape.len() == 4);
        let rows_max = self.options.batch_max(takes_pictures).min(network.rows_max().unwrap_or(1));
        let limits = BatchLimits { rows_max, delay: self.options.batch_delay() };
        let streams = usize::try_from(self.options.streams).unwrap_or(1);
        Ok(Batcher::new(network, limits, Arc::clone(&self.counts)).runs_at_once(streams))
    }
}

/// Opens programs as descriptions: enough for a pipeline to say what the model is, without the engine.
pub(crate) struct Descriptions<'a> {
    options: &'a Options,
    opened: Mutex<Vec<Program>>,
}

impl<'a> Descriptions<'a> {
    pub(crate) fn new(options: &'a Options) -> Self {
        Self { options, opened: Mutex::default() }
    }

    /// The programs that were opened.
    pub(crate) fn into_opened(self) -> Vec<Program> {
        self.opened.into_inner()
    }
}

impl Networks for Descriptions<'_> {
    type Runner = HeaderRunner;

    fn files(&self) -> NetworkFiles {
        FILES
    }

    fn open(&self, file: &Path) -> Result<HeaderRunner, Error> {
        let program = Program::open(file)?;
        let header = Signature::of(&program, self.options)?.header(program.metadata());
        self.opened.lock().push(program);
        Ok(HeaderRunner::new(header))
    }
}
