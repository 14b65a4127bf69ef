//! The conformance suite of the plugin contract, run on this plugin. Cases are skipped when `cargo xtask build` has not
//! put ExecuTorch's libraries into the plugin's folder.
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

use std::path::Path;
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_executorch::Library;
use pajamas_plugin_api::manifest::ManifestError;

fn main() -> ExitCode {
    let plugin_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let engine = Library::path_in(plugin_dir);
    if !engine.is_file() {
        eprintln!(
            "skipped: {} is not there; `cargo xtask build --plugin executorch` makes it",
            engine.display()
        );
        return ExitCode::SUCCESS;
    }
    pajamas_conformance::main(|| {
        let subject = Subject::read(plugin_dir)?
            .with_library(library_of_this_test("pajamas_executorch"))
            .with_option("threads", 2);
        Ok::<_, ManifestError>(subject.with_model(plugin_dir.join("testdata/colours.pte")))
    })
}
