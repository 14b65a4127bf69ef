//! Removing what is not needed.

use std::path::{Path, PathBuf};

use pajamas_plugin_api::manifest::is_name;

use super::lease::is_leased;
use super::{LockedStore, STAGING_PREFIX, StoreError, entries, folders, is_plugin};
use crate::files::{DRAFT_PREFIX, FileError, remove_file, remove_folder};
use crate::package::RECORD_FILE;

impl LockedStore<'_> {
    /// Removes what interrupted changes left behind, and every version that a registry installed but the active and the
    /// previous one of each plugin and those for which a process has a [`Lease`](super::Lease). What it removed, for people.
    ///
    /// Folders of one's own are not touched, nor is a plugin whose `active` names no version: nobody knows what is needed
    /// there.
    ///
    /// # Errors
    /// Something cannot be read or removed; what comes after it stays.
    pub fn sweep(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut removed = Vec::new();
        for (name, path) in entries(&self.store.dir)? {
            if name.starts_with(STAGING_PREFIX) {
                remove_folder(&path)?;
                removed.push(path);
            }
        }
        sweep_drafts(&self.store.dir, &mut removed)?;
        for (name, plugin_dir) in folders(&self.store.dir)? {
            if is_name(&name) && !is_plugin(&plugin_dir) {
                self.sweep_plugin(&name, &plugin_dir, &mut removed)?;
            }
        }
        Ok(removed)
    }

    fn sweep_plugin(
        &self,
        name: &str,
        plugin_dir: &Path,
        removed: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        sweep_drafts(plugin_dir, removed)?;
        let active = match self.store.active(name) {
            Err(StoreError::Pointer { .. }) => return Ok(()),
            active => active?,
        };
        let previous = active.as_ref().and_then(|active| self.store.previous(name, active));
        for (folder, dir) in folders(plugin_dir)? {
            if !dir.join(RECORD_FILE).is_file() {
                continue;
            }
            let is_chosen = active.as_ref() == Some(&folder) || previous.as_ref() == Some(&folder);
            if is_chosen || is_leased(&dir) {
                sweep_drafts(&dir, removed)?;
            } else {
                self.throw_away(&dir)?;
                removed.push(dir);
            }
        }
        self.remove_if_empty(name);
        Ok(())
    }
}

/// Removes files that were to replace others.
fn sweep_drafts(dir: &Path, removed: &mut Vec<PathBuf>) -> Result<(), FileError> {
    for (name, path) in entries(dir)? {
        if name.starts_with(DRAFT_PREFIX) && !path.is_dir() {
            remove_file(&path)?;
            removed.push(path);
        }
    }
    Ok(())
}
