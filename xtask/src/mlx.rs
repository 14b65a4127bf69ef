//! MLX for the plugin `mlx`: the library and headers out of the Python package that its makers publish, and the sources
//! of its C interface out of the crate that carries them.

use std::env::consts::{ARCH, OS};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::files;
use crate::models::{File, pinned};
use crate::process;
use crate::python::{Package, Venv};
use crate::setup::{self, Tools, cargo, cargo_home};
use crate::workspace::Workspace;

/// The crate whose sources of mlx-c are compiled; its own version of MLX must be that of the wheels.
const CRATE: Package = Package { name: "mlx-sys", version: "0.7.0" };
/// Records which wheel a folder is from; written last.
const STAMP: &str = ".verified";
/// What a plugin needs of the wheel to run.
const RUN_TIME_FOLDERS: [&str; 2] = ["mlx/lib", "mlx_cpu.libs"];

/// The wheel of one platform.
struct Wheel {
    /// As in [`std::env::consts`].
    os: &'static str,
    arch: &'static str,
    package: Package,
    file: File,
}

const CPU: Package = Package { name: "mlx-cpu", version: "0.32.2" };
const METAL: Package = Package { name: "mlx-metal", version: "0.32.2" };

const WHEELS: &[Wheel] = &[
    Wheel {
        os: "linux",
        arch: "x86_64",
        package: CPU,
        file: pinned(
            "mlx_cpu-0.32.2-py3-none-manylinux_2_35_x86_64.whl",
            10_388_414,
            "fc5d31b90fc4f457b2f9614ed45651a567d22a6a11a03d114a90a4e10bdd8878",
        ),
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        package: CPU,
        file: pinned(
            "mlx_cpu-0.32.2-py3-none-manylinux_2_35_aarch64.whl",
            8_822_016,
            "d0f94625588b51a878786dd51cec5617894ce586cf3c94645ce1b64e24c27c0b",
        ),
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        package: METAL,
        file: pinned(
            "mlx_metal-0.32.2-py3-none-macosx_14_0_arm64.whl",
            42_516_623,
            "3825fff379dbc107dd3413e564a06caeaa24819910ec49c0439e454c06a1b9b8",
        ),
    },
];

/// The oldest glibc that the wheels for Linux run on.
const GLIBC_MIN: (u32, u32) = (2, 35);

/// Makes sure that what the build needs is there, and returns the variables that say where. `None` where there is no
/// MLX: on other platforms, and on Linux with an older glibc.
pub(crate) fn ensure(workspace: &Workspace, venv: &Venv) -> Result<Option<[(&'static str, OsString); 2]>> {
    let Some(wheel) = wheel() else { return Ok(None) };
    let folder = fetch(workspace, venv, wheel)
        .with_context(|| format!("could not fetch {}", wheel.package.requirement()))?;
    let sources = c_sources(workspace)?;
    Ok(Some([("MLX_DIR", folder.join("mlx").into()), ("MLX_C_DIR", sources.into())]))
}

fn wheel() -> Option<&'static Wheel> {
    let is_old = OS == "linux" && glibc().is_none_or(|version| version < GLIBC_MIN);
    WHEELS.iter().find(|wheel| wheel.os == OS && wheel.arch == ARCH && !is_old)
}

fn glibc() -> Option<(u32, u32)> {
    let version = setup::glibc()?;
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Copies what the plugin needs to run into its folder `lib`, in the wheel's own shape: its libraries find each other
/// by their relative places.
pub(crate) fn place(workspace: &Workspace, _tools: &Tools, lib: &Path) -> Result<()> {
    let Some(wheel) = wheel() else { return Ok(()) };
    if is_complete(&lib.join("mlx"), wheel) {
        return Ok(());
    }
    for folder in RUN_TIME_FOLDERS {
        let from = workspace.mlx().join(folder);
        if !from.is_dir() {
            continue;
        }
        files::remove_folder(&lib.join(folder))?;
        for entry in fs::read_dir(&from).with_context(|| format!("could not read {}", from.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files::install(&entry.path(), &lib.join(folder).join(entry.file_name()))?;
            }
        }
    }
    fs::write(lib.join("mlx").join(STAMP), wheel.file.sha256)?;
    Ok(())
}

fn is_complete(folder: &Path, wheel: &Wheel) -> bool {
    files::says(&folder.join(STAMP), wheel.file.sha256)
}

/// Makes sure that the verified content of the wheel is in the cache folder. Returns its place there.
fn fetch(workspace: &Workspace, venv: &Venv, wheel: &Wheel) -> Result<PathBuf> {
    let cached = workspace.mlx();
    if is_complete(&cached, wheel) {
        return Ok(cached);
    }
    let _lock = workspace.lock_cache()?;
    if is_complete(&cached, wheel) {
        return Ok(cached);
    }
    files::remove_folder(&cached)?;
    venv.unpack(wheel.package, &wheel.file, &cached)?;
    fs::write(cached.join(STAMP), wheel.file.sha256)?;
    Ok(cached)
}

/// The sources of mlx-c inside the published crate. That crate is not built here (its place is taken, see the top
/// manifest), so cargo has to be asked for it by a manifest of its own.
fn c_sources(workspace: &Workspace) -> Result<PathBuf> {
    let registry = cargo_home()?.join("registry/src");
    if let Some(sources) = find_c_sources(&registry) {
        return Ok(sources);
    }
    eprintln!("setup: downloading the sources of {} {}", CRATE.name, CRATE.version);
    let scratch = workspace.mlx().with_file_name("mlx-sources");
    fs::create_dir_all(&scratch).with_context(|| format!("could not create {}", scratch.display()))?;
    let manifest = scratch.join("Cargo.toml");
    let text = format!(
        "[package]\nname = \"sources\"\nedition = \"2024\"\n\n[lib]\npath = \"lib.rs\"\n\n[dependencies]\n{} = \
         {{ version = \"={}\", default-features = false }}\n\n[workspace]\n",
        CRATE.name, CRATE.version
    );
    fs::write(&manifest, text)?;
    fs::write(scratch.join("lib.rs"), "")?;
    process::run(cargo(workspace.root()).arg("fetch").arg("--quiet").arg("--manifest-path").arg(&manifest))?;
    files::remove_folder(&scratch)?;
    match find_c_sources(&registry) {
        Some(sources) => Ok(sources),
        None => bail!(
            "{} does not hold {} {} after it was fetched",
            registry.display(),
            CRATE.name,
            CRATE.version
        ),
    }
}

/// Cargo unpacks crates into a folder for each registry.
fn find_c_sources(registry: &Path) -> Option<PathBuf> {
    let name = format!("{}-{}/src/mlx-c", CRATE.name, CRATE.version);
    let folders = fs::read_dir(registry).ok()?;
    let mut sources = folders.filter_map(|entry| Some(entry.ok()?.path().join(&name)));
    sources.find(|sources| sources.join("mlx/c/mlx.h").is_file())
}
