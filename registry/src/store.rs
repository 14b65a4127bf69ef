//! The plugins folder, as far as it comes from registries:
//!
//! ```text
//! <plugins>/.lock                                held by who changes something
//! <plugins>/.staging-…/                          being unpacked, or on its way out
//! <plugins>/<name>/active                        the folder of the version that a host starts
//! <plugins>/<name>/<version>+<sha12>/            a version: the package, and install.json
//! ```
//!
//! Every change is one rename, before which all that it leads to is on the disk. So whenever the power goes, the old version
//! is active or the new one completely is, and [`LockedStore::sweep`] removes what was left behind. Which version one took
//! the place of is kept in its own `install.json`, written while it is not active yet: the rename of `active` changes both.

mod change;
mod install;
mod lease;
mod record;
mod sweep;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::{MANIFEST_FILE, ManifestError, Permissions, is_name};

pub use install::Staged;
pub use lease::Lease;
pub use record::Origin;

use crate::access::{AccessError, check_access};
use crate::files::{FileError, make_folder, read_if_there, replace};
use crate::lock::{Lock, LockError};
use crate::package::PackageError;
use crate::system::{SpaceError, System};
use crate::time::Timestamp;
use record::Record;

/// Name of the pointer file beside the versions.
const ACTIVE_FILE: &str = "active";
/// Name of the lock file.
const LOCK_FILE: &str = ".lock";
/// Beginning of the names of folders that are not in place yet, or not any more.
const STAGING_PREFIX: &str = ".staging-";
/// Longest content of an `active` file, in bytes.
const ACTIVE_BYTES_MAX: u64 = 256;
/// Most entries of one folder that are looked at; the others are left alone.
const ENTRIES_MAX: usize = 4096;

/// Why the plugins folder cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The package cannot be unpacked, or a version is damaged.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another process changes the folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk is too full.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// Others could put code there that the host would run.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A folder of one's own is in the place of the plugin.
    #[error("{path} is a plugin folder that no registry installed: move it away first")]
    Local {
        /// The folder.
        path: PathBuf,
    },
    /// What is in the place of the plugin is no folder.
    #[error("{path} is not a folder: move it away first")]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// There is no such plugin.
    #[error("plugin \"{name}\" is not installed in {dir}")]
    NotInstalled {
        /// The plugin.
        name: String,
        /// The plugins folder.
        dir: PathBuf,
    },
    /// There is no such version.
    #[error("plugin {name} has no version \"{folder}\" that a registry installed")]
    NoVersion {
        /// The plugin.
        name: String,
        /// The version's folder.
        folder: String,
    },
    /// There is nothing to go back to.
    #[error("plugin {name} has no previous version to go back to")]
    NoPrevious {
        /// The plugin.
        name: String,
    },
    /// A version's record cannot be read.
    #[error("{path} does not say how this version was installed: install it again")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The pointer names no version.
    #[error("{path} names \"{folder}\", which is no version beside it: install the plugin again")]
    Pointer {
        /// The file.
        path: PathBuf,
        /// What it says.
        folder: String,
    },
}

/// A plugins folder.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    system: System,
}

/// A version that is there.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Its folder, absolute.
    pub dir: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// Whether a host that starts now uses it.
    pub is_active: bool,
    /// Whether it is the one that [`LockedStore::rollback`] goes back to.
    pub is_previous: bool,
    /// Where it comes from and who signed it.
    pub origin: Origin,
    /// What the operator allowed it.
    pub granted: Permissions,
    /// When it was installed, if a registry did.
    pub installed: Option<Timestamp>,
}

/// What is in a plugins folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// Versions, by name and version.
    pub plugins: Vec<Installed>,
    /// What could not be read.
    pub problems: Vec<StoreError>,
}

impl Installed {
    /// The version in the folder `dir`, which is not asked for whether it is active. A record counts only in the folder that an
    /// installation makes for its archive: who copies a folder with a record in it into the plugins folder has installed
    /// nothing.
    ///
    /// # Errors
    /// There is no plugin, or it does not say how it was installed.
    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        let manifest = Manifest::read(dir)?;
        let (mut origin, mut granted, mut installed) = (Origin::Unsigned, Permissions::default(), None);
        if let Some(record) = Record::read(dir)?.filter(|record| record.belongs_to(dir, &manifest)) {
            (origin, granted, installed) = (record.origin, record.granted, Some(record.installed));
        }
        let (dir, is_active, is_previous) = (dir.to_owned(), false, false);
        Ok(Self { dir, manifest, is_active, is_previous, origin, granted, installed })
    }
}

impl Store {
    /// The plugins folder `dir`, created if needed.
    ///
    /// # Errors
    /// It cannot be created or read, or others may write to it ([`StoreError::Access`]): it or a folder above it may be
    /// written by everybody, it may be written by another group than that of this process, or it belongs to another user than
    /// that of this process or root. Access lists are not looked at.
    pub fn open(dir: &Path, system: System) -> Result<Self, StoreError> {
        make_folder(dir)?;
        let dir = dir.canonicalize().map_err(FileError::on("read", dir))?;
        check_access(&dir)?;
        Ok(Self { dir, system })
    }

    /// Takes the folder for oneself, to change it; waits at most `wait` for another process. To be held from staging to
    /// activation, since a [`sweep`](LockedStore::sweep) removes what is staged.
    ///
    /// # Errors
    /// Another process holds it for longer, or the lock file cannot be written.
    pub fn lock(&self, wait: Duration) -> Result<LockedStore<'_>, StoreError> {
        let lock = Lock::take(&self.dir.join(LOCK_FILE), wait)?;
        check_access(&self.dir)?;
        Ok(LockedStore { store: self, _lock: lock })
    }

    /// What is there. At most 4096 entries of each folder are looked at.
    ///
    /// # Errors
    /// The folder cannot be read. A plugin that cannot be is among the [problems](Listing::problems).
    pub fn installed(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for (name, plugin_dir) in folders(&self.dir)? {
            if is_name(&name) {
                self.list(&name, &plugin_dir, &mut listing);
            }
        }
        listing.plugins.sort_by(|one, other| {
            let (one, other) = (&one.manifest, &other.manifest);
            one.name.cmp(&other.name).then_with(|| one.version.cmp(&other.version))
        });
        Ok(listing)
    }

    fn list(&self, name: &str, plugin_dir: &Path, listing: &mut Listing) {
        let (is_local, active) = match (is_plugin(plugin_dir), self.active(name)) {
            (true, _) => (true, None),
            (false, Ok(active)) => (false, active),
            (false, Err(error)) => {
                listing.problems.push(error);
                (false, None)
            }
        };
        let previous = active.as_ref().and_then(|active| self.previous(name, active));
        let versions =
            if is_local { Ok(vec![(String::new(), plugin_dir.to_owned())]) } else { folders(plugin_dir) };
        let versions = versions.unwrap_or_else(|error| {
            listing.problems.push(error.into());
            Vec::new()
        });
        for (folder, dir) in versions.into_iter().filter(|(_, dir)| is_plugin(dir)) {
            match Installed::read(&dir) {
                Ok(found) => {
                    let is_active = is_local || active.as_ref() == Some(&folder);
                    let is_previous = previous.as_ref() == Some(&folder);
                    listing.plugins.push(Installed { is_active, is_previous, ..found });
                }
                Err(error) => listing.problems.push(error),
            }
        }
    }

    fn plugin_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn version_dir(&self, name: &str, folder: &str) -> PathBuf {
        self.dir.join(name).join(folder)
    }

    /// The folder of the active version, if there is one.
    fn active(&self, name: &str) -> Result<Option<String>, StoreError> {
        let path = self.plugin_dir(name).join(ACTIVE_FILE);
        let Some(content) = read_if_there(&path, ACTIVE_BYTES_MAX)? else { return Ok(None) };
        let folder = String::from_utf8_lossy(&content).trim().to_owned();
        let plain = !folder.is_empty() && !folder.starts_with('.') && !folder.contains(['/', '\\']);
        if plain && is_plugin(&self.version_dir(name, &folder)) {
            return Ok(Some(folder));
        }
        Err(StoreError::Pointer { path, folder })
    }

    /// The folder of the version before `active`, if it is still there.
    fn previous(&self, name: &str, active: &str) -> Option<String> {
        let record = Record::read(&self.version_dir(name, active)).ok()??;
        record.previous.filter(|folder| folder != active && is_plugin(&self.version_dir(name, folder)))
    }

    fn point(&self, name: &str, folder: &str) -> Result<(), FileError> {
        replace(&self.plugin_dir(name).join(ACTIVE_FILE), format!("{folder}\n").as_bytes())
    }
}

/// A plugins folder that this process may change.
#[derive(Debug)]
pub struct LockedStore<'a> {
    store: &'a Store,
    _lock: Lock,
}

/// Whether a plugin is right in `dir`.
fn is_plugin(dir: &Path) -> bool {
    dir.join(MANIFEST_FILE).is_file()
}

/// The folders in `dir` by name, in order; links are none.
fn folders(dir: &Path) -> Result<Vec<(String, PathBuf)>, FileError> {
    let entries = entries(dir)?;
    Ok(entries.into_iter().filter(|(_, path)| path.is_dir() && !path.is_symlink()).collect())
}

/// The entries of `dir` by name, in order.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, FileError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(FileError::on("read", dir))?.take(ENTRIES_MAX) {
        let entry = entry.map_err(FileError::on("read", dir))?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    found.sort();
    Ok(found)
}
