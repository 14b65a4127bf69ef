//! The conformance suite of the plugin contract, run on this plugin. Cases that load a model are skipped when
//! `cargo xtask models` has not fetched it.

use std::path::Path;
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_plugin_api::manifest::ManifestError;
use pajamas_test_models::model;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let subject = Subject::read(Path::new(env!("CARGO_MANIFEST_DIR")))?
            .with_library(library_of_this_test("pajamas_mlx"))
            .with_option("context", 512);
        Ok::<_, ManifestError>(match model("smollm2-mlx-4bit") {
            Some(path) => subject.with_model(path),
            None => subject,
        })
    })
}
