//! Files that are read within bounds and replaced in one step.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Beginning of the names of files that replace others; what a crash leaves behind is swept by it.
pub(crate) const DRAFT_PREFIX: &str = ".draft-";
/// Bytes that are moved at once.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
/// Mode of files that are written: the owner writes, everybody reads.
const FILE_MODE: u32 = 0o644;

/// A file or folder that the system would not read, write or move.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct FileError {
    /// What was tried: `read`, `write`, …
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

/// Reads a file of at most `bytes_max` bytes; a longer one is an error.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(FileError::on("open", path))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(FileError::on("read", path))?;
    if bytes.len() as u64 > bytes_max {
        let problem =
            io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes"));
        return Err(FileError::on("read", path)(problem));
    }
    Ok(bytes)
}

/// [`read_bounded`], where a file that is not there is `None`.
pub(crate) fn read_if_there(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, FileError> {
    match read_bounded(path, bytes_max) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Replaces the file at `path` so that at any moment, also after a power cut, it has the old content or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || FileError::on("write", path);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut draft = tempfile::Builder::new().prefix(DRAFT_PREFIX).tempfile_in(folder).map_err(write())?;
    draft.write_all(bytes).map_err(write())?;
    draft.as_file().set_permissions(fs::Permissions::from_mode(FILE_MODE)).map_err(write())?;
    draft.as_file().sync_all().map_err(write())?;
    draft.persist(path).map_err(|error| write()(error.error))?;
    sync_folder(folder)
}

/// Writes a folder's list of entries to the disk: a rename is lost in a power cut until then.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    let file = File::open(folder).map_err(FileError::on("open", folder))?;
    file.sync_all().map_err(FileError::on("write to disk", folder))
}

/// Renames within one file system, and writes the new parent's list of entries to the disk.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::on("move", from))?;
    to.parent().map_or(Ok(()), sync_folder)
}

/// Makes a folder and what is missing above it.
pub(crate) fn make_folder(folder: &Path) -> Result<(), FileError> {
    fs::create_dir_all(folder).map_err(FileError::on("create", folder))
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::on("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder and all that is in it, without following links; one that is not there is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::on("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Bytes that a user without privileges may still write to the file system that holds `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_and_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        assert!(read_if_there(&path, 4).unwrap().is_none());
        replace(&path, b"one").unwrap();
        replace(&path, b"four").unwrap();
        assert_eq!(read_bounded(&path, 4).unwrap(), b"four");
        let error = read_bounded(&path, 3).unwrap_err();
        assert!(error.source.to_string().contains("more than 3 bytes"), "{error:?}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
        remove_folder(&path).unwrap();
        assert!(free_bytes(temp.path()).unwrap() > 0);
    }
}
