//! Compiled models that are kept for the next load. CoreML compiles a package into a `.mlmodelc`, which may take seconds to
//! minutes, and a compiled model is good for the system that made it.
//!
//! An entry is a folder named by the hash of the package's files and the version of the system. It is made under another
//! name and renamed, so that whoever finds it finds all of it. The entry that was used longest ago goes when all together
//! take more than is allowed, or when there are more than [`ENTRIES_MAX`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pajamas_plugin_api::Error;
use sha2::{Digest, Sha256};

use crate::package::Package;

/// Most entries.
const ENTRIES_MAX: usize = 64;
/// Ends the names of entries.
const EXTENSION: &str = "mlmodelc";
/// Bytes that are hashed at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The compiled models of one folder.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    bytes_max: u64,
}

/// A compiled model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its folder.
    pub(crate) path: PathBuf,
    /// It was there already.
    pub(crate) is_old: bool,
}

impl Cache {
    /// The cache in `folder`, which is made when it is first needed.
    pub(crate) fn new(folder: &Path, bytes_max: u64) -> Self {
        Self { folder: folder.join("coreml"), bytes_max }
    }

    /// The compiled model of `package` for a system of this version. `compile` makes it and tells where; from there it is
    /// moved here.
    ///
    /// # Errors
    /// The package cannot be read, the folder cannot be written, or `compile` failed.
    pub(crate) fn get(
        &self,
        package: &Path,
        system: &str,
        compile: impl FnOnce() -> Result<PathBuf, Error>,
    ) -> Result<Entry, Error> {
        let name = format!("{}-{}.{EXTENSION}", hash(package)?, file_name(system));
        let path = self.folder.join(name);
        if path.is_dir() {
            touch(&path);
            return Ok(Entry { path, is_old: true });
        }
        let failed = |path: &Path, error: &std::io::Error| {
            Error::internal(format!("cannot keep the compiled model in {}: {error}", path.display()))
        };
        fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, &error))?;
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        remove(&draft);
        let made = compile()?;
        move_folder(&made, &draft).map_err(|error| failed(&draft, &error))?;
        match fs::rename(&draft, &path) {
            Ok(()) => {}
            // Another worker was faster.
            Err(_) if path.is_dir() => remove(&draft),
            Err(error) => return Err(failed(&path, &error)),
        }
        touch(&path);
        self.trim(&path);
        Ok(Entry { path, is_old: false })
    }

    /// Forgets an entry, which turned out not to load.
    pub(crate) fn forget(&self, entry: &Entry) {
        remove(&entry.path);
    }

    /// Removes what is too much, but not `newest`.
    fn trim(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut others = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path != newest && path.extension().is_some_and(|extension| extension == EXTENSION) {
                others.push((used(&path), bytes(&path), path));
            }
        }
        others.sort();
        let mut total = others.iter().fold(bytes(newest), |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        let mut count = others.len() + 1;
        for (_, bytes, path) in others {
            if total <= self.bytes_max && count <= ENTRIES_MAX {
                break;
            }
            tracing::debug!("{} makes room for newer compiled models", path.display());
            remove(&path);
            total = total.saturating_sub(bytes);
            count -= 1;
        }
    }
}

/// The hash of a package: of the names, lengths and contents of its files.
fn hash(package: &Path) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    for (name, file) in Package::files(package)? {
        let failed =
            |error: std::io::Error| Error::bad_model(format!("cannot read {}: {error}", file.display()));
        let mut source = File::open(&file).map_err(failed)?;
        let name = name.as_os_str().as_encoded_bytes();
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(source.metadata().map_err(failed)?.len().to_le_bytes());
        loop {
            match source.read(&mut chunk).map_err(failed)? {
                0 => break,
                len => hasher.update(chunk.get(..len).unwrap_or_default()),
            }
        }
    }
    let digest = hasher.finalize();
    Ok(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// A version as part of a file's name.
fn file_name(version: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
    version.chars().take(64).map(kept).collect()
}

/// The file beside an entry whose time says when it was used last; the entry itself belongs to CoreML.
fn stamp(entry: &Path) -> PathBuf {
    entry.with_extension("used")
}

fn touch(entry: &Path) {
    // An entry without a stamp only counts as older.
    let _ = fs::write(stamp(entry), b"");
}

fn used(entry: &Path) -> SystemTime {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    modified(&stamp(entry)).or_else(|_| modified(entry)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn bytes(entry: &Path) -> u64 {
    let files = Package::files(entry).unwrap_or_default();
    files.values().filter_map(|file| Some(fs::metadata(file).ok()?.len())).fold(0, u64::saturating_add)
}

/// Moves a folder, which may lie on another file system.
fn move_folder(from: &Path, to: &Path) -> io::Result<()> {
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for (inside, file) in Package::files(from).map_err(io::Error::other)? {
        let target = to.join(inside);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(file, target)?;
    }
    remove(from);
    Ok(())
}

/// What cannot be removed is overwritten or skipped by the next load.
fn remove(entry: &Path) {
    if entry.is_dir()
        && let Err(error) = fs::remove_dir_all(entry)
    {
        tracing::warn!("{} cannot be removed: {error}", entry.display());
    }
    let _ = fs::remove_file(stamp(entry));
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
