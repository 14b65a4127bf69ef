//! What is asked of the system, so that tests can answer.

use std::io;
use std::path::Path;

use crate::files::{FileError, free_bytes};
use crate::time::Timestamp;

/// Bytes that stay free: a disk that is full to the last byte breaks more than an installation.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// The clock and the disk.
#[derive(Clone, Copy, Debug)]
pub struct System {
    /// The time by which things expire.
    pub now: fn() -> Timestamp,
    /// Bytes that may be written to the file system that holds a path.
    pub free_bytes: fn(&Path) -> io::Result<u64>,
}

impl Default for System {
    fn default() -> Self {
        Self { now: Timestamp::now, free_bytes }
    }
}

/// Why something was not begun.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// The disk is too full.
    #[error(
        "the disk of {path} is too full: {bytes_needed} bytes are needed and {RESERVE_BYTES} stay free, there are {bytes_free}"
    )]
    Full {
        /// Where it was to be written.
        path: std::path::PathBuf,
        /// Bytes that would be written.
        bytes_needed: u64,
        /// Bytes that are free.
        bytes_free: u64,
    },
    /// The system does not say how full the disk is.
    #[error(transparent)]
    File(#[from] FileError),
}

impl System {
    /// Checks that `bytes_needed` can be written below `path`, before they are.
    pub(crate) fn check_space(&self, path: &Path, bytes_needed: u64) -> Result<(), SpaceError> {
        let bytes_free = (self.free_bytes)(path).map_err(FileError::on("see how much is free in", path))?;
        if bytes_needed.saturating_add(RESERVE_BYTES) <= bytes_free {
            return Ok(());
        }
        Err(SpaceError::Full { path: path.to_owned(), bytes_needed, bytes_free })
    }
}
