//! Models on the disk: `.mlpackage` and `.mlmodelc`, which are folders, and `.mlmodel`, which is one file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use pajamas_plugin_api::{Error, ErrorKind};
use serde::Deserialize;

use crate::spec::Spec;

mod compiled;

/// Longest JSON file that is read; a longer one is refused.
const JSON_BYTES_MAX: u64 = 16 << 20;
/// Most files of a package that are looked at, and how deep folders may lie in one another; more is refused.
const FILES_MAX: usize = 10_000;
const DEPTH_MAX: u32 = 16;

/// A model whose parts are all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The file or folder.
    pub path: PathBuf,
    /// What it says about its network.
    pub spec: Spec,
    /// Whether it is a `.mlmodelc`, which CoreML loads as it is; others are compiled first.
    pub is_compiled: bool,
    /// Bytes of all its files.
    pub bytes: u64,
}

impl Package {
    /// Reads what a model says about itself, on any platform.
    ///
    /// # Errors
    /// It is missing, damaged or no CoreML model, or lacks a file that it names; the message names the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        let is_compiled = has_extension(path, "mlmodelc");
        let spec = match (metadata.is_dir(), is_compiled) {
            (false, false) => specification(path)?,
            (false, true) => return Err(bad(path, "is a file, and a .mlmodelc is a folder")),
            (true, true) => compiled::read(&path.join("metadata.json"))?,
            (true, false) => specification(&root_model(path)?)?,
        };
        Ok(Self { path: path.to_owned(), spec, is_compiled, bytes: bytes_of(path)? })
    }

    /// All its files, sorted: their paths within it and their places.
    ///
    /// # Errors
    /// A folder cannot be read, or there are too many files.
    pub(crate) fn files(path: &Path) -> Result<BTreeMap<PathBuf, PathBuf>, Error> {
        let mut files = BTreeMap::new();
        if path.is_dir() {
            collect(path, Path::new(""), 0, &mut files)?;
        } else {
            files.insert(PathBuf::new(), path.to_owned());
        }
        Ok(files)
    }
}

fn bytes_of(path: &Path) -> Result<u64, Error> {
    let mut bytes = 0_u64;
    for file in Package::files(path)?.values() {
        let metadata = fs::metadata(file).map_err(|error| unreadable(file, &error))?;
        bytes = bytes.saturating_add(metadata.len());
    }
    Ok(bytes)
}

/// Links are not followed: a package must not take in what lies elsewhere on this machine.
fn collect(
    root: &Path,
    inside: &Path,
    depth: u32,
    files: &mut BTreeMap<PathBuf, PathBuf>,
) -> Result<(), Error> {
    let folder = root.join(inside);
    for entry in fs::read_dir(&folder).map_err(|error| unreadable(&folder, &error))? {
        let entry = entry.map_err(|error| unreadable(&folder, &error))?;
        let kind = entry.file_type().map_err(|error| unreadable(&entry.path(), &error))?;
        let inside = inside.join(entry.file_name());
        if kind.is_dir() {
            if depth == DEPTH_MAX {
                return Err(bad(root, &format!("has folders more than {DEPTH_MAX} levels deep")));
            }
            collect(root, &inside, depth + 1, files)?;
        } else if kind.is_file() {
            if files.len() == FILES_MAX {
                return Err(bad(root, &format!("has more than {FILES_MAX} files")));
            }
            files.insert(inside, entry.path());
        }
    }
    Ok(())
}

/// A package's table of contents (`Manifest.json`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    item_info_entries: BTreeMap<String, Item>,
    root_model_identifier: String,
}

#[derive(Debug, Deserialize)]
struct Item {
    path: String,
}

/// Where a package has its specification.
fn root_model(package: &Path) -> Result<PathBuf, Error> {
    let file = package.join("Manifest.json");
    let manifest: Manifest = serde_json::from_slice(&read_json(&file)?)
        .map_err(|error| bad(&file, &format!("is damaged: {error}")))?;
    let root = &manifest.root_model_identifier;
    let Some(item) = manifest.item_info_entries.get(root) else {
        return Err(bad(&file, &format!("names the model `{root}`, which is not among its items")));
    };
    for item in manifest.item_info_entries.values() {
        let relative = Path::new(&item.path);
        // A model must not read what lies elsewhere on this machine.
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) || item.path.is_empty() {
            return Err(bad(&file, &format!("names `{}`, which is not inside the package", item.path)));
        }
        let place = package.join("Data").join(relative);
        if !place.exists() {
            let missing = format!("{} names {}, which is not there", file.display(), place.display());
            return Err(Error::new(ErrorKind::NotFound, missing));
        }
    }
    Ok(package.join("Data").join(&item.path))
}

fn specification(file: &Path) -> Result<Spec, Error> {
    let open = || {
        let source = File::open(file)?;
        let len = source.metadata()?.len();
        Ok::<_, std::io::Error>((source, len))
    };
    let (source, len) = open().map_err(|error| unreadable(file, &error))?;
    Spec::read(source, len).map_err(|error| bad(file, &error.to_string()))
}

fn read_json(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let source = File::open(file).map_err(|error| unreadable(file, &error))?;
    source.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(file, &error))?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        return Err(bad(file, &format!("is longer than {JSON_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::BadModel,
    };
    Error::new(kind, format!("cannot read {}: {error}", path.display()))
}

fn bad(path: &Path, reason: &str) -> Error {
    Error::bad_model(format!("{} {reason}", path.display()))
}

#[cfg(test)]
#[path = "package/tests.rs"]
mod tests;
