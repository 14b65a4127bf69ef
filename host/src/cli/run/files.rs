//! Files that a request reads or an answer is written to.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use super::Error;

/// The largest picture or sound that is read, in bytes; a larger one is refused.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Reads all of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::ReadFile { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 GiB")));
    }
    Ok(bytes)
}

/// Writes a file, in the place of one that was there.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|source| Error::WriteFile { path: path.to_owned(), source })
}

/// The file name's extension in lower case; empty where it has none.
pub(super) fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}
