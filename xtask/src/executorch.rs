//! ExecuTorch for the plugin `executorch`: its libraries, taken out of the Python package that its makers publish, and the
//! plugin's own shim, compiled against the package's headers.
//!
//! The wheels fit one version of Python each, but what is taken out of them needs none, so one is pinned for each platform
//! and fetched whatever Python is installed here.

use std::env::consts::{ARCH, DLL_PREFIX, DLL_SUFFIX, OS};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::files;
use crate::models::{File, pinned};
use crate::process;
use crate::python::Package;
use crate::setup::Tools;
use crate::workspace::Workspace;

const PACKAGE: Package = Package { name: "executorch", version: "1.5.1" };

/// The libraries that the plugin loads: the core, the threads, the kernels, and the backend for CPUs. Those for OpenVINO and
/// Qualcomm's chips, which the wheel has too, need what few machines have.
const LIBRARIES: [&str; 5] = [
    "executorch",
    "executorch_threadpool",
    "executorch_kernels_optimized",
    "executorch_kernels_quantized",
    "executorch_backend_xnnpack",
];

/// Those of [`LIBRARIES`] that the shim itself calls.
const LINKED: [&str; 2] = ["executorch", "executorch_threadpool"];

/// What the headers want to be told, as the package's own configuration for CMake has it.
const DEFINITIONS: [&str; 2] = ["C10_USING_CUSTOM_GENERATED_MACROS", "ET_EVENT_TRACER_ENABLED"];

/// The folders of headers.
const INCLUDES: [&str; 2] = ["include", "include/executorch/runtime/core/portable_type/c10"];

/// The plugin's own library between Rust and C++, as `plugins/executorch/src/library.rs` looks for it.
const SHIM: &str = "pajamas_executorch_shim";

/// Records which wheel a folder is from; written last.
const STAMP: &str = ".executorch.verified";
/// The licence, as it is called in the wheel and in the plugin's folder.
const LICENCE: [&str; 2] = ["executorch-1.5.1.dist-info/licenses/LICENSE", "executorch-LICENSE.txt"];

/// The wheel of one platform.
struct Wheel {
    /// As in [`std::env::consts`].
    os: &'static str,
    arch: &'static str,
    file: File,
}

const WHEELS: &[Wheel] = &[
    Wheel {
        os: "linux",
        arch: "x86_64",
        file: pinned(
            "executorch-1.5.1-cp311-cp311-manylinux_2_28_x86_64.whl",
            18_887_977,
            "274c28c2fe2b76acb03f9fa381537425c40e0098dcf886baf6d97a1a55ffe300",
        ),
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        file: pinned(
            "executorch-1.5.1-cp311-cp311-manylinux_2_28_aarch64.whl",
            17_810_491,
            "8ee02348a3ea80ddf770822911ebf78da616b73afce0fbaaa79f23311c88c66a",
        ),
    },
];

/// Makes sure that the libraries and the shim are in a plugin's folder `lib`. On a platform without a wheel it says so and
/// goes on: the plugin itself tells its user what is missing.
pub(crate) fn place(workspace: &Workspace, tools: &Tools, lib: &Path) -> Result<()> {
    let Some(wheel) = WHEELS.iter().find(|wheel| wheel.os == OS && wheel.arch == ARCH) else {
        eprintln!("build: {} has no wheel for {OS} on {ARCH}", PACKAGE.name);
        return Ok(());
    };
    let content = fetch(workspace, tools, wheel)
        .with_context(|| format!("could not fetch {}", PACKAGE.requirement()))?;
    for library in LIBRARIES.map(file_name) {
        files::install(&content.join("executorch/lib").join(&library), &lib.join(&library))?;
    }
    files::install(&content.join(LICENCE[0]), &lib.join(LICENCE[1]))?;
    let shim = compile_shim(workspace, &content)?;
    files::install(&shim, &lib.join(file_name(SHIM)))
}

fn file_name(library: &str) -> String {
    format!("{DLL_PREFIX}{library}{DLL_SUFFIX}")
}

/// Makes sure that the verified content of the wheel is in the cache folder. Returns its place there.
fn fetch(workspace: &Workspace, tools: &Tools, wheel: &Wheel) -> Result<PathBuf> {
    let cached = workspace.executorch();
    if is_complete(&cached, wheel) {
        return Ok(cached);
    }
    let _lock = workspace.lock_cache()?;
    if is_complete(&cached, wheel) {
        return Ok(cached);
    }
    files::remove_folder(&cached)?;
    let partial = cached.join(".partial");
    tools.venv().unpack(PACKAGE, &wheel.file, &partial)?;
    for path in ["executorch/include", "executorch/lib", LICENCE[0]] {
        let (from, to) = (partial.join(path), cached.join(path));
        let folder = to.parent().unwrap_or(&cached);
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        fs::rename(&from, &to).with_context(|| format!("could not find {path} in {}", wheel.file.path))?;
    }
    files::remove_folder(&partial)?;
    fs::write(cached.join(STAMP), wheel.file.sha256)?;
    Ok(cached)
}

fn is_complete(folder: &Path, wheel: &Wheel) -> bool {
    files::says(&folder.join(STAMP), wheel.file.sha256)
}

/// Compiles the shim, unless that was done with these sources. Returns its file.
fn compile_shim(workspace: &Workspace, content: &Path) -> Result<PathBuf> {
    let sources = workspace.root().join("plugins/executorch/shim");
    let source = sources.join("pajamas_executorch.cpp");
    let header = sources.join("pajamas_executorch.h");
    let stamp = content.join(".shim");
    let library = content.join(file_name(SHIM));
    let state = format!("{} {}", files::sha256_hex(&source)?, files::sha256_hex(&header)?);
    if library.is_file() && files::says(&stamp, &state) {
        return Ok(library);
    }
    let _lock = workspace.lock_cache()?;
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let partial = content.join(".shim.partial");
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra"]);
    command.args(DEFINITIONS.map(|name| format!("-D{name}")));
    command.arg(format!("-DPAJAMAS_ET_VERSION=\"{}\"", PACKAGE.version));
    for folder in INCLUDES {
        // As headers of the system, whose warnings are not ours.
        command.arg("-isystem").arg(content.join("executorch").join(folder));
    }
    command.arg("-o").arg(&partial).arg(&source).arg("-L").arg(content.join("executorch/lib"));
    command.args(LINKED.map(|library| format!("-l{library}")));
    // It lies beside the libraries, and a symbol that they lack must show here, not at a user's.
    command.args(["-Wl,-rpath,$ORIGIN", "-Wl,--no-undefined"]);
    process::run(&mut command).context("could not compile the shim of the plugin executorch")?;
    fs::rename(&partial, &library)?;
    fs::write(&stamp, state)?;
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_are_of_the_version_and_platform_that_they_are_listed_for() {
        for wheel in WHEELS {
            let begin = format!("{}-{}-", PACKAGE.name, PACKAGE.version);
            let path = wheel.file.path;
            assert!(
                path.starts_with(&begin) && path.contains(wheel.os) && path.contains(wheel.arch),
                "{path}"
            );
        }
        assert!(LICENCE[0].contains(PACKAGE.version));
    }
}
