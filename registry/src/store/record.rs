//! `install.json` in a version's folder: how it came there.

use std::path::Path;

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::Permissions;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::files::{read_if_there, replace};
use crate::format::BlobRef;
use crate::key::PublicKey;
use crate::package::RECORD_FILE;
use crate::release::version_folder;
use crate::time::Timestamp;

/// Largest record, in bytes.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;

/// Where a version comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From a registry, signed by its publisher.
    Signed {
        /// The registry, by its name here.
        registry: String,
        /// The key that signed it.
        key: PublicKey,
        /// The archive.
        archive: BlobRef,
    },
    /// A folder that somebody put there; nobody signed it.
    Unsigned,
}

/// How a version came to be installed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) origin: Origin,
    /// When it was.
    pub(super) installed: Timestamp,
    /// What the operator allowed it.
    #[serde(default)]
    pub(super) granted: Permissions,
    /// Folder of the version that was active before this one became it.
    #[serde(default)]
    pub(super) previous: Option<String>,
}

impl Record {
    /// Whether the folder is the one that this version is installed in.
    pub(super) fn belongs_to(&self, dir: &Path, manifest: &Manifest) -> bool {
        let Origin::Signed { archive, .. } = &self.origin else { return false };
        let folder = version_folder(manifest, archive);
        dir.file_name().is_some_and(|name| *name == *folder)
    }

    /// The record of the version in `dir`, if it has one.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(RECORD_FILE);
        let Some(bytes) = read_if_there(&path, RECORD_BYTES_MAX)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|source| StoreError::Record { path, source })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(RECORD_FILE);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| StoreError::Record { path: path.clone(), source })?;
        Ok(replace(&path, &bytes)?)
    }
}
