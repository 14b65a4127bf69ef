//! `cargo xtask build`: the host, the plugins of this platform and, for tests, the fixture plugins.
//!
//! Everything is compiled in one profile and by one cargo call, so that llama.cpp, minutes of C++, is compiled once.

use std::env::consts::{DLL_SUFFIX, OS};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use pajamas_plugin_api::manifest::{MANIFEST_FILE, Manifest};

use crate::espeak;
use crate::executorch;
use crate::files;
use crate::mlx;
use crate::onnxruntime;
use crate::process;
use crate::setup::Tools;
use crate::tensorrt;
use crate::workspace::Workspace;

mod artifacts;
pub(crate) mod llama;

use artifacts::Artifacts;

/// The plugins that build on this platform: the folder in `plugins/` and the package in it.
const PLUGINS: &[Crate] = &[
    Crate { name: "coreml", package: "pajamas-coreml", companions: &[], local_companions: &[] },
    Crate {
        name: "executorch",
        package: "pajamas-executorch",
        companions: &[executorch::place],
        local_companions: &[],
    },
    Crate { name: "gguf", package: "pajamas-gguf", companions: &[], local_companions: &[] },
    Crate { name: "mlx", package: "pajamas-mlx", companions: &[mlx::place], local_companions: &[] },
    Crate {
        name: "onnx",
        package: "pajamas-onnx",
        companions: &[onnxruntime::place],
        local_companions: &[espeak::place],
    },
    Crate {
        name: "system-tts",
        package: "pajamas-system-tts",
        companions: &[],
        local_companions: &[espeak::place],
    },
];

/// The plugins that build on this machine.
fn plugins(tools: &Tools) -> impl Iterator<Item = &'static Crate> {
    PLUGINS.iter().filter(|plugin| plugin.name != "mlx" || tools.has_mlx())
}

/// Those of them that users of this platform get: on others than Apple's, CoreML's plugin only tells what is in a package.
fn for_packages(tools: &Tools) -> impl Iterator<Item = &'static Crate> {
    plugins(tools).filter(|plugin| plugin.name != "coreml" || OS == "macos")
}

/// The plugins that build on this platform but only where they are asked for by name: what they load at run time is large and
/// of use on few machines.
const ON_REQUEST: &[Crate] = &[Crate {
    name: "tensorrt",
    package: "pajamas-tensorrt",
    companions: &[tensorrt::place],
    local_companions: &[],
}];

/// The fixture plugins written in Rust: the folder in `tests/fixtures/plugins/` and the package in it.
const RUST_FIXTURES: &[Crate] = &[
    Crate { name: "echo", package: "pajamas-fixture-echo", companions: &[], local_companions: &[] },
    Crate { name: "rogue", package: "pajamas-fixture-rogue", companions: &[], local_companions: &[] },
];

/// The fixture plugin written in C.
const C_FIXTURE: &str = "echo-c";

/// The folder of a plugin's own voices, where it has some.
pub(crate) const VOICES: &str = "voices";

struct Crate {
    name: &'static str,
    package: &'static str,
    /// Puts what the plugin loads at run time beside its own library, into the folder given last.
    companions: &'static [PlaceCompanion],
    /// The same for what stays on this machine: its licence keeps it out of packages.
    local_companions: &'static [PlaceCompanion],
}

type PlaceCompanion = fn(&Workspace, &Tools, &Path) -> Result<()>;

#[derive(Args)]
pub(crate) struct BuildArgs {
    /// Build only this plugin, beside the host (may be repeated) [default: all of this platform but those with large libraries]
    #[arg(long = "plugin", value_name = "NAME",
          value_parser = PossibleValuesParser::new(PLUGINS.iter().chain(ON_REQUEST).map(|plugin| plugin.name)))]
    plugins: Vec<String>,
    /// Build the fixture plugins too, into the target folder's `fixtures`
    #[arg(long)]
    fixtures: bool,
    /// The cargo profile; tests use release, packages dist
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
}

#[derive(Clone, Copy, ValueEnum)]
enum Profile {
    Release,
    Dist,
}

/// Where the results are.
pub(crate) struct Built {
    /// The host's program.
    pub(crate) host: PathBuf,
    /// The folder of the shipped plugins.
    pub(crate) plugins: PathBuf,
    /// Names of the plugins that users of this platform get, which are their folders' names too.
    pub(crate) plugin_names: Vec<&'static str>,
    /// The folder of the fixture plugins, filled only when they were asked for.
    pub(crate) fixtures: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, args: &BuildArgs) -> Result<()> {
    let tools = Tools::ensure(workspace)?;
    let is_named = |plugin: &&Crate| args.plugins.iter().any(|name| name == plugin.name);
    let plugins: Vec<_> = match args.plugins.as_slice() {
        [] => plugins(&tools).collect(),
        _ => plugins(&tools).chain(ON_REQUEST).filter(is_named).collect(),
    };
    let fixtures = if args.fixtures { RUST_FIXTURES } else { &[] };

    let mut cargo = tools.cargo();
    let profile = if matches!(args.profile, Profile::Dist) { "dist" } else { "release" };
    cargo.args(["build", "--profile", profile, "--package", "pajamas-host"]);
    for library in plugins.iter().copied().chain(fixtures) {
        cargo.args(["--package", library.package]);
    }
    let artifacts = Artifacts::compile(&mut cargo)?;

    let built = Built::new(workspace, &tools, &artifacts)?;
    built.place_plugins(workspace, &tools, &artifacts, &plugins)?;
    if args.fixtures {
        built.place_fixtures(workspace, &artifacts)?;
        println!("fixtures: {}", built.fixtures.display());
    }
    println!("host: {}", built.host.display());
    println!("plugins: {}", built.plugins.display());
    Ok(())
}

/// Builds what serving needs: the host and all plugins of this platform.
pub(crate) fn for_serving(workspace: &Workspace, tools: &Tools) -> Result<Built> {
    let artifacts = Artifacts::compile(&mut host_and_plugins(tools, "release"))?;
    let built = Built::new(workspace, tools, &artifacts)?;
    built.place_plugins(workspace, tools, &artifacts, &plugins(tools).collect::<Vec<_>>())?;
    Ok(built)
}

/// Builds what users get, in the profile for packages: the same, with llama.cpp for every generation of processors.
///
/// The plugins' folders are laid out anew outside the source tree, where what is built for development stays as it is.
pub(crate) fn for_users(workspace: &Workspace, tools: &Tools) -> Result<Built> {
    let mut cargo = host_and_plugins(tools, "dist");
    if llama::IS_SEPARATE {
        cargo.args(["--features", "pajamas-gguf/dynamic-backends"]).envs(llama::VARIABLES);
    }
    let artifacts = Artifacts::compile(&mut cargo)?;
    let mut built = Built::new(workspace, tools, &artifacts)?;
    let sources = std::mem::replace(&mut built.plugins, built.fixtures.with_file_name("dist-plugins"));
    files::remove_folder(&built.plugins)?;
    for plugin in for_packages(tools) {
        let (from, folder) = (sources.join(plugin.name), built.plugins.join(plugin.name));
        for file in [MANIFEST_FILE, "README.md"] {
            files::install(&from.join(file), &folder.join(file))?;
        }
        if from.join(VOICES).is_dir() {
            files::copy_folder(&from.join(VOICES), &folder.join(VOICES))?;
        }
        let lib = built.place_library(&artifacts, plugin)?;
        for place in plugin.companions {
            place(workspace, tools, &lib)?;
        }
    }
    if llama::IS_SEPARATE {
        llama::place(&artifacts.build_script_output(llama::PACKAGE)?, &built.plugins.join("gguf"))?;
    }
    Ok(built)
}

fn host_and_plugins(tools: &Tools, profile: &str) -> Command {
    let mut cargo = tools.cargo();
    cargo.args(["build", "--profile", profile, "--package", "pajamas-host"]);
    for plugin in plugins(tools) {
        cargo.args(["--package", plugin.package]);
    }
    cargo
}

/// Builds all that the tests run: every program, library and test of the workspace.
///
/// The same selection as the test run's, so that its crates have the same features and nothing is compiled twice.
pub(crate) fn for_tests(workspace: &Workspace, tools: &Tools) -> Result<Built> {
    let mut cargo = tools.cargo();
    cargo.args(["build", "--release", "--lib", "--bins", "--tests"]).args(tools.all_crates());
    let artifacts = Artifacts::compile(&mut cargo)?;
    let built = Built::new(workspace, tools, &artifacts)?;
    built.place_plugins(workspace, tools, &artifacts, &plugins(tools).collect::<Vec<_>>())?;
    built.place_fixtures(workspace, &artifacts)?;
    Ok(built)
}

impl Built {
    /// The folder for what users get, where none is named.
    pub(crate) fn packages(&self) -> PathBuf {
        self.fixtures.with_file_name("packages")
    }

    fn new(workspace: &Workspace, tools: &Tools, artifacts: &Artifacts) -> Result<Self> {
        Ok(Self {
            host: artifacts.program("pajamas-host")?,
            plugins: workspace.root().join("plugins"),
            plugin_names: for_packages(tools).map(|plugin| plugin.name).collect(),
            fixtures: artifacts::target_folder(tools)?.join("fixtures"),
        })
    }

    /// Puts each plugin's library into its source folder's `lib`, where `--plugins ./plugins` finds it, and its
    /// companions beside it.
    fn place_plugins(
        &self,
        workspace: &Workspace,
        tools: &Tools,
        artifacts: &Artifacts,
        plugins: &[&Crate],
    ) -> Result<()> {
        for plugin in plugins {
            let lib = self.place_library(artifacts, plugin)?;
            for place in plugin.companions.iter().chain(plugin.local_companions) {
                place(workspace, tools, &lib)?;
            }
        }
        Ok(())
    }

    /// Puts a plugin's library to its place. Returns the folder that it is in.
    fn place_library(&self, artifacts: &Artifacts, plugin: &Crate) -> Result<PathBuf> {
        let folder = self.plugins.join(plugin.name);
        let library = place_library(&artifacts.library(plugin.package)?, &folder)?;
        Ok(library.parent().unwrap_or(&folder).to_owned())
    }

    /// Lays out complete plugin folders, manifest and library, outside the source tree.
    fn place_fixtures(&self, workspace: &Workspace, artifacts: &Artifacts) -> Result<()> {
        let sources = workspace.root().join("tests/fixtures/plugins");
        let place_manifest = |name: &str| {
            let manifest = self.fixtures.join(name).join(MANIFEST_FILE);
            files::install(&sources.join(name).join(MANIFEST_FILE), &manifest)
        };
        for fixture in RUST_FIXTURES {
            place_manifest(fixture.name)?;
            place_library(&artifacts.library(fixture.package)?, &self.fixtures.join(fixture.name))?;
        }
        place_manifest(C_FIXTURE)?;
        let header_folder = workspace.root().join("plugin-api/include");
        compile_c(&sources.join(C_FIXTURE), &header_folder, &self.fixtures.join(C_FIXTURE))
    }
}

/// Copies a library to the place that the plugin's manifest names. Returns that place.
fn place_library(library: &Path, plugin: &Path) -> Result<PathBuf> {
    let manifest =
        Manifest::read(plugin).context("a plugin needs a manifest before its library has a place")?;
    let place = manifest.library(plugin);
    files::install(library, &place)?;
    Ok(place)
}

/// Compiles all C files of a folder into one library, as the author of a C plugin would.
fn compile_c(source: &Path, header_folder: &Path, plugin: &Path) -> Result<()> {
    let describe = || format!("could not read {}", source.display());
    let mut units = Vec::new();
    for entry in fs::read_dir(source).with_context(describe)? {
        let path = entry.with_context(describe)?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            units.push(path);
        }
    }
    units.sort();
    if units.is_empty() {
        bail!("{} has no C file", source.display());
    }
    let library = plugin.join(format!(".built{DLL_SUFFIX}"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let options =
        ["-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"];
    let mut command = Command::new(compiler);
    command.args(options).arg("-I").arg(header_folder).arg("-o").arg(&library).args(units);
    process::run(&mut command)?;
    place_library(&library, plugin)?;
    fs::remove_file(&library).with_context(|| format!("could not remove {}", library.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        name = "tiny"
        version = "0.1.0"
        publisher = "tests"
        license = "MIT"
        description = "does nothing"
        abi = ">=1.0, <2"
        entry = "lib/tiny"
    "#;

    #[test]
    fn a_c_plugin_is_compiled_to_where_its_manifest_says() {
        let folder = tempfile::tempdir().unwrap();
        let [source, headers, plugin] = ["source", "include", "plugin"].map(|name| folder.path().join(name));
        for folder in [&source, &headers, &plugin] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(headers.join("answer.h"), "int answer(void);\n").unwrap();
        fs::write(source.join("tiny.c"), "#include \"answer.h\"\nint answer(void) { return 42; }\n").unwrap();
        fs::write(plugin.join(MANIFEST_FILE), MANIFEST).unwrap();

        compile_c(&source, &headers, &plugin).unwrap();
        assert!(plugin.join(format!("lib/libtiny{DLL_SUFFIX}")).is_file());
        assert_eq!(fs::read_dir(&plugin).unwrap().count(), 2, "only manifest and lib are left");
    }

    #[test]
    fn a_plugin_without_a_manifest_or_sources_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = place_library(&folder.path().join("libtiny.so"), folder.path()).unwrap_err();
        assert_eq!(error.to_string(), "a plugin needs a manifest before its library has a place");
        let error = compile_c(folder.path(), folder.path(), folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("has no C file"), "{error}");
    }
}
