//! Models from a hub: `hf:ORG/REPO[:FILE][@REVISION]`.
//!
//! Two questions of the hub's interface are enough: which commit a revision is (`/api/models/…/revision/…`) and which files it has
//! (`/api/models/…/tree/…`, for each folder); files come from `/…/resolve/COMMIT/…`. Sizes and hashes are the tree's: SHA-256 for large files, and
//! git's own SHA-1 for the others. A file is complete under its own name, or in part beside it with `.part` added, from where the
//! next pull goes on. Everything here blocks.

mod choose;
mod error;
mod listing;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pajamas_registry::System;
use pajamas_registry::source::{HttpOptions, HttpSource, Source, SourceError, Transfer};
use rustix::fs::{FlockOperation, flock};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

pub use error::PullError;
pub use listing::{HubFile, Listing, ModelRef};

use listing::Checksum;

/// The hub, unless `HF_ENDPOINT` names another one that speaks its protocol.
pub const ENDPOINT: &str = "https://huggingface.co";
/// Tries of one file that bring no further byte, after which it fails.
const TRIES_MAX: u32 = 5;
/// Bytes that stay free on the disk.
const RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// A hub.
#[derive(Debug)]
pub struct Hub {
    source: HttpSource,
}

/// Told what is being done: the file, and how many of its bytes there are.
pub type Progress<'a> = &'a mut dyn FnMut(&HubFile, u64);

impl Hub {
    /// The hub at `endpoint`; `token` opens what is not public.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self, PullError> {
        let options = HttpOptions { bearer: token, ..HttpOptions::default() };
        Ok(Self { source: HttpSource::new(endpoint, options)? })
    }

    /// What a reference means now: a commit, and those of its files that make the model.
    ///
    /// # Errors
    /// There is no such model, revision or file, it is not public, or it is not said which of several files is meant.
    pub fn find(&self, wanted: &ModelRef) -> Result<Listing, PullError> {
        listing::find(&self.source, wanted)
    }

    /// Fetches the files into `dir`, those that are there already excepted; returns the file or folder that is the model.
    ///
    /// # Errors
    /// The disk is too full, which is checked first, or a file cannot be fetched or is not the one that the hub lists. What has
    /// arrived stays, and the next pull goes on from there.
    pub fn fetch(&self, listing: &Listing, dir: &Path, progress: Progress<'_>) -> Result<PathBuf, PullError> {
        let folder = if listing.is_folder() { dir.join(listing.model.repository()) } else { dir.to_owned() };
        fs::create_dir_all(&folder).map_err(|source| PullError::File { path: folder.clone(), source })?;
        let missing: u64 = listing.files.iter().map(|file| missing_bytes(&folder, file)).sum();
        let free = (System::default().free_bytes)(&folder)
            .map_err(|source| PullError::File { path: folder.clone(), source })?;
        if missing.saturating_add(RESERVE_BYTES) > free {
            return Err(PullError::Full { path: folder, bytes_needed: missing, bytes_free: free });
        }
        for file in &listing.files {
            self.fetch_file(listing, file, &folder, progress)?;
        }
        Ok(if listing.is_folder() { folder } else { folder.join(listing.files[0].local_path()) })
    }

    fn fetch_file(
        &self,
        listing: &Listing,
        file: &HubFile,
        folder: &Path,
        progress: Progress<'_>,
    ) -> Result<(), PullError> {
        let path = folder.join(file.local_path());
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| PullError::File { path, source }
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        if path.exists() {
            // Fine-tuned models have the sizes of the ones that they were made from, so only the hash tells them apart.
            let found = fs::metadata(&path).map_err(failed(&path))?.len();
            if found == file.len && is_right(&path, file).map_err(failed(&path))? {
                return Ok(());
            }
            return Err(PullError::Occupied { path });
        }
        let part = part_of(&path);
        let mut written = OpenOptions::new().create(true).append(true).open(&part).map_err(failed(&part))?;
        flock(&written, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| PullError::Busy { path: part.clone() })?;
        self.complete(listing, file, &mut written, progress)?;
        if !is_right(&part, file).map_err(failed(&part))? {
            fs::remove_file(&part).map_err(failed(&part))?;
            return Err(PullError::Content { path: file.path.clone(), model: listing.model.to_string() });
        }
        written.sync_all().map_err(failed(&part))?;
        fs::rename(&part, &path).map_err(failed(&path))
    }

    /// Downloads what is missing at the end of a file, over connections that may break.
    fn complete(
        &self,
        listing: &Listing,
        file: &HubFile,
        written: &mut File,
        progress: Progress<'_>,
    ) -> Result<(), PullError> {
        let url = format!("{}/resolve/{}/{}", listing.model.repository(), listing.commit, file.path);
        let length = |written: &File| written.metadata().map_or(0, |metadata| metadata.len());
        let mut tries = 0;
        loop {
            let offset = length(written);
            if offset > file.len {
                written
                    .set_len(0)
                    .map_err(|source| PullError::File { path: file.path.clone().into(), source })?;
                continue;
            }
            if offset == file.len {
                return Ok(());
            }
            let mut received = |bytes| progress(file, bytes);
            let transfer = Transfer { len: file.len, offset, into: written, progress: &mut received };
            match self.source.download(&url, transfer) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tries = if length(written) > offset { 0 } else { tries + 1 };
                    if !error.is_resumable() || tries >= TRIES_MAX {
                        return Err(error.into());
                    }
                    tracing::warn!("the download is tried again: {}", crate::error_chain(&error));
                }
            }
        }
    }
}

/// Where a file is while it is not complete.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn missing_bytes(folder: &Path, file: &HubFile) -> u64 {
    let path = folder.join(file.local_path());
    let there = fs::metadata(&path).or_else(|_| fs::metadata(part_of(&path))).map_or(0, |found| found.len());
    file.len.saturating_sub(there)
}

/// Whether the file has the content that the hub lists.
fn is_right(path: &Path, file: &HubFile) -> io::Result<bool> {
    let mut reader = File::open(path)?;
    let hash = match &file.checksum {
        Checksum::Sha256(expected) => (digest(&mut reader, Sha256::new())?, expected),
        Checksum::Git(expected) => {
            // As git hashes a file: with its kind and length before it.
            let hash = Sha1::new().chain_update(format!("blob {}\0", file.len));
            (digest(&mut reader, hash)?, expected)
        }
    };
    Ok(hash.0 == *hash.1)
}

fn digest<D: sha2::Digest>(reader: &mut impl Read, mut hash: D) -> io::Result<String> {
    let mut piece = vec![0; 1024 * 1024];
    loop {
        match reader.read(&mut piece)? {
            0 => break,
            count => hash.update(&piece[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

impl From<SourceError> for PullError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Status { status: 401 | 403, path, .. } => Self::Private { path },
            error => Self::Source(error),
        }
    }
}
