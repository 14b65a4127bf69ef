//! Where a registry's files come from: a folder or a web server. What comes is not to be trusted.

mod folder;
mod http;
mod pace;

use std::error::Error;
use std::io::{self, Read, Write};

use crate::files::PIECE_BYTES;

pub use folder::FolderSource;
pub use http::{HttpOptions, HttpSource};

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The address cannot be used.
    #[error("\"{location}\" is not the address of a registry: {problem}")]
    Location {
        /// The address.
        location: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// It has no such file.
    #[error("{location} has no {path}")]
    Missing {
        /// The source.
        location: String,
        /// The file.
        path: String,
    },
    /// It answered with an error.
    #[error("{location} answered with status {status} to a request for {path}")]
    Status {
        /// The source.
        location: String,
        /// The file.
        path: String,
        /// The HTTP status.
        status: u16,
    },
    /// It cannot be reached, or the connection broke.
    #[error("cannot fetch {path} from {location}")]
    Broken {
        /// The source.
        location: String,
        /// The file.
        path: String,
        /// The reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file is longer than it may be.
    #[error("{path} of {location} is longer than the {bytes_max} bytes that were expected")]
    TooLong {
        /// The source.
        location: String,
        /// The file.
        path: String,
        /// The length that was expected, or the most that is allowed.
        bytes_max: u64,
    },
    /// The file ended too early.
    #[error("{path} of {location} ended after {bytes} of {bytes_expected} bytes")]
    Truncated {
        /// The source.
        location: String,
        /// The file.
        path: String,
        /// Bytes that there are.
        bytes: u64,
        /// Bytes that were expected.
        bytes_expected: u64,
    },
    /// The file comes too slowly.
    #[error(
        "{location} sends {path} at {rate_bytes_per_s} bytes a second, less than the {rate_min_bytes_per_s} that are asked for"
    )]
    Slow {
        /// The source.
        location: String,
        /// The file.
        path: String,
        /// Bytes a second.
        rate_bytes_per_s: u64,
        /// The least that is accepted.
        rate_min_bytes_per_s: u64,
    },
    /// What arrived could not be stored.
    #[error("cannot store {path}")]
    Store {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl SourceError {
    /// Whether another try may go on where this one ended.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Truncated { .. } | Self::Slow { .. })
    }
}

/// A download: what is wanted, and where it goes.
pub struct Transfer<'a> {
    /// Length of the whole file in bytes; a longer or shorter one is refused.
    pub len: u64,
    /// Bytes that are there already; the others are fetched.
    pub offset: u64,
    /// Takes the bytes from `offset` on.
    pub into: &'a mut dyn Write,
    /// Told after every piece how many bytes of the file there are.
    pub progress: &'a mut dyn FnMut(u64),
}

/// A registry's files. Paths are relative and use `/`.
pub trait Source: Send + Sync {
    /// Its address, for messages.
    fn location(&self) -> &str;

    /// A small file's content; one of more than `bytes_max` bytes is refused.
    ///
    /// # Errors
    /// See [`SourceError`].
    fn get(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, SourceError>;

    /// Fetches a large file. After an error what has been written so far stands, and another call may go on from there.
    ///
    /// # Errors
    /// See [`SourceError`].
    fn download(&self, path: &str, transfer: Transfer<'_>) -> Result<(), SourceError>;
}

/// Makes the errors of one file of one source.
struct Failure<'a> {
    location: &'a str,
    path: &'a str,
}

impl Failure<'_> {
    fn missing(&self) -> SourceError {
        SourceError::Missing { location: self.location.to_owned(), path: self.path.to_owned() }
    }

    fn broken(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> SourceError {
        let (location, path) = (self.location.to_owned(), self.path.to_owned());
        SourceError::Broken { location, path, source: source.into() }
    }

    fn status(&self, status: u16) -> SourceError {
        SourceError::Status { location: self.location.to_owned(), path: self.path.to_owned(), status }
    }

    fn too_long(&self, bytes_max: u64) -> SourceError {
        SourceError::TooLong { location: self.location.to_owned(), path: self.path.to_owned(), bytes_max }
    }

    fn slow(&self, rate_bytes_per_s: u64, rate_min_bytes_per_s: u64) -> SourceError {
        let (location, path) = (self.location.to_owned(), self.path.to_owned());
        SourceError::Slow { location, path, rate_bytes_per_s, rate_min_bytes_per_s }
    }

    /// Reads all of a small file.
    fn read(&self, reader: impl Read, bytes_max: u64) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::new();
        reader.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| self.broken(error))?;
        if bytes.len() as u64 > bytes_max {
            return Err(self.too_long(bytes_max));
        }
        Ok(bytes)
    }

    /// Moves the rest of a large file. `pace` is told of every piece and may give up.
    fn copy(
        &self,
        mut reader: impl Read,
        transfer: Transfer<'_>,
        pace: &mut dyn FnMut(u64) -> Result<(), SourceError>,
    ) -> Result<(), SourceError> {
        let Transfer { len, offset: mut bytes, into, progress } = transfer;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = match reader.read(&mut piece) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(error)),
            };
            if count == 0 {
                break;
            }
            if bytes + count as u64 > len {
                return Err(self.too_long(len));
            }
            let store = |source| SourceError::Store { path: self.path.to_owned(), source };
            into.write_all(&piece[..count]).map_err(store)?;
            bytes += count as u64;
            progress(bytes);
            pace(count as u64)?;
        }
        if bytes == len {
            return Ok(());
        }
        let (location, path) = (self.location.to_owned(), self.path.to_owned());
        Err(SourceError::Truncated { location, path, bytes, bytes_expected: len })
    }
}
