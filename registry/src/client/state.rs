//! What is remembered of a registry.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{RegistryConfig, RegistryError};
use crate::files::{read_if_there, replace};
use crate::format::{KEYS_BYTES_MAX, Keys};
use crate::hash::Hash;
use crate::key::PublicKey;

/// Largest state file, in bytes: it has a `keys.json` and the keys of its publishers.
const STATE_BYTES_MAX: u64 = 2 * KEYS_BYTES_MAX;

/// What has been seen of a registry and may not go back. Kept as `<state dir>/<name>.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// The root key that all of it was verified from.
    root: PublicKey,
    /// The newest keys.
    pub(super) keys: Option<SeenKeys>,
    /// The newest snapshot.
    pub(super) snapshot: Option<SeenSnapshot>,
    /// Publishers whose packages were fetched, with the keys that these were signed by.
    pub(super) publishers: BTreeMap<String, PublicKey>,
}

/// A `keys.json` that was verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SeenKeys {
    pub(super) sha256: Hash,
    pub(super) keys: Keys,
}

/// A `snapshot.json` that was verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SeenSnapshot {
    pub(super) serial: u64,
    pub(super) sha256: Hash,
}

fn path(config: &RegistryConfig) -> PathBuf {
    config.state_dir.join(format!("{}.json", config.name))
}

impl State {
    /// What was remembered; nothing for a registry that was never seen, or was seen with another root key.
    pub(super) fn load(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let path = path(config);
        let root = config.root_key.clone();
        let new = Self { root, keys: None, snapshot: None, publishers: BTreeMap::new() };
        let Some(bytes) = read_if_there(&path, STATE_BYTES_MAX)? else { return Ok(new) };
        let state: Self =
            serde_json::from_slice(&bytes).map_err(|source| RegistryError::State { path, source })?;
        Ok(if state.root == new.root { state } else { new })
    }

    pub(super) fn save(&self, config: &RegistryConfig) -> Result<(), RegistryError> {
        let path = path(config);
        let bytes =
            serde_json::to_vec(self).map_err(|source| RegistryError::State { path: path.clone(), source })?;
        Ok(replace(&path, &bytes)?)
    }
}
