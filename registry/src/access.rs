//! Who may write to a folder: whoever can write to that of the plugins puts code there that the host runs, and whoever can
//! write to that of what was seen makes a client forget it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use crate::files::FileError;

/// Why a folder is not safe.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Others may change what is in it.
    #[error("folder {dir} is not safe: {path} {problem}")]
    Open {
        /// The folder.
        dir: PathBuf,
        /// It, or one above it.
        path: PathBuf,
        /// Who may change it, and what to do.
        problem: String,
    },
    /// It cannot be looked at.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Owner and mode of a folder.
#[derive(Clone, Copy, Debug)]
struct Access {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// Checks the folder, and that nobody can put another one in its place.
pub(crate) fn check_access(dir: &Path) -> Result<(), AccessError> {
    for path in dir.ancestors() {
        let found = fs::metadata(path).map_err(FileError::on("read", path))?;
        let access = Access { uid: found.uid(), gid: found.gid(), mode: found.mode() };
        let problem = if path == dir {
            problem(access, geteuid().as_raw(), getegid().as_raw())
        } else {
            problem_above(access)
        };
        if let Some(problem) = problem {
            return Err(AccessError::Open { dir: dir.to_owned(), path: path.to_owned(), problem });
        }
    }
    Ok(())
}

fn problem(access: Access, uid: u32, gid: u32) -> Option<String> {
    if access.uid != uid && access.uid != 0 {
        let owner = access.uid;
        return Some(format!(
            "belongs to user {owner}, not to user {uid} or root: change its owner with chown"
        ));
    }
    if access.mode & 0o002 != 0 {
        return Some("may be written by everybody: forbid that with chmod o-w".to_owned());
    }
    if access.mode & 0o020 != 0 && access.gid != gid {
        let group = access.gid;
        return Some(format!("may be written by group {group}: forbid that with chmod g-w"));
    }
    None
}

/// In a folder such as `/tmp` everybody may write, but only an owner may rename.
fn problem_above(access: Access) -> Option<String> {
    let (writable, sticky) = (access.mode & 0o002 != 0, access.mode & 0o1000 != 0);
    let problem = "is above it and may be written by everybody: forbid that with chmod o-w";
    (writable && !sticky).then(|| problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_root_may_write() {
        for (uid, gid, mode, expected) in [
            (1000, 1000, 0o755, None),
            (1000, 1000, 0o775, None),
            (0, 0, 0o755, None),
            (1000, 1000, 0o777, Some("everybody")),
            (1000, 1000, 0o1777, Some("everybody")),
            (1000, 50, 0o775, Some("group 50")),
            (1000, 50, 0o755, None),
            (1001, 1000, 0o755, Some("user 1001")),
            (0, 0, 0o775, Some("group 0")),
        ] {
            let problem = problem(Access { uid, gid, mode }, 1000, 1000);
            let fits = match (&problem, expected) {
                (None, None) => true,
                (Some(problem), Some(expected)) => problem.contains(expected),
                _ => false,
            };
            assert!(fits, "{uid} {gid} {mode:o}: {problem:?}");
        }
        // Root trusts nobody but itself.
        assert!(problem(Access { uid: 1000, gid: 0, mode: 0o755 }, 0, 0).is_some());
        assert!(problem_above(Access { uid: 0, gid: 0, mode: 0o777 }).is_some());
        assert!(problem_above(Access { uid: 0, gid: 0, mode: 0o1777 }).is_none());
    }
}
