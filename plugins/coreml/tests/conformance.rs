//! The conformance suite of the plugin contract, run on this plugin. Where there is no CoreML, the cases without a model
//! run, and those that load one are skipped.
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::path::Path;
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_plugin_api::manifest::ManifestError;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let subject = Subject::read(folder)?.with_library(library_of_this_test("pajamas_coreml"));
        if !cfg!(target_vendor = "apple") {
            eprintln!("skipped: the cases that load a model need macOS");
            return Ok::<_, ManifestError>(subject);
        }
        Ok(subject.with_model(folder.join("testdata/encoder.mlpackage")))
    })
}
