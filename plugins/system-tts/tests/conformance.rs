//! The conformance suite of the plugin contract, run on this plugin. Cases that load a model are skipped where espeak-ng
//! is neither beside the plugin, nor in the system, nor named by `PAJAMAS_TEST_ESPEAK`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_pipelines::espeak::{self, Espeak};
use pajamas_plugin_api::manifest::ManifestError;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let subject = Subject::read(folder)?.with_library(library_of_this_test("pajamas_system_tts"));
        let library = std::env::var_os("PAJAMAS_TEST_ESPEAK").map(PathBuf::from);
        espeak::search_in(&folder.join("lib/espeak-ng"));
        let found = Espeak::open(library.as_deref());
        if let Err(error) = &found {
            println!("skipped: cases that load a model, because {error}");
            return Ok::<_, ManifestError>(subject);
        }
        let subject = subject.with_model(folder.join("voices/english.voice"));
        Ok(match library {
            Some(library) => subject.with_option("espeak_library", library.to_string_lossy()),
            None => subject,
        })
    })
}
