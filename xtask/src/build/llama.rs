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
/// The backend that computes in AMX tiles. On an Intel Xeon in a virtual machine it was killed by SIGILL at its first tile; the
/// next best one for such a processor has the same AVX-512.
const UNUSABLE_BACKEND: &str = "libggml-cpu-sapphirerapids.so";

/// Puts the libraries into the plugin's `lib`, and takes the demands of the one CPU backend out of its manifest.
pub(super) fn place(output: &Path, plugin: &Path) -> Result<()> {
    let mut manifest = Manifest::read(plugin)?;
    let library = manifest.library(plugin);
    let lib = library.parent().unwrap_or(plugin);
    let linked = place_linked(&output.join(LINKED), &library, lib)?;
    let backends = names(&output.join(BACKENDS))?;
    let is_usable = |name: &&String| name.ends_with(".so") && *name != UNUSABLE_BACKEND;
    let backends: Vec<_> = backends.iter().filter(is_usable).collect();
    if linked == 0 || backends.is_empty() {
        bail!("llama.cpp's build left no libraries in {}", output.display());
    }
    for name in backends {
        files::install(&output.join(BACKENDS).join(name), &lib.join(name))?;
    }
    manifest.target.cpu_features.clear();
    write_manifest(&manifest, plugin)
}

/// Copies the libraries that the plugin's library asks for, and those that these ask for. Returns how many there are. The
/// build makes more: what llama.cpp's own programs share needs libraries that a user's system may not have.
fn place_linked(from: &Path, library: &Path, lib: &Path) -> Result<usize> {
    let mut others: Vec<String> = names(from)?.into_iter().filter(|name| is_loadable_name(name)).collect();
    let mut asking = vec![library.to_owned()];
    let mut count = 0;
    while let Some(path) = asking.pop() {
        let content = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        // The dynamic linker's table has the name as a C string.
        let is_asked_for = |name: &mut String| {
            let text = [name.as_bytes(), b"\0"].concat();
            content.windows(text.len()).any(|window| window == text)
        };
        for name in others.extract_if(.., is_asked_for) {
            let placed = lib.join(&name);
            files::install(&from.join(&name), &placed)?;
            asking.push(placed);
            count += 1;
        }
    }
    Ok(count)
}

/// Writes a manifest into its plugin's folder.
pub(crate) fn write_manifest(manifest: &Manifest, plugin: &Path) -> Result<()> {
    let text = toml::to_string(manifest).context("the manifest cannot be written")?;
    let path = plugin.join(MANIFEST_FILE);
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
}

/// The names in a folder that are text, sorted.
fn names(folder: &Path) -> Result<Vec<String>> {
    let describe = || format!("could not read {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(describe)? {
        names.extend(entry.with_context(describe)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
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
    fn libraries_that_are_asked_for_are_placed_once_and_no_processor_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let [output, plugin] = ["out", "gguf"].map(|name| folder.path().join(name));
        for (name, content) in [
            ("lib/libllama.so.0", "\0libggml.so.0\0"),
            ("lib/libggml.so", ""),
            ("lib/libggml.so.0", ""),
            ("lib/libggml.so.0.26.0", ""),
            ("lib/libllama-common.so.0", "\0libllama.so.0\0libssl.so.3\0"),
            ("lib/cmake/x", ""),
        ] {
            let file = output.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, content).unwrap();
        }
        fs::create_dir_all(plugin.join("lib")).unwrap();
        fs::write(plugin.join(MANIFEST_FILE), MANIFEST).unwrap();
        fs::write(plugin.join("lib/libpajamas_gguf.so"), "\0libllama.so.0\0libc.so.6\0").unwrap();

        fs::create_dir(output.join(BACKENDS)).unwrap();
        let error = place(&output, &plugin).unwrap_err();
        assert!(error.to_string().contains("left no libraries"), "{error}");

        for name in ["libggml-cpu-x64.so", UNUSABLE_BACKEND] {
            fs::write(output.join(BACKENDS).join(name), "x").unwrap();
        }
        place(&output, &plugin).unwrap();
        let names = names(&plugin.join("lib")).unwrap();
        assert_eq!(names, ["libggml-cpu-x64.so", "libggml.so.0", "libllama.so.0", "libpajamas_gguf.so"]);
        let target = Manifest::read(&plugin).unwrap().target;
        assert_eq!((target.arch, target.cpu_features), (vec!["x86_64".to_owned()], vec![]));
    }
}
