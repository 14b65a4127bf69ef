//! Fetching archives into the cache.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::state::State;
use super::{Catalog, RegistryError};
use crate::files::{FileError, remove_file, rename};
use crate::format::{KEYS_FILE, SNAPSHOT_FILE};
use crate::hash::Hashing;
use crate::lock::Lock;
use crate::release::Release;
use crate::source::{SourceError, Transfer};
use crate::step::{Progress, Step};

/// Tries of one download that bring no further byte, after which it fails.
const TRIES_MAX: u32 = 3;
/// Ends of the names of archives in the cache, and of those that are not complete.
const ENDS: [&str; 2] = [".tar.zst", ".part"];

impl Catalog<'_> {
    /// Fetches the archive of a release into the cache, where the next [`fetch`](Self::fetch) may remove it.
    ///
    /// What an interrupted download left is gone on from, also in another process; a connection that breaks is tried again as
    /// long as something arrives. What is in the cache already is verified again. When the archive is there the publisher's
    /// key is pinned: from then on another one has to be signed over by it.
    ///
    /// # Errors
    /// See [`RegistryError`]. What has arrived stays for the next try, unless it is wrong or the disk is full.
    pub fn fetch(&self, release: &Release, progress: Progress<'_>) -> Result<PathBuf, RegistryError> {
        let config = &self.registry.config;
        self.registry.check_expiry(KEYS_FILE, self.keys.expires)?;
        self.registry.check_expiry(SNAPSHOT_FILE, self.snapshot.expires)?;
        self.check_revoked(release)?;
        let _lock = Lock::take(&config.cache_dir.join(".lock"), config.lock_wait)?;
        let name = release.blob.sha256.to_string();
        let [archive, part] = ENDS.map(|end| config.cache_dir.join(format!("{name}{end}")));
        if is_complete(&archive, release)? {
            touch(&archive)?;
        } else {
            remove_file(&archive)?;
            self.trim(release.blob.len)?;
            self.complete(&part, release, progress)?;
            rename(&part, &archive)?;
        }
        self.pin(release)?;
        progress(Step::Fetched);
        Ok(archive)
    }

    /// Downloads until `part` is the whole archive.
    fn complete(&self, part: &Path, release: &Release, progress: Progress<'_>) -> Result<(), RegistryError> {
        let bytes_total = release.blob.len;
        let mut begun = length(part)?;
        if begun > bytes_total {
            remove_file(part)?;
            begun = 0;
        }
        self.registry.config.system.check_space(&self.registry.config.cache_dir, bytes_total - begun)?;
        loop {
            self.download(part, release, progress)?;
            if is_complete(part, release)? {
                return Ok(());
            }
            remove_file(part)?;
            if begun == 0 {
                return Err(RegistryError::Blob { title: release.title(), sha256: release.blob.sha256 });
            }
            // What was left from another time was wrong.
            begun = 0;
        }
    }

    /// Downloads what `part` lacks.
    fn download(&self, part: &Path, release: &Release, progress: Progress<'_>) -> Result<(), RegistryError> {
        let path = self.config.blob(&release.blob.sha256);
        let bytes_total = release.blob.len;
        let write = || FileError::on("write", part);
        let mut file = OpenOptions::new().append(true).create(true).open(part).map_err(write())?;
        let mut tries = 0;
        loop {
            let offset = length(part)?;
            let mut received = |bytes| progress(Step::Received { bytes, bytes_total });
            let transfer = Transfer { len: bytes_total, offset, into: &mut file, progress: &mut received };
            // A range that begins at the end is none.
            let result = if offset == bytes_total && offset > 0 {
                Ok(())
            } else {
                self.registry.source.download(&path, transfer)
            };
            let error = match result {
                Ok(()) => return Ok(file.sync_all().map_err(write())?),
                Err(error) => error,
            };
            tries = if length(part)? > offset { 0 } else { tries + 1 };
            if error.is_resumable() && tries < TRIES_MAX {
                tracing::warn!(error = %error, "the download is tried again");
                continue;
            }
            // What is too long is wrong from the beginning, and a full disk should get its space back.
            if matches!(error, SourceError::TooLong { .. } | SourceError::Store { .. }) {
                remove_file(part)?;
            }
            return Err(error.into());
        }
    }

    /// Removes the oldest archives until there is room for `bytes` more.
    fn trim(&self, bytes: u64) -> Result<(), RegistryError> {
        let config = &self.registry.config;
        let read = || FileError::on("read", &config.cache_dir);
        let mut archives: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&config.cache_dir).map_err(read())? {
            let path = entry.map_err(read())?.path();
            let ours = path.file_name().and_then(|name| name.to_str());
            let ours = ours.is_some_and(|name| ENDS.iter().any(|end| name.ends_with(end)));
            if let Some(found) = fs::symlink_metadata(&path).ok().filter(|found| ours && found.is_file()) {
                archives.push((found.modified().map_err(read())?, found.len(), path));
            }
        }
        archives.sort();
        let mut total = archives.iter().fold(bytes, |total, (_, len, _)| total.saturating_add(*len));
        for (_, len, path) in archives {
            if total <= config.cache_bytes_max {
                break;
            }
            remove_file(&path)?;
            total = total.saturating_sub(len);
        }
        Ok(())
    }

    /// Remembers the publisher's key, unless another process has come to trust another one meanwhile.
    fn pin(&self, release: &Release) -> Result<(), RegistryError> {
        let config = &self.registry.config;
        let _lock = self.registry.lock()?;
        let mut state = State::load(config)?;
        let publisher = &release.manifest.publisher;
        self.publisher_key(publisher, &state)?;
        if state.publishers.get(publisher) != Some(&release.key) {
            state.publishers.insert(publisher.clone(), release.key.clone());
            state.save(config)?;
        }
        Ok(())
    }
}

fn touch(path: &Path) -> Result<(), FileError> {
    let file = File::options().append(true).open(path);
    file.and_then(|file| file.set_modified(SystemTime::now())).map_err(FileError::on("write", path))
}

/// A file's length; 0 if there is none.
fn length(path: &Path) -> Result<u64, FileError> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(FileError::on("read", path)(error)),
    }
}

/// Whether the file is there and is the release's archive.
fn is_complete(path: &Path, release: &Release) -> Result<bool, FileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found.map_err(FileError::on("open", path))?,
    };
    let mut reader = Hashing::new(file);
    io::copy(&mut reader, &mut io::sink()).map_err(FileError::on("read", path))?;
    let (_, sha256, len) = reader.finish();
    Ok((sha256, len) == (release.blob.sha256, release.blob.len))
}
