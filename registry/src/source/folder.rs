//! A registry in a folder.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Failure, Source, SourceError, Transfer};
use crate::format::is_path;

/// A folder with the registry's files, such as a copy on a stick for a machine without a network.
#[derive(Clone, Debug)]
pub struct FolderSource {
    dir: PathBuf,
    location: String,
}

impl FolderSource {
    /// The registry in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), location: dir.display().to_string() }
    }

    fn open(&self, path: &str) -> Result<File, SourceError> {
        let failure = Failure { location: &self.location, path };
        if !is_path(path) {
            return Err(failure.missing());
        }
        let full = self.dir.join(path);
        // Opening a pipe would wait for somebody who writes to it.
        match full
            .metadata()
            .and_then(|found| if found.is_file() { File::open(&full).map(Some) } else { Ok(None) })
        {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(failure.broken("it is not a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(failure.missing()),
            Err(error) => Err(failure.broken(error)),
        }
    }
}

impl Source for FolderSource {
    fn location(&self) -> &str {
        &self.location
    }

    fn get(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, SourceError> {
        Failure { location: &self.location, path }.read(self.open(path)?, bytes_max)
    }

    fn download(&self, path: &str, transfer: Transfer<'_>) -> Result<(), SourceError> {
        let failure = Failure { location: &self.location, path };
        let mut file = self.open(path)?;
        file.seek(SeekFrom::Start(transfer.offset)).map_err(|error| failure.broken(error))?;
        failure.copy(file, transfer, &mut |_| Ok(()))
    }
}
