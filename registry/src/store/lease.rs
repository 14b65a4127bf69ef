//! Versions that are in use: a process that starts workers from a version's folder needs it until it ends, however many
//! newer ones are installed meanwhile.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files::FileError;

/// Keeps a version's folder from being [swept](super::LockedStore::sweep) until it is dropped or the process ends, however
/// it ends.
#[derive(Debug)]
pub struct Lease {
    /// A shared lock on the folder itself, so that nothing has to be written there.
    _folder: File,
}

impl Lease {
    /// For the version in the folder `dir`.
    ///
    /// # Errors
    /// The folder is not there, or its file system has no locks.
    pub fn take(dir: &Path) -> Result<Self, FileError> {
        let folder = File::open(dir).map_err(FileError::on("open", dir))?;
        let lock = flock(&folder, FlockOperation::NonBlockingLockShared);
        lock.map_err(|error| FileError::on("lock", dir)(error.into()))?;
        Ok(Self { _folder: folder })
    }
}

/// Whether a process has a [`Lease`] for the folder. Where the file system has no locks nobody has one.
pub(super) fn is_leased(dir: &Path) -> bool {
    let Ok(folder) = File::open(dir) else { return false };
    flock(&folder, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
}
