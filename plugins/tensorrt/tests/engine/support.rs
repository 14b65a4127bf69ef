//! What the tests share: the library, networks in temporary folders, progress that is written down.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pajamas_pipelines::onnx_file::OnnxFile;
use pajamas_plugin_api::{Event, EventSink, Flow, Progress};
use pajamas_tensorrt::options::Options;
use pajamas_tensorrt::{BuildRequest, Library, choose_ranges};

use crate::onnx_writer::{bytes, int};

pub(crate) fn plugin_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library in the folder that `PAJAMAS_TEST_TENSORRT` names, or in the plugin's own; or `None`, said aloud, where it is
/// not there.
pub(crate) fn library() -> Option<&'static Library> {
    let folder =
        std::env::var_os("PAJAMAS_TEST_TENSORRT").map_or_else(|| plugin_dir().to_owned(), PathBuf::from);
    match Library::load(&folder) {
        Ok(library) => Some(library),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// A request for an engine for all GPUs, with the usual dimensions.
pub(crate) fn request<'a>(file: &'a Path, options: &Options) -> BuildRequest<'a> {
    let header = OnnxFile::open(file).unwrap();
    let ranges = choose_ranges(&header.inputs, &header.metadata, options).unwrap();
    BuildRequest {
        file,
        weight_files: header.weight_files,
        ranges,
        compute: None,
        optimization_level: None,
        workspace_max_mb: None,
    }
}

/// Progress that is written down, and cancelled after so many reports.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) reports: Mutex<Vec<(f32, String)>>,
    pub(crate) cancel_after: Option<usize>,
}

impl EventSink for Written {
    fn push(&self, event: &Event<'_>) -> Flow {
        if let Event::Progress { fraction, text } = event {
            self.reports.lock().unwrap().push((*fraction, (*text).to_owned()));
        }
        Flow::Continue
    }

    fn cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|count| self.reports.lock().unwrap().len() >= count)
    }
}

pub(crate) fn silent() -> Progress {
    Progress::new(Arc::new(Written::default()))
}

/// `NodeProto`.
pub(crate) fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name)).collect();
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
    [inputs, bytes(2, output), bytes(4, operator), attributes].concat()
}

/// `AttributeProto` of an integer.
pub(crate) fn attribute(name: &str, value: u64) -> Vec<u8> {
    [bytes(1, name), int(3, value), int(20, 2)].concat()
}

/// Options as a user writes them.
pub(crate) fn options(value: &serde_json::Value) -> Options {
    Options::parse(value.as_object().unwrap()).unwrap()
}
