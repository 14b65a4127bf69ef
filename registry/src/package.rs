//! Packages: a plugin's folder as one `.tar.zst` file that lists the hash of everything in it.
//!
//! The archive is a plain ustar archive: `plugin.toml` first, then the files in order of their paths, with no times, no
//! owners and no extensions. The same folder gives the same bytes, as long as `zstd` is the same.

mod pack;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::{MANIFEST_FILE, ManifestError};

pub use pack::{Packed, pack};
pub use unpack::{read_manifest, unpack, verify_folder};

use crate::files::FileError;
use crate::hash::Hash;

/// Name of the file that the store adds to a version's folder; no package may bring one.
pub(crate) const RECORD_FILE: &str = "install.json";
/// Longest path in a package, in bytes.
const PATH_BYTES_MAX: usize = 200;
/// Most bytes of an archive after its last entry: some programs fill up to 10 KiB, with zeros.
const PADDING_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a tar header, and what contents are filled up to.
const BLOCK_BYTES: u64 = 512;

/// What a package may have. One that has more is refused, by what it declares before anything is unpacked, and again while
/// it is unpacked.
#[derive(Clone, Debug)]
pub struct PackageLimits {
    /// Most files and folders.
    pub entries_max: usize,
    /// Most bytes of all files together.
    pub bytes_max: u64,
}

/// Room for an engine with all of CUDA's libraries.
impl Default for PackageLimits {
    fn default() -> Self {
        Self { entries_max: 16_384, bytes_max: 16 * 1024 * 1024 * 1024 }
    }
}

/// Why a package could not be made or taken apart.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest cannot be written as TOML.
    #[error("the manifest cannot be written as TOML")]
    Toml(#[from] toml::ser::Error),
    /// The manifest's list of files is not one of a package.
    #[error("field \"files\" of the manifest {problem}")]
    Files {
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The archive is damaged, or is something else.
    #[error("{archive} cannot be unpacked: it is damaged, or not a package")]
    Archive {
        /// The archive.
        archive: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is in the package that must not be.
    #[error("the package has \"{path}\", which {problem}")]
    Entry {
        /// Its path, in printable characters, cut off after 200.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A file is listed but not there.
    #[error("the package lacks \"{path}\", which its manifest lists")]
    Missing {
        /// Its path.
        path: String,
    },
    /// A file is not the one that the manifest lists.
    #[error(
        "file \"{path}\" is not the one that the manifest lists: expected {len} bytes of SHA-256 {sha256}"
    )]
    Content {
        /// Its path.
        path: String,
        /// The length that is listed.
        len: u64,
        /// The hash that is listed.
        sha256: String,
    },
    /// `plugin.toml` is not the manifest that the index has.
    #[error("the package's {MANIFEST_FILE} is not the manifest that its publisher signed in the index")]
    OtherManifest,
}

impl PackageError {
    fn entry(path: &str, problem: impl Into<String>) -> Self {
        let path = path.chars().take(200).flat_map(char::escape_default).collect();
        Self::Entry { path, problem: problem.into() }
    }
}

/// Checks that a manifest's files can be those of a package, on every system. The reason if they cannot.
pub(crate) fn check_files(manifest: &Manifest, limits: &PackageLimits) -> Result<(), String> {
    let mut paths = Paths::default();
    let mut bytes = 0_u64;
    for file in &manifest.files {
        let path = file.path.to_str().unwrap_or_default();
        paths.add(path).map_err(|problem| format!("has \"{}\", which {problem}", path.escape_default()))?;
        file.sha256.parse::<Hash>().map_err(|error| format!("has a wrong hash for \"{path}\": {error}"))?;
        bytes = bytes.saturating_add(file.len);
    }
    if bytes > limits.bytes_max {
        return Err(format!("has {bytes} bytes in all, at most {} are allowed", limits.bytes_max));
    }
    let entries = paths.files.len() + paths.folders.len();
    if entries > limits.entries_max {
        return Err(format!("has {entries} files and folders, at most {} are allowed", limits.entries_max));
    }
    Ok(())
}

/// The paths of a package: its files, and the folders that they are in.
#[derive(Default)]
struct Paths {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
    /// Every path by its lower-case form: on some systems two that differ in case are one.
    lower: BTreeMap<String, String>,
}

impl Paths {
    /// Adds a file; what is wrong with it if it cannot be added.
    fn add(&mut self, path: &str) -> Result<(), String> {
        check_path(path)?;
        if path.eq_ignore_ascii_case(MANIFEST_FILE) || path.eq_ignore_ascii_case(RECORD_FILE) {
            return Err("has a name that is not for files of a package".to_owned());
        }
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            self.claim(folder)?;
            if self.files.contains(folder) {
                return Err("is inside of something that is a file".to_owned());
            }
            self.folders.insert(folder.to_owned());
        }
        self.claim(path)?;
        if self.folders.contains(path) || !self.files.insert(path.to_owned()) {
            return Err("is there twice".to_owned());
        }
        Ok(())
    }

    fn claim(&mut self, path: &str) -> Result<(), String> {
        let other = self.lower.entry(path.to_ascii_lowercase()).or_insert_with(|| path.to_owned());
        if other == path {
            return Ok(());
        }
        Err(format!("differs from \"{other}\" in capital letters only"))
    }
}

/// Checks a path within a package; what is wrong with it if it may not be one.
fn check_path(path: &str) -> Result<(), String> {
    if !(1..=PATH_BYTES_MAX).contains(&path.len()) {
        return Err(format!("is {} bytes long: 1 to {PATH_BYTES_MAX} are allowed", path.len()));
    }
    if path.starts_with('/') {
        return Err("is an absolute path: one inside the plugin's folder is expected".to_owned());
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(
            "is no plain path inside the plugin's folder: it has empty parts, \".\" or \"..\"".to_owned()
        );
    }
    if !path.bytes().all(|byte| (byte.is_ascii_graphic() || byte == b' ') && !matches!(byte, b'\\' | b':')) {
        return Err(
            "has characters that not every system takes: ASCII without \\ and : is expected".to_owned()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_plain_and_differ_in_more_than_case() {
        let add = |paths: &[&str]| {
            let mut all = Paths::default();
            paths.iter().try_for_each(|path| all.add(path))
        };
        assert_eq!(add(&["lib/a.so", "lib/b.so", "models/x/y.onnx", "lib2"]), Ok(()));
        for (paths, expected) in [
            (&["lib/a", "lib/a"][..], "twice"),
            (&["lib/a", "Lib/b"], "capital"),
            (&["lib/a", "lib/A"], "capital"),
            (&["lib", "lib/a"], "is a file"),
            (&["lib/a", "lib"], "twice"),
            (&["/etc/passwd"], "absolute"),
            (&["../a"], "\"..\""),
            (&["a/../b"], "\"..\""),
            (&["a//b"], "empty parts"),
            (&["a/"], "empty parts"),
            (&["./a"], "\".\""),
            (&["C:x"], "not every system"),
            (&["a\\b"], "not every system"),
            (&["a\nb"], "not every system"),
            (&["ä"], "not every system"),
            (&[""], "0 bytes"),
            (&["Plugin.toml"], "not for files"),
            (&["install.json"], "not for files"),
        ] {
            let problem = add(paths).unwrap_err();
            assert!(problem.contains(expected), "{paths:?}: {problem}");
        }
    }
}
