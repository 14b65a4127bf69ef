//! The conformance suite of the plugin contract, run on this plugin. Cases that load a model are skipped where espeak-ng
//! is neither beside the plugin nor in the system.

use std::path::Path;
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_pipelines::espeak::{self, Espeak};
use pajamas_plugin_api::manifest::ManifestError;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let subject = Subject::read(folder)?.with_library(library_of_this_test("pajamas_system_tts"));
        espeak::search_in(&folder.join("lib/espeak-ng"));
        let is_there = Espeak::open(None).is_ok();
        let model = folder.join("voices/english.voice");
        Ok::<_, ManifestError>(if is_there { subject.with_model(model) } else { subject })
    })
}
