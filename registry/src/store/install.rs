//! Putting a version in its place, without making it the active one.

use std::fs::{self, Permissions as Mode};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::{MANIFEST_BYTES_MAX, Permissions};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::record::{Origin, Record};
use super::{LockedStore, STAGING_PREFIX, StoreError, is_plugin};
use crate::files::{FileError, make_folder, rename, sync_folder};
use crate::package::{PackageLimits, unpack, verify_folder};
use crate::release::Release;
use crate::step::{Progress, Step};

/// Mode of a version's folder.
const FOLDER_MODE: u32 = 0o755;

/// A version that is in its place and not active: what is to be tried out now.
#[derive(Clone, Debug)]
pub struct Staged {
    /// Its folder, absolute.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    pub(super) folder: String,
    /// It was not there before.
    pub(super) is_new: bool,
}

impl LockedStore<'_> {
    /// Unpacks the archive of `release` into the folder of its version. No host finds it there until
    /// [`activate`](Self::activate); [`discard`](Self::discard) takes it back. A version that is there already and whole is
    /// left as it is, and one that is damaged is replaced.
    ///
    /// # Errors
    /// See [`StoreError`]; then everything is as it was before.
    pub fn stage(
        &self,
        archive: &Path,
        release: &Release,
        progress: Progress<'_>,
    ) -> Result<Staged, StoreError> {
        let manifest = release.manifest().clone();
        let (plugin_dir, folder) = (self.store.plugin_dir(&manifest.name), release.folder());
        check_place(&plugin_dir)?;
        let dir = plugin_dir.join(&folder);
        let is_there = fs::symlink_metadata(&dir).is_ok();
        if is_there
            && Record::read(&dir).is_ok_and(|record| record.is_some())
            && verify_folder(&dir, &manifest).is_ok()
        {
            return Ok(Staged { dir, manifest, folder, is_new: false });
        }
        let bytes = manifest.files.iter().fold(MANIFEST_BYTES_MAX, |sum, file| sum.saturating_add(file.len));
        self.store.system.check_space(&self.store.dir, bytes)?;
        let staging = self.staging()?;
        unpack(archive, staging.path(), &manifest, &PackageLimits::default(), &mut || {
            progress(Step::Unpacked)
        })?;
        // A damaged version that is active stays active with what was granted to it.
        let old = Record::read(&dir).ok().flatten();
        let origin = Origin::Signed {
            registry: release.registry().to_owned(),
            key: release.key().clone(),
            archive: release.blob(),
        };
        let (granted, previous) =
            old.map_or((Permissions::default(), None), |old| (old.granted, old.previous));
        Record { origin, installed: (self.store.system.now)(), granted, previous }.write(staging.path())?;
        let write = FileError::on("write", staging.path());
        fs::set_permissions(staging.path(), Mode::from_mode(FOLDER_MODE)).map_err(write)?;
        sync_folder(staging.path())?;
        progress(Step::Synced);
        make_folder(&plugin_dir)?;
        sync_folder(&self.store.dir)?;
        if is_there {
            // What was there is in the staging folder then, which is removed.
            renameat_with(CWD, staging.path(), CWD, &dir, RenameFlags::EXCHANGE)
                .map_err(|error| FileError::on("replace", &dir)(error.into()))?;
            sync_folder(&plugin_dir)?;
        } else {
            rename(staging.path(), &dir)?;
            // It has left: there is nothing to remove.
            let _ = staging.keep();
        }
        progress(Step::Staged);
        Ok(Staged { dir, manifest, folder, is_new: !is_there })
    }

    /// A folder that is removed with all that is in it, by this or by [`sweep`](Self::sweep).
    pub(super) fn staging(&self) -> Result<tempfile::TempDir, StoreError> {
        let dir = &self.store.dir;
        let staging = tempfile::Builder::new().prefix(STAGING_PREFIX).tempdir_in(dir);
        Ok(staging.map_err(FileError::on("create a folder in", dir))?)
    }
}

/// Checks that the plugin's folder is the registry's, or not there.
pub(super) fn check_place(plugin_dir: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(plugin_dir) {
        Ok(found) if !found.is_dir() => Err(StoreError::NoFolder { path: plugin_dir.to_owned() }),
        Ok(_) if is_plugin(plugin_dir) => Err(StoreError::Local { path: plugin_dir.to_owned() }),
        _ => Ok(()),
    }
}
