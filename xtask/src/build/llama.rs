//! llama.cpp's own libraries beside the `gguf` plugin's, as packages have them: the feature `dynamic-backends`.
//!
//! The plugin picks the library of the CPU backend that fits the processor when it starts, so that a package runs on every
//! processor of its architecture, and further backends are further files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use pajamas_plugin_api::manifest::{MANIFEST_FILE, Manifest};

use crate::files;

/// The package whose build script compiles llama.cpp.
pub(crate) const PACKAGE: &str = "llama-cpp-sys-2";

/// Whether packages made here have llama.cpp's libraries beside the plugin's; elsewhere its one CPU backend is linked.
pub(crate) const IS_SEPARATE: bool = cfg!(target_os = "linux");

/// What that build script passes on to CMake: installed libraries look for one another in their own folder.
pub(super) const VARIABLES: [(&str, &str); 1] = [("CMAKE_INSTALL_RPATH", "$ORIGIN")];

/// Folders of the build script's output: libraries that are linked, and backends that are loaded at run time.
const LINKED: &str = "lib";
const BACKENDS: &str = "backends";

/// Puts the libraries into the plugin's `lib`, and takes the demands of the one CPU backend out of its manifest.
pub(super) fn place(output: &Path, plugin: &Path) -> Result<()> {
    let lib = plugin.join("lib");
    let linked = place_libraries(&output.join(LINKED), &lib, is_loadable_name)?;
    let backends = place_libraries(&output.join(BACKENDS), &lib, |name| name.ends_with(".so"))?;
    if linked == 0 || backends == 0 {
        bail!("llama.cpp's build left no libraries in {}", output.display());
    }
    let mut manifest = Manifest::read(plugin)?;
    manifest.target.cpu_features.clear();
    write_manifest(&manifest, plugin)
}

/// Writes a manifest into its plugin's folder.
pub(crate) fn write_manifest(manifest: &Manifest, plugin: &Path) -> Result<()> {
    let text = toml::to_string(manifest).context("the manifest cannot be written")?;
    let path = plugin.join(MANIFEST_FILE);
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
}

/// Copies the libraries whose names are wanted. Returns how many there are.
fn place_libraries(from: &Path, to: &Path, is_wanted: fn(&str) -> bool) -> Result<usize> {
    let describe = || format!("could not read {}", from.display());
    let mut count = 0;
    for entry in fs::read_dir(from).with_context(describe)? {
        let name = entry.with_context(describe)?.file_name();
        if name.to_str().is_some_and(is_wanted) {
            files::install(&from.join(&name), &to.join(&name))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Whether a library has the name that the dynamic linker looks for: of `libggml.so`, `libggml.so.0` and
/// `libggml.so.0.26.0`, which are one file, the second.
fn is_loadable_name(name: &str) -> bool {
    let version = name.split_once(".so.").map(|(_, version)| version);
    version.is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        name = "gguf"
        version = "0.1.0"
        publisher = "tests"
        license = "MIT"
        description = "does nothing"
        abi = ">=1.0, <2"
        entry = "lib/pajamas_gguf"
        target = { arch = ["x86_64"], cpu_features = ["avx2"] }
    "#;

    #[test]
    fn each_library_is_placed_once_and_no_processor_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let [output, plugin] = ["out", "gguf"].map(|name| folder.path().join(name));
        for name in ["lib/libggml.so", "lib/libggml.so.0", "lib/libggml.so.0.26.0", "lib/cmake/x", "lib/a.a"]
        {
            let file = output.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, name).unwrap();
        }
        fs::create_dir_all(&plugin).unwrap();
        fs::write(plugin.join(MANIFEST_FILE), MANIFEST).unwrap();

        fs::create_dir(output.join(BACKENDS)).unwrap();
        let error = place(&output, &plugin).unwrap_err();
        assert!(error.to_string().contains("left no libraries"), "{error}");

        fs::write(output.join(BACKENDS).join("libggml-cpu-x64.so"), "x").unwrap();
        place(&output, &plugin).unwrap();
        let mut names: Vec<_> = fs::read_dir(plugin.join("lib"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["libggml-cpu-x64.so", "libggml.so.0"]);
        let target = Manifest::read(&plugin).unwrap().target;
        assert_eq!((target.arch, target.cpu_features), (vec!["x86_64".to_owned()], vec![]));
    }
}
