//! The conformance suite of the plugin contract, run on this plugin. Cases that load a model are skipped when
//! `cargo xtask models` has not fetched it.

use std::path::Path;
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_generation_tests::support::model_path;
use pajamas_plugin_api::manifest::ManifestError;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let subject = Subject::read(Path::new(env!("CARGO_MANIFEST_DIR")))?
            .with_library(library_of_this_test("pajamas_gguf"))
            .with_option("context", 512);
        Ok::<_, ManifestError>(match model_path("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") {
            Some(model) => subject.with_model(model),
            None => subject,
        })
    })
}
