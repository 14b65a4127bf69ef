//! The conformance suite of the plugin contract, run on this plugin. Cases are skipped when `cargo xtask build` has not
//! put ONNX Runtime into the plugin's folder, or `cargo xtask models` has not fetched the model.
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::path::Path;
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_onnx::Library;
use pajamas_plugin_api::manifest::ManifestError;
use pajamas_test_models::model;

fn main() -> ExitCode {
    let plugin_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let engine = Library::path_in(plugin_dir);
    if !engine.is_file() {
        eprintln!("skipped: {} is not there; `cargo xtask build --plugin onnx` fetches it", engine.display());
        return ExitCode::SUCCESS;
    }
    pajamas_conformance::main(|| {
        let subject = Subject::read(plugin_dir)?
            .with_library(library_of_this_test("pajamas_onnx"))
            .with_option("threads", 2);
        Ok::<_, ManifestError>(match model("nudenet/320n.onnx") {
            Some(path) => subject.with_model(path),
            None => subject,
        })
    })
}
