//! What the compiler and clippy cannot check: the house rules that can be read off the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A file longer than this, its unit tests left out, wants to be two.
const FILE_LINES_MAX: usize = 500;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Where unsafe code may be: at the borders to C and of components, and nowhere else (`host/ARCHITECTURE.md`).
const UNSAFE_FILES: &[&str] = &[
    // One call of a C function that has no safe wrapper.
    "host/src/hardware/libc_version.rs",
    "plugin-api/src/abi/convert",
    "plugin-api/src/export.rs",
    "plugin-api/src/native",
    // It feeds hostile bytes to the readers.
    "plugin-api/tests/properties.rs",
    // Apple's frameworks.
    "plugins/coreml/src/engine/apple",
    // ExecuTorch's C++ runtime, behind a shim of C functions.
    "plugins/executorch/src/ffi.rs",
    "plugins/gguf/src/ffi",
    // What wit-bindgen generates, between a hook and the host.
    "plugins/hooks/common/src/hook.rs",
    // Bindings that a tool generates, a function that C calls, and one of C that has no safe wrapper.
    "plugins/mlx/mlx-sys/src/lib.rs",
    "plugins/mlx/src/blas.rs",
    "plugins/mlx/src/streams.rs",
    "plugins/pipelines/src/espeak/ffi.rs",
    "plugins/system-tts/src/apple.rs",
    "plugins/tensorrt/src/ffi",
    "tests/fixtures/hooks/rogue/src/bindings.rs",
    // The suite plays a host that does not trust the plugin, beneath the safe face.
    "tests/conformance/src/raw",
    // It misbehaves on purpose.
    "tests/fixtures/plugins/rogue/src/",
];

/// Crates that the plugin contract must not bring into a plugin, not even through another crate.
const NOT_IN_PLUGIN_API: &[&str] = &["tokio", "axum", "wasmtime", "hyper", "pajamas-host"];

#[test]
fn every_rust_file_says_first_what_it_is_for() -> Result<()> {
    check(&rust_files()?, |file| {
        let is_documented = file.text.starts_with("//!") || file.text.starts_with("#![doc = include_str!");
        (!is_documented).then(|| "begins with something other than a `//!` line".to_owned())
    })
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() -> Result<()> {
    check(&rust_files()?, |file| {
        let is_exempt = is_test(&file.path) || LONG_FILES.iter().any(|(path, _)| *path == file.path);
        let lines = file.text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        (!is_exempt && lines > FILE_LINES_MAX)
            .then(|| format!("has {lines} lines without its tests; split it (at most {FILE_LINES_MAX})"))
    })
}

#[test]
fn unsafe_code_stays_at_the_borders() -> Result<()> {
    // The workspace denies the lint, so that a file with unsafe code must say so in an attribute.
    // Split, so that this file is not its own finding.
    let attribute = ["(unsafe", "_code"].concat();
    check(&rust_files()?, |file| {
        let is_allowed = UNSAFE_FILES.iter().any(|allowed| file.path.starts_with(allowed));
        let line = file
            .text
            .lines()
            .position(|line| line.contains(&attribute) && !line.starts_with("#![forbid"))
            .filter(|_| !is_allowed)?;
        Some(format!(
            "lifts the ban on unsafe code in line {}; see UNSAFE_FILES in xtask/tests/tidy.rs",
            line + 1
        ))
    })
}

#[test]
fn nothing_is_left_to_do_and_no_path_of_one_machine_is_written_down() -> Result<()> {
    // Split, so that this file is not its own finding.
    let forbidden = [["TO", "DO"], ["FIX", "ME"], ["/ro", "ot/"], ["/wo", "rk/"]].map(|word| word.concat());
    let is_text = |path: &str| {
        let extensions = ["rs", "toml", "md", "py", "c", "h", "wit", "json"];
        path == ".ci/run" || extensions.iter().any(|extension| path.ends_with(&format!(".{extension}")))
    };
    check(&files(&is_text)?, |file| {
        let word = forbidden.iter().find(|word| file.text.contains(word.as_str()))?;
        Some(format!("contains `{word}`"))
    })
}

#[test]
fn every_crate_follows_the_lints_of_the_workspace() -> Result<()> {
    check(&files(&|path| path.ends_with("/Cargo.toml"))?, |file| {
        let manifest: toml::Table = file.text.parse().ok()?;
        let follows = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        (follows != Some(&toml::Value::Boolean(true))).then(|| "lacks `[lints] workspace = true`".to_owned())
    })
}

#[test]
fn the_plugin_contract_brings_no_server_into_a_plugin() -> Result<()> {
    let lock: toml::Table = fs::read_to_string(root()?.join("Cargo.lock"))?.parse()?;
    let packages =
        lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let name = package.get("name").and_then(toml::Value::as_str).context("a package has no name")?;
        let list = package.get("dependencies").and_then(toml::Value::as_array);
        let names = list.into_iter().flatten().filter_map(toml::Value::as_str);
        // `name version` where a name occurs in several versions
        needs.entry(name).or_default().extend(names.filter_map(|need| need.split(' ').next()));
    }
    let mut seen = BTreeSet::new();
    let mut open = vec!["pajamas-plugin-api"];
    while let Some(name) = open.pop() {
        if seen.insert(name) {
            open.extend(needs.get(name).into_iter().flatten());
        }
    }
    let found: Vec<_> = NOT_IN_PLUGIN_API.iter().filter(|name| seen.contains(*name)).collect();
    assert!(found.is_empty(), "pajamas-plugin-api depends on {found:?}");
    assert!(seen.len() > 1, "Cargo.lock does not list pajamas-plugin-api");
    Ok(())
}

struct SourceFile {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

/// Fails with every finding at once.
fn check(files: &[SourceFile], rule: impl Fn(&SourceFile) -> Option<String>) -> Result<()> {
    let findings: Vec<_> = files
        .iter()
        .filter_map(|file| rule(file).map(|finding| format!("{} {finding}", file.path)))
        .collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    assert!(!files.is_empty(), "no file was checked");
    Ok(())
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

fn rust_files() -> Result<Vec<SourceFile>> {
    files(&|path| path.ends_with(".rs"))
}

/// All source files of the repository whose relative path fits.
fn files(fits: &dyn Fn(&str) -> bool) -> Result<Vec<SourceFile>> {
    let root = root()?;
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let relative = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                if !is_built(&path) {
                    folders.push(path);
                }
            } else if fits(&relative) {
                let text = fs::read_to_string(&path).with_context(|| format!("could not read {relative}"))?;
                found.push(SourceFile { path: relative, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Folders of tools, not of people.
fn is_built(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default();
    name == ".git" || folder.join("CACHEDIR.TAG").is_file() || name == "target" || name == "__pycache__"
}

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies outside a repository")
}
