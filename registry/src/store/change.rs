//! Which version is active, and versions that go.

use std::path::Path;

use pajamas_plugin_api::manifest::{Permissions, is_name};

use super::install::check_place;
use super::record::Record;
use super::{LockedStore, Staged, StoreError};
use crate::files::rename;
use crate::step::{Progress, Step};

impl LockedStore<'_> {
    /// Makes a version the active one, which the next start of a host finds, with what the operator grants it. The one that
    /// was active until now is the previous one then.
    ///
    /// # Errors
    /// A file cannot be written; then the active version is the one that it was.
    pub fn activate(
        &self,
        staged: &Staged,
        granted: &Permissions,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        self.switch(&staged.manifest.name, &staged.folder, Some(granted), progress)
    }

    /// Makes a version that is there the active one, with what was granted to it before. The one that was active until now is
    /// the previous one then.
    ///
    /// # Errors
    /// No registry installed such a version, or a file cannot be written; then the active version is the one that it was.
    pub fn choose(&self, name: &str, folder: &str) -> Result<(), StoreError> {
        self.switch(name, folder, None, &mut |_| {})
    }

    /// Makes the previous version the active one again, with what was granted to it, and the active one the previous one.
    /// The folder of the version that is active then.
    ///
    /// # Errors
    /// There is no previous version, or a file cannot be written; then the active version is the one that it was.
    pub fn rollback(&self, name: &str, progress: Progress<'_>) -> Result<String, StoreError> {
        let active = self.installed(name)?;
        let previous = active.and_then(|active| self.store.previous(name, &active));
        let previous = previous.ok_or_else(|| StoreError::NoPrevious { name: name.to_owned() })?;
        self.switch(name, &previous, None, progress)?;
        Ok(previous)
    }

    /// Takes back what was staged; a version that was there before, or that is active meanwhile, stays.
    ///
    /// # Errors
    /// Its folder cannot be removed.
    pub fn discard(&self, staged: &Staged) -> Result<(), StoreError> {
        let name = &staged.manifest.name;
        let is_active = self.store.active(name)?.as_ref() == Some(&staged.folder);
        if staged.is_new && !is_active {
            self.throw_away(&staged.dir)?;
            self.remove_if_empty(name);
        }
        Ok(())
    }

    /// Removes a plugin with all of its versions, in one step.
    ///
    /// # Errors
    /// It is not installed, or not by a registry, or cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self.installed(name) {
            // Whatever its pointer says.
            Ok(_) | Err(StoreError::Pointer { .. }) => self.throw_away(&self.store.plugin_dir(name)),
            Err(error) => Err(error),
        }
    }

    /// The active version of a plugin that a registry installed.
    fn installed(&self, name: &str) -> Result<Option<String>, StoreError> {
        let plugin_dir = self.store.plugin_dir(name);
        if !is_name(name) || !plugin_dir.exists() {
            return Err(StoreError::NotInstalled { name: name.to_owned(), dir: self.store.dir.clone() });
        }
        check_place(&plugin_dir)?;
        self.store.active(name)
    }

    /// The record of a version that a registry installed.
    fn record(&self, name: &str, folder: &str) -> Result<Record, StoreError> {
        let plain = !folder.starts_with('.') && !folder.contains(['/', '\\']);
        let record = if plain { Record::read(&self.store.version_dir(name, folder))? } else { None };
        record.ok_or_else(|| StoreError::NoVersion { name: name.to_owned(), folder: folder.to_owned() })
    }

    fn switch(
        &self,
        name: &str,
        folder: &str,
        granted: Option<&Permissions>,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let mut record = self.record(name, folder)?;
        // A pointer to nothing is no version to go back to.
        let active = self.store.active(name).ok().flatten();
        if active.as_deref() != Some(folder) {
            record.previous = active;
        }
        if let Some(granted) = granted {
            record.granted = granted.clone();
        }
        record.write(&self.store.version_dir(name, folder))?;
        progress(Step::Recorded);
        self.store.point(name, folder)?;
        progress(Step::Activated);
        Ok(())
    }

    /// Removes a folder: out of sight in one step, and then from the disk.
    pub(super) fn throw_away(&self, dir: &Path) -> Result<(), StoreError> {
        let staging = self.staging()?;
        rename(dir, &staging.path().join("old"))?;
        if let Some(parent) = dir.parent() {
            crate::files::sync_folder(parent)?;
        }
        let path = staging.path().to_owned();
        staging.close().map_err(|error| crate::files::FileError::on("remove", &path)(error).into())
    }

    /// Removes the plugin's folder if there is nothing in it any more.
    pub(super) fn remove_if_empty(&self, name: &str) {
        // One that is not empty stays, and an empty one does no harm.
        let _ = std::fs::remove_dir(self.store.plugin_dir(name));
    }
}
