//! espeak-ng's library and data for the plugins that speak, taken out of a Python package that carries both.
//!
//! They are under GPL-3.0-or-later: what is fetched here stays on this machine and goes into no package of this project.
//! Users install their system's espeak-ng instead; this makes tests independent of what a system has.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files;
use crate::models::{File, pinned};
use crate::python::Package;
use crate::setup::Tools;
use crate::workspace::Workspace;

const PACKAGE: Package = Package { name: "espeakng-loader", version: "0.2.4" };
/// The folder in the wheel.
const CONTENT: &str = "espeakng_loader";
/// What is used of it: the library under the name that a system has, and its data.
const LIBRARY: &str = "libespeak-ng.so.1";
const DATA: &str = "espeak-ng-data";
/// Records which wheel a folder is from; written last.
const STAMP: &str = ".verified";

/// The wheel of one platform.
struct Wheel {
    /// As in [`std::env::consts`].
    arch: &'static str,
    file: File,
}

/// For Linux: elsewhere no plugin uses espeak-ng yet.
const WHEELS: &[Wheel] = &[
    Wheel {
        arch: "x86_64",
        file: pinned(
            "espeakng_loader-0.2.4-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            10_078_484,
            "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
        ),
    },
    Wheel {
        arch: "aarch64",
        file: pinned(
            "espeakng_loader-0.2.4-py3-none-manylinux_2_28_aarch64.whl",
            10_037_736,
            "d1e798141b46a050cdb75fcf3c17db969bb2c40394f3f4a48910655d547508b9",
        ),
    },
];

/// Makes sure that the library and its data are in the folder `espeak-ng` of a plugin's folder `lib`. On a platform
/// without a wheel it does nothing: the plugin finds the system's, or tells its user what is missing.
pub(crate) fn place(workspace: &Workspace, tools: &Tools, lib: &Path) -> Result<()> {
    let Some(wheel) = WHEELS.iter().find(|wheel| OS == "linux" && wheel.arch == ARCH) else {
        return Ok(());
    };
    let folder = lib.join("espeak-ng");
    if is_complete(&folder, wheel) {
        return Ok(());
    }
    let _lock = workspace.lock_cache()?;
    let cached = fetch(workspace, tools, wheel)
        .with_context(|| format!("could not fetch {}", PACKAGE.requirement()))?;
    copy(&cached, &folder, wheel)
}

/// Makes sure that the verified content of the wheel is in the cache folder. Returns its place there.
fn fetch(workspace: &Workspace, tools: &Tools, wheel: &Wheel) -> Result<PathBuf> {
    let cached = workspace.espeak();
    if is_complete(&cached, wheel) {
        return Ok(cached);
    }
    files::remove_folder(&cached)?;
    let content = cached.join("wheel");
    tools.venv().unpack(PACKAGE, &wheel.file, &content)?;
    for name in [LIBRARY, DATA] {
        fs::rename(content.join(CONTENT).join(name), cached.join(name))?;
    }
    files::remove_folder(&content)?;
    fs::write(cached.join(STAMP), wheel.file.sha256)?;
    Ok(cached)
}

/// Copies instead of linking: a confined worker may read its plugin's folder only, wherever links in it lead.
fn copy(cached: &Path, folder: &Path, wheel: &Wheel) -> Result<()> {
    files::remove_folder(folder)?;
    files::install(&cached.join(LIBRARY), &folder.join(LIBRARY))?;
    let mut open = vec![PathBuf::from(DATA)];
    while let Some(relative) = open.pop() {
        for entry in fs::read_dir(cached.join(&relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                files::install(&entry.path(), &folder.join(path))?;
            }
        }
    }
    fs::write(folder.join(STAMP), wheel.file.sha256)?;
    Ok(())
}

fn is_complete(folder: &Path, wheel: &Wheel) -> bool {
    files::says(&folder.join(STAMP), wheel.file.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_complete_once_it_has_its_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let (cached, placed) = (folder.path().join("cached"), folder.path().join("placed"));
        fs::create_dir_all(cached.join(DATA).join("lang/gmw")).unwrap();
        fs::write(cached.join(LIBRARY), "library").unwrap();
        fs::write(cached.join(DATA).join("lang/gmw/en"), "voice").unwrap();
        let wheel = &WHEELS[0];
        assert!(!is_complete(&placed, wheel));
        copy(&cached, &placed, wheel).unwrap();
        assert!(is_complete(&placed, wheel));
        assert_eq!(fs::read_to_string(placed.join(DATA).join("lang/gmw/en")).unwrap(), "voice");
        assert!(!is_complete(&placed, &WHEELS[1]), "another wheel");
    }
}
