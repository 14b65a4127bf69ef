//! The conformance suite of the plugin contract, run on this plugin. Cases that load a model are skipped when
//! `cargo xtask models` has not fetched it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pajamas_conformance::{Subject, library_of_this_test};
use pajamas_plugin_api::manifest::ManifestError;

fn main() -> ExitCode {
    pajamas_conformance::main(|| {
        let subject = Subject::read(Path::new(env!("CARGO_MANIFEST_DIR")))?
            .with_library(library_of_this_test("pajamas_mlx"))
            .with_option("context", 512);
        let model = models_dir().join("smollm2-mlx-4bit");
        Ok::<_, ManifestError>(if model.exists() { subject.with_model(model) } else { subject })
    })
}

fn models_dir() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("PAJAMAS_TEST_MODELS").map_or_else(
        || std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("pajamas-host/models"),
        PathBuf::from,
    )
}
