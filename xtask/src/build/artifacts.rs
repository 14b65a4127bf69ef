//! What a cargo build made, as cargo itself tells it.

use std::env::consts::DLL_EXTENSION;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;
use crate::setup::Tools;

/// The programs and libraries of one build, and the folders in which build scripts put theirs.
pub(super) struct Artifacts {
    compiled: Vec<Artifact>,
    scripts: Vec<Script>,
}

/// The fields of cargo's `build-script-executed` message that matter here.
#[derive(Deserialize)]
struct Script {
    package_id: String,
    out_dir: PathBuf,
}

/// The fields of cargo's `compiler-artifact` message that matter here.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    filenames: Vec<PathBuf>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Artifacts {
    /// Runs a `cargo build`, with its progress on the terminal.
    pub(super) fn compile(cargo: &mut Command) -> Result<Self> {
        cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
        Self::parse(&process::stdout_of(cargo)?)
    }

    /// The file of a program.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf> {
        let is_program = |artifact: &&Artifact| {
            artifact.target.name == name && artifact.target.kind.iter().any(|kind| kind == "bin")
        };
        // A test of the program has the same name and kind; its file name carries a hash.
        let executables =
            self.compiled.iter().filter(is_program).filter_map(|artifact| artifact.executable.clone());
        let mut exact = executables.filter(|path| path.file_name().is_some_and(|file| file == name));
        exact.next().with_context(|| format!("cargo built no program {name}"))
    }

    /// The file of the dynamic library that a package makes.
    pub(super) fn library(&self, package: &str) -> Result<PathBuf> {
        let name = package.replace('-', "_");
        let is_library =
            |path: &&PathBuf| path.extension().is_some_and(|extension| extension == DLL_EXTENSION);
        let of_package = self.compiled.iter().filter(|artifact| artifact.target.name == name);
        let mut libraries = of_package.flat_map(|artifact| artifact.filenames.iter().filter(is_library));
        libraries.next().cloned().with_context(|| format!("cargo built no dynamic library of {package}"))
    }

    /// The folder that the build script of a package wrote to.
    pub(super) fn build_script_output(&self, package: &str) -> Result<PathBuf> {
        // `registry+https://…#llama-cpp-sys-2@0.1.161`
        let is_of_package = |script: &&Script| {
            let name = script.package_id.rsplit(['#', '/']).next().unwrap_or_default();
            name.split('@').next() == Some(package)
        };
        let script = self.scripts.iter().find(is_of_package);
        Ok(script.with_context(|| format!("cargo ran no build script of {package}"))?.out_dir.clone())
    }

    fn parse(messages: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Message {
            reason: String,
        }
        let mut artifacts = Self { compiled: Vec::new(), scripts: Vec::new() };
        for line in messages.lines() {
            let mut read = |line| -> serde_json::Result<()> {
                match serde_json::from_str::<Message>(line)?.reason.as_str() {
                    "compiler-artifact" => artifacts.compiled.push(serde_json::from_str(line)?),
                    "build-script-executed" => artifacts.scripts.push(serde_json::from_str(line)?),
                    _ => {}
                }
                Ok(())
            };
            read(line).with_context(|| format!("could not read cargo's message {line}"))?;
        }
        Ok(artifacts)
    }
}

/// Cargo's target folder, wherever the user's settings put it.
pub(super) fn target_folder(tools: &Tools) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let text = process::stdout_of(tools.cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("could not read the output of cargo metadata")?;
    Ok(Path::new(&metadata.target_directory).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_libraries_are_told_from_their_tests() {
        let library = format!("/t/release/libpajamas_gguf.{DLL_EXTENSION}");
        let messages = [
            r#"{"reason":"build-script-executed","package_id":"registry+https://x.org/i#llama-cpp-sys-2@0.1.161",
                "out_dir":"/t/release/build/llama-cpp-sys-2-1f/out"}"#
                .replace('\n', ""),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            r#"{"reason":"compiler-artifact","target":{"name":"pajamas-host","kind":["bin"]},
                "filenames":["/t/release/deps/pajamas_host-1f"],"executable":"/t/release/deps/pajamas_host-1f"}"#
                .replace('\n', ""),
            r#"{"reason":"compiler-artifact","target":{"name":"pajamas-host","kind":["bin"]},
                "filenames":["/t/release/pajamas-host"],"executable":"/t/release/pajamas-host"}"#
                .replace('\n', ""),
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"pajamas_gguf","kind":["cdylib","rlib"]}},
                "filenames":["{library}","/t/release/libpajamas_gguf.rlib"],"executable":null}}"#
            )
            .replace('\n', ""),
        ];
        let artifacts = Artifacts::parse(&messages.join("\n")).unwrap();
        assert_eq!(artifacts.program("pajamas-host").unwrap(), Path::new("/t/release/pajamas-host"));
        assert_eq!(artifacts.library("pajamas-gguf").unwrap(), Path::new(&library));
        let folder = artifacts.build_script_output("llama-cpp-sys-2").unwrap();
        assert_eq!(folder, Path::new("/t/release/build/llama-cpp-sys-2-1f/out"));
        let error = artifacts.build_script_output("llama-cpp-sys").unwrap_err();
        assert_eq!(error.to_string(), "cargo ran no build script of llama-cpp-sys");
        let error = artifacts.library("pajamas-onnx").unwrap_err();
        assert_eq!(error.to_string(), "cargo built no dynamic library of pajamas-onnx");
    }

    #[test]
    fn a_line_that_is_no_message_is_shown() {
        let error = Artifacts::parse("warning: hello").err().unwrap();
        assert_eq!(error.to_string(), "could not read cargo's message warning: hello");
    }
}
