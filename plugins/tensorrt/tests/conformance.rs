//! The conformance suite of the plugin contract, run on this plugin. Cases with a model need a GPU that the library
//! supports, the library in the plugin's folder, and the model of `cargo xtask models`; without one of them they are skipped.
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::path::Path;
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_plugin_api::Backend;
use pajamas_plugin_api::manifest::ManifestError;
use pajamas_tensorrt::TensorRtBackend;
use pajamas_test_models::model;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let plugin_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let subject = Subject::read(plugin_dir)?
            .with_library(library_of_this_test("pajamas_tensorrt"))
            .with_option("batch_max", 4)
            .with_option("cache_max_mb", 0);
        if let Some(reason) = unusable(plugin_dir) {
            eprintln!("skipped: all cases with a model: {reason}");
            return Ok::<_, ManifestError>(subject);
        }
        Ok(match model("nudenet/320n.onnx") {
            Some(path) => subject.with_model(path),
            None => subject,
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
