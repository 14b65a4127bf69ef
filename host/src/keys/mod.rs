//! API keys: the command line makes, lists and revokes them; the server reads them again when their file changes.
//!
//! Only a hash of a key is kept. A key has 244 random bits, so the hash needs neither salt nor many rounds.

mod ring;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::engine::Priority;

pub use ring::{Account, Keyring, Refusal};

/// Begins every key, so that scanners for leaked secrets can find it.
const PREFIX: &str = "pj-";
/// Largest file of keys that is read, in bytes; a larger one is refused.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Models: everything under `/v1`.
    Infer,
    /// Operation: everything under `/admin`.
    Admin,
}

impl Scope {
    /// As in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Admin => "admin",
        }
    }
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Identifies it in lists and logs.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// SHA-256 of the secret, lower-case hexadecimal.
    pub sha256: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// The highest priority that its requests may have, and the one that they have by default.
    #[serde(default)]
    pub priority: Priority,
    /// Its share of a model's tokens where requests wait, in relation to those of other keys; 1 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Requests that it may make within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers that it may use within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the keys in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    #[error("{path} has {len} bytes, at most {FILE_BYTES_MAX} are allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// The file is not what this program writes.
    #[error("{path} is not a file of keys")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The file cannot be written.
    #[error("cannot write the keys to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No key of this id.
    #[error("there is no key \"{id}\": pajamas-host keys list shows them")]
    Unknown {
        /// The id as given.
        id: String,
    },
    /// The name is empty or too long.
    #[error("the name of a key has 1 to {NAME_BYTES_MAX} bytes")]
    Name,
}

/// All keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyFile {
    /// The keys, oldest first.
    #[serde(rename = "key")]
    pub keys: Vec<Key>,
}

/// Limits of a key that is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyLimits {
    /// The highest priority.
    pub priority: Priority,
    /// The share where requests wait.
    pub weight: Option<u32>,
    /// Requests within a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens within a minute.
    pub tokens_per_minute: Option<u32>,
}

impl KeyFile {
    /// Reads the file; one that does not exist holds no keys.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let read = |source| KeyError::Read { path: path.to_owned(), source };
        let len = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(read(error)),
        };
        if len > FILE_BYTES_MAX {
            return Err(KeyError::TooLarge { path: path.to_owned(), len });
        }
        let text = fs::read_to_string(path).map_err(read)?;
        toml::from_str(&text)
            .map_err(|source| KeyError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// Replaces the file, readable by its owner only. It is whole at any time.
    ///
    /// # Errors
    /// It cannot be written; it is as it was before.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |source| KeyError::Write { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let text = toml::to_string_pretty(self).map_err(|error| failed(io::Error::other(error)))?;
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&draft, path).map_err(failed)
    }

    /// Makes a key and returns its secret, which is nowhere else.
    ///
    /// # Errors
    /// The name is not allowed.
    pub fn create(
        &mut self,
        name: &str,
        scopes: &[Scope],
        limits: KeyLimits,
    ) -> Result<(String, &Key), KeyError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(KeyError::Name);
        }
        let random: Vec<u8> = [Uuid::new_v4(), Uuid::new_v4()].iter().flat_map(|id| *id.as_bytes()).collect();
        let secret = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
        let created = SystemTime::now().duration_since(UNIX_EPOCH);
        self.keys.push(Key {
            id: format!("{:.12}", Uuid::new_v4().simple().to_string()),
            name: name.to_owned(),
            sha256: hash(&secret),
            scopes: scopes.to_vec(),
            priority: limits.priority,
            weight: limits.weight,
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            created_unix_s: created.map_or(0, |since| since.as_secs()),
        });
        let last = self.keys.len() - 1;
        Ok((secret, &self.keys[last]))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// There is none of this id.
    pub fn revoke(&mut self, id: &str) -> Result<Key, KeyError> {
        let index = self.keys.iter().position(|key| key.id == id);
        index.map(|index| self.keys.remove(index)).ok_or_else(|| KeyError::Unknown { id: id.to_owned() })
    }
}

/// SHA-256, lower-case hexadecimal.
fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_file_and_their_secrets_are_not_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/keys.toml");
        assert_eq!(KeyFile::read(&path).unwrap(), KeyFile::default());
        let mut file = KeyFile::default();
        let limits = KeyLimits { requests_per_minute: Some(5), ..KeyLimits::default() };
        let (secret, key) = file.create("ann", &[Scope::Infer], limits).unwrap();
        assert!(secret.starts_with("pj-") && secret.len() > 40, "{secret}");
        let id = key.id.clone();
        file.create("bob", &[Scope::Infer, Scope::Admin], KeyLimits::default()).unwrap();
        file.write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&secret) && text.contains(&hash(&secret)), "{text}");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut read = KeyFile::read(&path).unwrap();
        assert_eq!(read, file);
        assert_eq!(read.revoke(&id).unwrap().name, "ann");
        assert!(matches!(read.revoke(&id), Err(KeyError::Unknown { .. })));
    }

    #[test]
    fn wrong_names_and_wrong_files_are_refused() {
        for name in [String::new(), "x".repeat(129)] {
            let made = KeyFile::default().create(&name, &[Scope::Infer], KeyLimits::default()).map(drop);
            assert!(matches!(made, Err(KeyError::Name)), "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        for text in ["key = 3", "[[key]]\nid = 1", "[[keys]]"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(KeyFile::read(&path), Err(KeyError::Parse { .. })), "{text}");
        }
    }
}
