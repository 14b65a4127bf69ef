//! Small file operations that several commands share: hashing, and replacing a file at once.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Copies a file so that a reader sees either the old or the new one, never half of it.
///
/// An identical target is left alone: a library that a running host has mapped keeps its inode and its time stamp.
pub(crate) fn install(from: &Path, to: &Path) -> Result<()> {
    let describe = || format!("could not copy {} to {}", from.display(), to.display());
    let new = fs::read(from).with_context(describe)?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let (Some(folder), Some(name)) = (to.parent(), to.file_name()) else {
        bail!("{} is not a file path", to.display());
    };
    fs::create_dir_all(folder).with_context(describe)?;
    let partial = folder.join(format!(".{}.partial", name.to_string_lossy()));
    fs::copy(from, &partial).with_context(describe)?;
    fs::rename(&partial, to).with_context(describe)
}

/// Copies a folder with all below it; links become what they lead to.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("could not read {}", from.display()))? {
        let path = entry.with_context(|| format!("could not read {}", from.display()))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            install(&path, &target)?;
        }
    }
    Ok(())
}

/// Removes a folder and all it holds; a missing one is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("could not remove {}", path.display())),
    }
}

/// Whether a file has exactly this text: how a stamp beside what was fetched or made tells of what it was made.
pub(crate) fn says(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == text)
}

/// The SHA-256 of a file, in lowercase hexadecimal.
pub(crate) fn sha256_hex(path: &Path) -> Result<String> {
    let describe = || format!("could not read {}", path.display());
    let mut file = File::open(path).with_context(describe)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = file.read(&mut buffer).with_context(describe)?;
        if len == 0 {
            break;
        }
        hasher.update(&buffer[..len]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_hash_is_the_published_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        // The example of FIPS 180-4.
        assert_eq!(
            sha256_hex(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn installing_replaces_a_different_file_and_keeps_an_identical_one() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("new/to"));
        fs::write(&from, "1").unwrap();
        install(&from, &to).unwrap();
        let written = fs::metadata(&to).unwrap().modified().unwrap();
        install(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), written);
        fs::write(&from, "2").unwrap();
        install(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "2");
        assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1);
    }
}
