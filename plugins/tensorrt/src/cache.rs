//! Engines that were built, kept in the host's cache folder for the next load.
//!
//! A file holds [`MAGIC`], the SHA-256 of the rest, and the engine; it appears whole or not at all, and one that was damaged
//! is removed and built again. The least recently used go when there are too many.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pajamas_plugin_api::{Error, ErrorKind};
use sha2::{Digest, Sha256};

use crate::builder::BuildRequest;
use crate::flavour;

/// Begins every file of the cache; the number changes with the layout.
const MAGIC: &[u8; 8] = b"pjtrt\0\0\x01";
const HASH_BYTES: usize = 32;
/// Most files that are kept, whatever their size.
const FILES_MAX: usize = 256;
/// Name of the folder in the plugin's cache folder.
const FOLDER: &str = "engines";

/// What an engine was built from and for: two loads with the same key get the same engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EngineKey(String);

impl EngineKey {
    /// Reads the model's files, which takes about a second for each gigabyte.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of(request: &BuildRequest<'_>) -> Result<Self, Error> {
        let mut hash = Sha256::new();
        for file in std::iter::once(request.file).chain(request.weight_files.iter().map(PathBuf::as_path)) {
            hash_file(&mut hash, file).map_err(|error| {
                Error::new(ErrorKind::NotFound, format!("{} cannot be read: {error}", file.display()))
            })?;
        }
        let model = hash.finalize_reset();
        hash.update(model);
        let compute = request.compute.map_or_else(|| "any".to_owned(), |compute| compute.to_string());
        // Texts with their lengths, so that no two lists of fields run into the same bytes.
        let options = format!("{:?} {:?}", request.optimization_level, request.workspace_max_mb);
        let ranges = format!("{:?}", request.ranges);
        for field in [flavour::full_version(), compute, options, ranges] {
            hash.update((field.len() as u64).to_le_bytes());
            hash.update(field);
        }
        Ok(Self(hex(&hash.finalize())))
    }

    /// The key in hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn hash_file(hash: &mut Sha256, file: &Path) -> std::io::Result<()> {
    let mut file = File::open(file)?;
    hash.update(file.metadata()?.len().to_le_bytes());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            len => hash.update(buffer.get(..len).unwrap_or_default()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of built engines.
#[derive(Clone, Debug)]
pub struct EngineCache {
    folder: PathBuf,
    bytes_max: u64,
}

impl EngineCache {
    /// The cache in a plugin's cache folder, of at most so many bytes.
    #[must_use]
    pub fn new(cache_dir: &Path, bytes_max: u64) -> Self {
        Self { folder: cache_dir.join(FOLDER), bytes_max }
    }

    fn path(&self, key: &EngineKey, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", key.0))
    }

    /// The engine of a key, if it is there and whole.
    #[must_use]
    pub fn engine(&self, key: &EngineKey) -> Option<Vec<u8>> {
        self.get(&self.path(key, "engine"))
    }

    /// Keeps an engine. A failure costs the next load its time and is only logged.
    pub fn keep_engine(&self, key: &EngineKey, engine: &[u8]) {
        self.keep(&self.path(key, "engine"), engine);
    }

    /// What the library compiled for one kind of GPU when the engine of this key ran there.
    #[cfg(not(feature = "enterprise"))]
    pub(crate) fn kernels(&self, key: &EngineKey, gpu: &str) -> Option<Vec<u8>> {
        self.get(&self.path(key, &kernels_of(gpu)))
    }

    /// Keeps that.
    #[cfg(not(feature = "enterprise"))]
    pub(crate) fn keep_kernels(&self, key: &EngineKey, gpu: &str, kernels: &[u8]) {
        self.keep(&self.path(key, &kernels_of(gpu)), kernels);
    }

    fn get(&self, path: &Path) -> Option<Vec<u8>> {
        let mut content = fs::read(path).ok()?;
        let start = MAGIC.len() + HASH_BYTES;
        let is_whole = content.starts_with(MAGIC)
            && content
                .get(start..)
                .is_some_and(|rest| content.get(MAGIC.len()..start) == Some(Sha256::digest(rest).as_slice()));
        if !is_whole {
            tracing::warn!("{} is damaged and will be made again", path.display());
            let _ = fs::remove_file(path);
            return None;
        }
        content.drain(..start);
        // The time of its last use decides what goes first.
        let used =
            File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = used {
            tracing::debug!("{} keeps its time: {error}", path.display());
        }
        Some(content)
    }

    fn keep(&self, path: &Path, content: &[u8]) {
        if (content.len() + MAGIC.len() + HASH_BYTES) as u64 > self.bytes_max {
            tracing::info!("{} is larger than `cache_max_mb` and is not kept", path.display());
            return;
        }
        let write = || {
            fs::create_dir_all(&self.folder)?;
            // Unfinished files have names of their own and are no engines.
            let mut file = tempfile::Builder::new().prefix(".partial-").tempfile_in(&self.folder)?;
            file.write_all(MAGIC)?;
            file.write_all(&Sha256::digest(content))?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok::<_, std::io::Error>(())
        };
        match write() {
            Ok(()) => self.shrink(path),
            Err(error) => tracing::warn!("{} cannot be kept: {error}", path.display()),
        }
    }

    /// Removes the least recently used files until what is left fits, but never `latest`.
    fn shrink(&self, latest: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, len, _)| len).sum();
        let mut count = files.len();
        for (_, len, path) in files {
            if bytes <= self.bytes_max && count <= FILES_MAX {
                return;
            }
            if path != latest && fs::remove_file(&path).is_ok() {
                tracing::info!("{} was not used for longest and made room", path.display());
                bytes -= len;
                count -= 1;
            }
        }
    }
}

/// The end of the name of a file of kernels; names of GPUs have blanks and dashes.
#[cfg(not(feature = "enterprise"))]
fn kernels_of(gpu: &str) -> String {
    let name: String =
        gpu.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    format!("{name}.kernels")
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
