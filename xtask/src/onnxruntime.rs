//! ONNX Runtime's library for the plugin `onnx`, taken out of the Python package that its makers publish.
//!
//! The wheels are the only builds that a registry serves with a hash. They fit one version of Python each, but what is
//! taken out of them needs none, so one is pinned for each platform and fetched whatever Python is installed here.

use std::env::consts::{ARCH, DLL_PREFIX, DLL_SUFFIX, OS};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files;
use crate::models::{File, pinned, verify};
use crate::python::Package;
use crate::setup::Tools;
use crate::workspace::Workspace;

/// The version that the crate `ort` of the plugin was written for.
const PACKAGE: Package = Package { name: "onnxruntime", version: "1.31.1" };

/// Records beside the library what was verified, so that the next build reads no 30 MB.
const STAMP: &str = ".onnxruntime.verified";

/// What the licence asks to be passed on with the library.
const NOTICES: [(File, &str); 2] = [
    (
        pinned(
            "onnxruntime/LICENSE",
            1073,
            "2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c",
        ),
        "onnxruntime-LICENSE.txt",
    ),
    (
        pinned(
            "onnxruntime/ThirdPartyNotices.txt",
            338_088,
            "143764b952fdb1a7c69ce653bfba74a7744d6a8a573bfb73e235fba356c83de3",
        ),
        "onnxruntime-ThirdPartyNotices.txt",
    ),
];

/// The wheel of one platform.
struct Wheel {
    /// As in [`std::env::consts`].
    os: &'static str,
    arch: &'static str,
    wheel: File,
    library: File,
}

/// The platforms on which xtask runs and for which there is a wheel.
const WHEELS: &[Wheel] = &[
    Wheel {
        os: "linux",
        arch: "x86_64",
        wheel: pinned(
            "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
            23_760_988,
            "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        ),
        library: pinned(
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            29_352_200,
            "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
        ),
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        wheel: pinned(
            "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl",
            21_420_803,
            "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        ),
        library: pinned(
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            25_265_040,
            "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
        ),
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        wheel: pinned(
            "onnxruntime-1.31.1-cp312-cp312-macosx_14_0_arm64.whl",
            20_882_125,
            "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
        ),
        library: pinned(
            "onnxruntime/capi/libonnxruntime.1.31.1.dylib",
            33_037_336,
            "d586cbe89effc085a09d3341b3cfbd5c322517f9d397aeb20814af21433f2b36",
        ),
    },
];

/// Where the library is in a folder, whether or not it is there.
pub(crate) fn library_in(lib: &Path) -> PathBuf {
    lib.join(format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}"))
}

/// Makes sure that the library is in a plugin's folder `lib`. On a platform without a wheel it says so and goes on: the
/// plugin itself tells its user what is missing.
pub(crate) fn place(workspace: &Workspace, tools: &Tools, lib: &Path) -> Result<()> {
    let Some(wheel) = WHEELS.iter().find(|wheel| wheel.os == OS && wheel.arch == ARCH) else {
        let library = library_in(lib);
        eprintln!("build: {} has no wheel for {OS} on {ARCH}; put {} there", PACKAGE.name, library.display());
        return Ok(());
    };
    if is_complete(lib, wheel) {
        return Ok(());
    }
    let _lock = workspace.lock_cache()?;
    if is_complete(lib, wheel) {
        return Ok(());
    }
    let partial = lib.join(".onnxruntime.partial");
    files::remove_folder(&partial)?;
    let fetched = tools.venv().unpack(PACKAGE, &wheel.wheel, &partial);
    let result = fetched.and_then(|()| install(&partial, lib, wheel));
    files::remove_folder(&partial)?;
    result.with_context(|| format!("could not fetch {}", PACKAGE.requirement()))
}

fn install(content: &Path, lib: &Path, wheel: &Wheel) -> Result<()> {
    let library = content.join(wheel.library.path);
    verify(&library, &wheel.library)?;
    files::install(&library, &library_in(lib))?;
    for (file, name) in &NOTICES {
        verify(&content.join(file.path), file)?;
        files::install(&content.join(file.path), &lib.join(name))?;
    }
    fs::write(lib.join(STAMP), wheel.library.sha256)?;
    Ok(())
}

fn is_complete(lib: &Path, wheel: &Wheel) -> bool {
    let has_stamp = files::says(&lib.join(STAMP), wheel.library.sha256);
    has_stamp && library_in(lib).metadata().is_ok_and(|data| data.len() == wheel.library.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_are_of_the_version_and_platform_that_they_are_listed_for() {
        for wheel in WHEELS {
            let path = wheel.wheel.path;
            let (begin, os) =
                (format!("onnxruntime-{}-", PACKAGE.version), wheel.os.replace("macos", "macosx"));
            assert!(path.starts_with(&begin) && path.contains(&os), "{path}");
            assert!(path.contains(wheel.arch) || path.contains("arm64"), "{path}");
            let library = wheel.library.path;
            assert!(library.contains(PACKAGE.version) && library.contains("onnxruntime"), "{library}");
        }
    }

    #[test]
    fn the_library_is_complete_only_with_its_stamp_and_length() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path();
        let wheel = Wheel { library: File { len: 3, ..WHEELS[0].library }, ..WHEELS[0] };
        assert!(!is_complete(lib, &wheel), "empty");
        fs::write(library_in(lib), "abc").unwrap();
        assert!(!is_complete(lib, &wheel), "no stamp");
        fs::write(lib.join(STAMP), wheel.library.sha256).unwrap();
        assert!(is_complete(lib, &wheel));
        fs::write(library_in(lib), "ab").unwrap();
        assert!(!is_complete(lib, &wheel), "truncated");
    }
}
