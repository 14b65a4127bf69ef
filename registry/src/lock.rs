//! A lock between processes.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::files::FileError;

/// How often a lock that another process holds is tried, in milliseconds.
const RETRY_MS: u64 = 50;
/// Longest description of a holder that is read, in bytes.
const HOLDER_BYTES_MAX: u64 = 256;

/// Why a lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{path} has been locked for {waited_s} s by {holder}: wait until it is done, or end it if it hangs"
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who holds it: its process id and program, as it wrote them into the file.
        holder: String,
        /// How long was waited, in seconds.
        waited_s: u64,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A held lock; the system frees it when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`, creating the file if needed, and waits at most `wait` for another process.
    pub(crate) fn take(path: &Path, wait: Duration) -> Result<Self, LockError> {
        let open = FileError::on("lock", path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(open)?;
        let start = Instant::now();
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK && error != Errno::INTR {
                return Err(FileError::on("lock", path)(error.into()).into());
            }
            if start.elapsed() >= wait {
                let waited_s = wait.as_secs();
                return Err(LockError::Held { path: path.to_owned(), holder: holder(&mut file), waited_s });
            }
            std::thread::sleep(Duration::from_millis(RETRY_MS).min(wait));
        }
        let program = std::env::current_exe().ok();
        let program = program.as_deref().and_then(Path::file_name).unwrap_or_default().display();
        let text = format!("process {} ({program})\n", std::process::id());
        // Only for the message of others: the lock holds without it, also on a full disk.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = Vec::new();
    let _ = file.take(HOLDER_BYTES_MAX).read_to_end(&mut text);
    match String::from_utf8_lossy(&text).trim() {
        "" => "another process".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder_and_a_dropped_one_is_free() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(".lock");
        let held = Lock::take(&path, Duration::ZERO).unwrap();
        let error = Lock::take(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        Lock::take(&path, Duration::ZERO).unwrap();
    }
}
