//! The conformance suite of the plugin contract, run on this plugin. Cases with a model need a GPU that the library
//! supports, the library in the plugin's folder, and the model of `cargo xtask models`; without one of them they are skipped.
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_plugin_api::Backend;
use pajamas_plugin_api::manifest::ManifestError;
use pajamas_tensorrt::TensorRtBackend;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let plugin_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let subject = Subject::read(plugin_dir)?
            .with_library(library_of_this_test("pajamas_tensorrt"))
            .with_option("batch_max", 4)
            .with_option("cache_max_mb", 0);
        let model = models_dir().join("nudenet/320n.onnx");
        let missing = unusable(plugin_dir)
            .or_else(|| (!model.exists()).then(|| "`cargo xtask models` has not fetched nudenet".to_owned()));
        Ok::<_, ManifestError>(match missing {
            None => subject.with_model(model),
            Some(reason) => {
                eprintln!("skipped: all cases with a model: {reason}");
                subject
            }
        })
    })
}

/// Why the plugin cannot run here, if it cannot.
fn unusable(plugin_dir: &Path) -> Option<String> {
    match TensorRtBackend::init(plugin_dir).and_then(|backend| backend.probe()) {
        Ok(report) if report.devices.is_empty() => Some(report.reason.unwrap_or_default()),
        Ok(_) => None,
        Err(error) => Some(error.message().to_owned()),
    }
}

fn models_dir() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("PAJAMAS_TEST_MODELS").map_or_else(
        || std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("pajamas-host/models"),
        PathBuf::from,
    )
}
