//! Loads test models.

use std::path::PathBuf;

use pajamas_generation_tests::support::no_progress;
use pajamas_gguf::{GgufBackend, GgufModel};
use pajamas_plugin_api::{Backend, Error, LoadSpec, Model};

/// A small chat model, relative to the folder of test models.
pub(crate) const SMOLLM2: &str = "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
/// A small embedding model.
pub(crate) const MINILM: &str = "minilm/all-MiniLM-L6-v2.F16.gguf";

/// The backend.
pub(crate) fn backend() -> GgufBackend {
    GgufBackend::init(std::path::Path::new(".")).unwrap()
}

/// Loads a model with these options.
pub(crate) fn try_load(path: PathBuf, options: serde_json::Value) -> Result<GgufModel, Error> {
    let options = options.as_object().unwrap().clone();
    let spec = LoadSpec { path, options, cache_dir: None };
    backend().load(&spec, &no_progress())
}

/// Loads a test model, or `None` when it is not there.
pub(crate) fn load(name: &str, options: serde_json::Value) -> Option<GgufModel> {
    Some(try_load(pajamas_test_models::model(name)?, options).unwrap())
}

/// The chat model for the tests that any engine passes.
pub(crate) fn load_smollm2(options: serde_json::Value) -> Option<Box<dyn Model>> {
    Some(Box::new(load(SMOLLM2, options)?))
}
