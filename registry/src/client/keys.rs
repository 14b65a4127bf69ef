//! From the root key to the keys of today.

use std::time::{Duration, Instant};

use super::state::{SeenKeys, State};
use super::{Registry, RegistryError};
use crate::format::{FormatError, KEYS_BYTES_MAX, KEYS_FILE, Keys};
use crate::hash::Hash;
use crate::key::{KeyError, PublicKey};
use crate::source::SourceError;

/// Most versions of `keys.json` that are caught up with at once, and the longest time for it: anybody on the way can claim
/// that there are many. A client that has missed more has to be given a newer root key.
const STEPS_MAX: u64 = 256;
const STEPS_TIME_MAX: Duration = Duration::from_secs(300);

impl Registry {
    /// Fetches `keys.json`. If none of the keys that are trusted signed it, the versions in between, which are kept as
    /// `keys/<version>.json`, lead from one to the other.
    pub(super) fn refresh_keys(&self, state: &mut State) -> Result<Keys, RegistryError> {
        let (content, signature) = self.get_signed(KEYS_FILE, KEYS_BYTES_MAX)?;
        let offered = Keys::parse(&content, KEYS_FILE)?;
        let sha256 = Hash::of(&content);
        let mut seen = state.keys.as_ref().map_or(0, |seen| seen.keys.version);
        if let Some(known) = &state.keys {
            check_order(KEYS_FILE, (seen, known.sha256), (offered.version, sha256))?;
        }
        let trusted = |state: &State| match &state.keys {
            Some(seen) => seen.keys.registry.clone(),
            None => vec![self.config.root_key.clone()],
        };
        let is_known = state.keys.as_ref().is_some_and(|known| known.sha256 == sha256);
        let mut checked = check_signature(KEYS_FILE, &content, &signature, &trusted(state));
        let last = offered.version.min(seen.saturating_add(STEPS_MAX));
        let start = Instant::now();
        while !is_known && checked.is_err() && seen + 1 < last && start.elapsed() < STEPS_TIME_MAX {
            seen += 1;
            let Some(step) = self.step(seen, &trusted(state))? else { continue };
            state.keys = Some(step);
            checked = check_signature(KEYS_FILE, &content, &signature, &trusted(state));
        }
        if !is_known {
            checked?;
            state.keys = Some(SeenKeys { sha256, keys: offered.clone() });
            state.save(&self.config)?;
        }
        self.check_expiry(KEYS_FILE, offered.expires)?;
        Ok(offered)
    }

    /// The version `version` of `keys.json`. Its expiry does not matter: it is only on the way.
    /// `None` where there is none, or one that `trusted` did not sign, since it is from before the configured root key.
    fn step(&self, version: u64, trusted: &[PublicKey]) -> Result<Option<SeenKeys>, RegistryError> {
        let file = format!("keys/{version}.json");
        let (content, signature) = match self.get_signed(&file, KEYS_BYTES_MAX) {
            Err(SourceError::Missing { .. }) => return Ok(None),
            found => found?,
        };
        if check_signature(&file, &content, &signature, trusted).is_err() {
            return Ok(None);
        }
        let keys = Keys::parse(&content, &file)?;
        if keys.version != version {
            let problem = format!("is {}, {version} is expected there", keys.version);
            return Err(FormatError::field(&file, "version", problem).into());
        }
        Ok(Some(SeenKeys { sha256: Hash::of(&content), keys }))
    }
}

/// Checks that one of `keys` signed the file.
pub(super) fn check_signature(
    file: &str,
    content: &[u8],
    signature: &str,
    keys: &[PublicKey],
) -> Result<(), RegistryError> {
    let mut source = KeyError::Malformed { source: None };
    for key in keys {
        match key.verify(content, signature) {
            Ok(()) => return Ok(()),
            Err(error) => source = error,
        }
    }
    Err(RegistryError::Signature { file: file.to_owned(), source })
}

/// Checks that a file that is numbered does not go back, and that a number stands for one content.
pub(super) fn check_order(
    file: &'static str,
    (seen, seen_sha256): (u64, Hash),
    (offered, sha256): (u64, Hash),
) -> Result<(), RegistryError> {
    if offered < seen {
        return Err(RegistryError::Rollback { file, seen, offered });
    }
    if offered == seen && sha256 != seen_sha256 {
        return Err(RegistryError::Forked { file, number: seen });
    }
    Ok(())
}
