//! A compiler for another platform, WebAssembly or macOS: rustup's own, or one made of Debian's packages.
//!
//! Debian's compiler comes with the sources of the standard library, which cargo compiles for the target. It is unpacked
//! into the cache folder: installing it would replace the compiler of the whole system.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::files;
use crate::process;
use crate::workspace::Workspace;

/// The compiler, its own standard library (for build scripts and macros), and the sources of it.
const PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];
/// What is needed of their dependencies; the names have versions at their ends.
const LIBRARIES: [&str; 2] = ["libstd-rust-web-", "libllvm"];
/// Says that a folder is complete and its compiler new enough; written last.
const STAMP: &str = ".complete";

/// A platform to compile for.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Its name for rustup and cargo.
    pub(crate) name: &'static str,
    /// Programs are made for it, not only checked.
    pub(crate) links: bool,
}

pub(crate) enum Toolchain {
    /// The one that runs this, with the target added.
    Installed,
    /// A compiler that needs the standard library made first.
    Unpacked { target: Target, folder: PathBuf, linker: Option<PathBuf> },
}

impl Toolchain {
    /// Finds or fetches one.
    pub(crate) fn find(workspace: &Workspace, target: Target) -> Result<Option<Self>> {
        let sysroot = PathBuf::from(process::stdout_of(rustc().args(["--print", "sysroot"]))?);
        if sysroot.join("lib/rustlib").join(target.name).join("lib").is_dir() {
            return Ok(Some(Self::Installed));
        }
        let is_debian =
            ["apt-get", "dpkg"].iter().all(|name| process::find_program(name, Path::new("")).is_some());
        let linker = find_linker(&sysroot)?;
        if !is_debian || (target.links && linker.is_none()) {
            return Ok(None);
        }
        let _lock = workspace.lock_cache()?;
        let folder = workspace.hooks().join("rust");
        let is_new = !folder.join(STAMP).is_file();
        if is_new {
            unpack(&folder).with_context(|| {
                format!("could not get a compiler for {} from Debian's packages", target.name)
            })?;
        }
        let unpacked = Self::Unpacked { target, folder: folder.clone(), linker };
        if is_new {
            let (version, needed) = (unpacked.version()?, env!("CARGO_PKG_RUST_VERSION"));
            if !is_at_least(&version, needed) {
                bail!("Debian's packages have {version}, and {needed} is needed; `apt-get update` may help");
            }
            fs::write(folder.join(STAMP), "")
                .with_context(|| format!("could not write into {}", folder.display()))?;
        }
        Self::fetch_crates_of_std(&folder)?;
        Ok(Some(unpacked))
    }

    /// Makes sure that the crates which the standard library needs are in cargo's cache, so that it is built without a network
    /// for any target. Takes milliseconds when they are.
    fn fetch_crates_of_std(folder: &Path) -> Result<()> {
        let manifest = folder.join("usr/lib/rustlib/src/rust/library/Cargo.toml");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["fetch", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
        cargo.env("RUSTC", folder.join("usr/bin/rustc"));
        cargo.env("RUSTC_BOOTSTRAP", "1").env("LD_LIBRARY_PATH", libraries(folder));
        process::run(&mut cargo).context("could not fetch what the standard library needs")
    }

    /// Whether it has clippy too.
    pub(crate) fn has_clippy(&self) -> bool {
        matches!(self, Self::Installed)
    }

    /// Makes a cargo command use it. Comes after the name of cargo's own command.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        if let Self::Unpacked { target, folder, linker } = self {
            cargo.env("RUSTC", folder.join("usr/bin/rustc"));
            // Building the standard library is not stable yet.
            cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_abort");
            if let Some(linker) = linker.as_ref().filter(|_| target.links) {
                let variable = target.name.replace('-', "_").to_uppercase();
                cargo.env(format!("CARGO_TARGET_{variable}_LINKER"), linker);
            }
            cargo.env("LD_LIBRARY_PATH", libraries(folder));
        }
    }

    fn rustc(&self) -> Command {
        match self {
            Self::Installed => rustc(),
            Self::Unpacked { folder, .. } => {
                let mut rustc = Command::new(folder.join("usr/bin/rustc"));
                rustc.env("LD_LIBRARY_PATH", libraries(folder));
                rustc
            }
        }
    }

    /// What the compiler calls itself.
    pub(crate) fn version(&self) -> Result<String> {
        process::stdout_of(self.rustc().arg("--version"))
    }

    /// Where the sources of the standard library are.
    pub(crate) fn sysroot(&self) -> Result<PathBuf> {
        Ok(process::stdout_of(self.rustc().args(["--print", "sysroot"]))?.into())
    }
}

/// Cargo's compiler, not one that `PATH` has first.
fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn libraries(folder: &Path) -> PathBuf {
    folder.join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH))
}

/// The linker that rustup's compiler has for itself can link for every target.
fn find_linker(sysroot: &Path) -> Result<Option<PathBuf>> {
    let host = process::stdout_of(rustc().args(["--print", "host-tuple"]))?;
    let linker = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
    Ok(linker.is_file().then_some(linker))
}

/// Downloads the packages and unpacks them into a folder.
fn unpack(folder: &Path) -> Result<()> {
    let mut packages: Vec<String> = PACKAGES.map(str::to_owned).to_vec();
    let mut next = 0;
    while let Some(package) = packages.get(next) {
        let needed = libraries_of(package)?.into_iter().filter(|name| !packages.contains(name));
        packages.extend(needed.collect::<Vec<_>>());
        next += 1;
    }
    files::remove_folder(folder)?;
    let downloads = folder.join("packages");
    fs::create_dir_all(&downloads).with_context(|| format!("could not create {}", downloads.display()))?;
    eprintln!("downloading a compiler for other platforms: {}", packages.join(", "));
    process::run(Command::new("apt-get").arg("download").args(&packages).current_dir(&downloads))?;
    for entry in fs::read_dir(&downloads)? {
        process::run(Command::new("dpkg").arg("-x").arg(entry?.path()).arg(folder))?;
    }
    files::remove_folder(&downloads)
}

/// Whether a compiler that calls itself `rustc 1.2.3 (…)` is as new as `1.2`.
fn is_at_least(version: &str, needed: &str) -> bool {
    let numbers =
        |text: &str| -> Vec<u32> { text.split('.').map_while(|number| number.parse().ok()).collect() };
    version.split(' ').nth(1).is_some_and(|version| numbers(version) >= numbers(needed))
}

/// Which of [`LIBRARIES`] a package depends on.
fn libraries_of(package: &str) -> Result<Vec<String>> {
    let listed = process::stdout_of(Command::new("apt-cache").args(["depends", package]))?;
    if listed.is_empty() {
        bail!("there is no package {package}; `apt-get update` may help");
    }
    Ok(needed_in(&listed))
}

fn needed_in(listed: &str) -> Vec<String> {
    let names = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.filter(|name| LIBRARIES.iter().any(|prefix| name.starts_with(prefix))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_compilers_own_libraries_are_needed() {
        let listed =
            "libstd-rust-web-1.96\n  Depends: libc6\n |Depends: gcc\n  Depends: libllvm22\n  Depends: <x>\n";
        assert_eq!(needed_in(listed), ["libllvm22"]);
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(is_at_least("rustc 1.96.0 (ac68faa20 2026-05-25)", "1.95"));
        assert!(is_at_least("rustc 1.100.0", "1.95"));
        assert!(!is_at_least("rustc 1.85.0 (4d91de4e4 2025-02-17)", "1.95"));
        assert!(!is_at_least("rustc", "1.95"));
    }
}
