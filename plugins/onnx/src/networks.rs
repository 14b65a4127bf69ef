//! A model's networks: as sessions when it is loaded, as headers of files when it is only looked at.

use std::path::Path;
use std::sync::Arc;

use pajamas_pipelines::onnx_file::OnnxFile;
use pajamas_pipelines::{BatchCounts, BatchLimits, Batcher, HeaderRunner, Networks};
use pajamas_plugin_api::{Error, ErrorKind, Progress};
use parking_lot::Mutex;

use crate::library::Library;
use crate::options::Options;
use crate::session::OnnxSession;

/// Opens files as sessions.
pub(crate) struct Sessions<'a> {
    library: &'a Library,
    options: &'a Options,
    progress: &'a Progress,
    counts: Arc<BatchCounts>,
    opened: Mutex<Vec<OnnxFile>>,
}

impl<'a> Sessions<'a> {
    pub(crate) fn new(library: &'a Library, options: &'a Options, progress: &'a Progress) -> Self {
        Self { library, options, progress, counts: Arc::default(), opened: Mutex::default() }
    }

    /// What the sessions count, and the headers of the files that were opened.
    pub(crate) fn into_parts(self) -> (Arc<BatchCounts>, Vec<OnnxFile>) {
        (self.counts, self.opened.into_inner())
    }
}

impl Networks for Sessions<'_> {
    type Runner = Batcher<OnnxSession>;

    fn open(&self, file: &Path) -> Result<Self::Runner, Error> {
        // Damage is found here with a better reason than the engine has.
        let header = OnnxFile::open(file)?;
        let is_cancelled = || self.progress.is_cancelled();
        let cancelled = || Error::new(ErrorKind::Cancelled, "the load was cancelled");
        if is_cancelled() {
            return Err(cancelled());
        }
        // How many networks there are only the pipeline knows: each takes half of what is left.
        let opened = i32::try_from(self.opened.lock().len()).unwrap_or(i32::MAX);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        self.progress.report(1.0 - 0.5_f32.powi(opened), &format!("loading {name}"));
        let session = OnnxSession::open(self.library, file, self.options, is_cancelled)
            .map_err(|error| if is_cancelled() { cancelled() } else { error })?;
        // Batch, channels, height and width.
        let takes_pictures = header.inputs.iter().any(|input| input.shape.len() == 4);
        let rows_max = if header.has_dynamic_ranges { 1 } else { self.options.batch_max(takes_pictures) };
        self.opened.lock().push(header);
        let limits = BatchLimits { rows_max, delay: self.options.batch_delay() };
        Ok(Batcher::new(session, limits, Arc::clone(&self.counts)))
    }
}

/// Opens files as headers: enough for a pipeline to say what the model is, without the engine.
#[derive(Default)]
pub(crate) struct Headers {
    opened: Mutex<Vec<OnnxFile>>,
}

impl Headers {
    /// The headers of the files that were opened.
    pub(crate) fn into_opened(self) -> Vec<OnnxFile> {
        self.opened.into_inner()
    }
}

impl Networks for Headers {
    type Runner = HeaderRunner;

    fn open(&self, file: &Path) -> Result<HeaderRunner, Error> {
        let file = OnnxFile::open(file)?;
        let header = file.header();
        self.opened.lock().push(file);
        Ok(HeaderRunner::new(header))
    }
}
