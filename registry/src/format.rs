//! The registry's files, as they are parsed and written: `config.json`, `keys.json` and `snapshot.json`. Lines of the index
//! are in [`release`](crate::release). Unknown fields are ignored, so that the format can grow.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::key::PublicKey;
use crate::time::Timestamp;

/// The format that this version reads and writes.
pub(crate) const FORMAT: u32 = 1;
/// Largest `config.json`, in bytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 64 * 1024;
/// Largest `keys.json`, in bytes.
pub(crate) const KEYS_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Largest `snapshot.json`, in bytes.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most keys of the registry.
const REGISTRY_KEYS_MAX: usize = 16;
/// Most publishers.
const PUBLISHERS_MAX: usize = 4096;
/// Most changes of one publisher's key that are followed.
const HANDOVERS_MAX: usize = 32;
/// Longest name of a publisher, in bytes.
const PUBLISHER_BYTES_MAX: usize = 64;
/// Most index files, which is one for each name.
const FILES_MAX: usize = 65_536;
/// Most revoked archives.
const REVOKED_MAX: usize = 65_536;

/// Largest version and serial: what every reader of JSON can tell from its neighbours.
const NUMBER_MAX: u64 = (1 << 53) - 1;

pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const KEYS_FILE: &str = "keys.json";
pub(crate) const SNAPSHOT_FILE: &str = "snapshot.json";

/// Why a file of the registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Not JSON, or a field is missing or of a wrong type.
    #[error("{file} is not what a registry of format {FORMAT} has there")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field has a value that is not allowed.
    #[error("{file}: field \"{field}\" {problem}")]
    Field {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
}

impl FormatError {
    pub(crate) fn field(file: &str, field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { file: file.to_owned(), field, problem: problem.into() }
    }
}

/// Reads JSON; `file` is for the message.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], file: &str) -> Result<T, FormatError> {
    serde_json::from_slice(bytes).map_err(|source| FormatError::Json { file: file.to_owned(), source })
}

/// Writes JSON that people can read; `file` is for the message.
pub(crate) fn write<T: Serialize>(value: &T, file: &str) -> Result<Vec<u8>, FormatError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| FormatError::Json { file: file.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn at_most(file: &str, field: &'static str, count: usize, max: usize) -> Result<(), FormatError> {
    if count <= max {
        return Ok(());
    }
    Err(FormatError::field(file, field, format!("has {count} entries, at most {max} are allowed")))
}

fn check_number(file: &str, field: &'static str, number: u64) -> Result<(), FormatError> {
    if number <= NUMBER_MAX {
        return Ok(());
    }
    Err(FormatError::field(file, field, format!("is {number}, at most {NUMBER_MAX} is allowed")))
}

/// `config.json`: where things are. It is not signed; all that it leads to is verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    /// Version of the whole format.
    pub(crate) format: u32,
    /// Path of an archive, in which `{hex}` stands for its hash.
    pub(crate) blobs: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: FORMAT, blobs: "blobs/sha256/{hex}".to_owned() }
    }
}

impl Config {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let config: Self = parse(bytes, CONFIG_FILE)?;
        if config.format != FORMAT {
            let problem = format!("is {}, this program reads {FORMAT}: update it", config.format);
            return Err(FormatError::field(CONFIG_FILE, "format", problem));
        }
        if config.blobs.matches("{hex}").count() != 1 || !is_path(&config.blob(&Hash::of(b""))) {
            let problem = format!("is \"{}\": a relative path with one {{hex}} is expected", config.blobs);
            return Err(FormatError::field(CONFIG_FILE, "blobs", problem));
        }
        Ok(config)
    }

    /// Path of an archive.
    pub(crate) fn blob(&self, hash: &Hash) -> String {
        self.blobs.replace("{hex}", &hash.to_string())
    }
}

/// `keys.json`: who may sign what. It is signed by a registry key of the version before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// Grows with every change.
    pub version: u64,
    /// When it is to be replaced by a newer one, at the latest.
    pub expires: Timestamp,
    /// Keys that sign the snapshot and the next version of this file.
    pub registry: Vec<PublicKey>,
    /// Publishers by name, as `publisher` in a manifest has it.
    pub publishers: BTreeMap<String, Publisher>,
}

/// A publisher's key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Publisher {
    /// The key that it signs with now.
    pub key: PublicKey,
    /// How it came to that key: each entry is signed by the key before it.
    #[serde(default)]
    pub(crate) handovers: Vec<Handover>,
}

/// A change of a publisher's key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// The new key.
    pub(crate) key: PublicKey,
    /// Signature over [`handover_text`] by the key before.
    pub(crate) signature: String,
}

/// What a publisher signs with the old key to change to `key`.
pub(crate) fn handover_text(publisher: &str, key: &PublicKey) -> String {
    format!("pajamas-registry handover\npublisher: {publisher}\nkey: {key}\n")
}

impl Keys {
    pub(crate) fn parse(bytes: &[u8], file: &str) -> Result<Self, FormatError> {
        let keys: Self = parse(bytes, file)?;
        check_number(file, "version", keys.version)?;
        at_most(file, "registry", keys.registry.len(), REGISTRY_KEYS_MAX)?;
        at_most(file, "publishers", keys.publishers.len(), PUBLISHERS_MAX)?;
        if keys.registry.is_empty() {
            return Err(FormatError::field(file, "registry", "is empty: at least one key is expected"));
        }
        for (name, publisher) in &keys.publishers {
            check_publisher(name, file)?;
            at_most(file, "handovers", publisher.handovers.len(), HANDOVERS_MAX)?;
        }
        Ok(keys)
    }
}

/// Whether `name` may name a publisher: something to read, on one line.
pub(crate) fn check_publisher(name: &str, file: &str) -> Result<(), FormatError> {
    let plain = name.trim() == name && !name.chars().any(char::is_control);
    if plain && (1..=PUBLISHER_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    let problem = format!("has {name:?}: a name of 1 to {PUBLISHER_BYTES_MAX} bytes on one line is expected");
    Err(FormatError::field(file, "publisher", problem))
}

impl Publisher {
    /// Whether someone who trusts `pinned` may trust the present key: it is the same, or was signed over step by step.
    pub(crate) fn succeeds(&self, name: &str, pinned: &PublicKey) -> bool {
        let mut trusted = pinned;
        for handover in &self.handovers {
            let text = handover_text(name, &handover.key);
            if trusted.verify(text.as_bytes(), &handover.signature).is_ok() {
                trusted = &handover.key;
            }
        }
        *trusted == self.key
    }
}

/// A file by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Hash of its bytes.
    pub sha256: Hash,
    /// Length in bytes.
    pub len: u64,
}

/// `snapshot.json`: the registry at one moment. It is signed by a registry key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Grows with every snapshot.
    pub serial: u64,
    /// When it was signed.
    pub created: Timestamp,
    /// When it is to be replaced by a newer one, at the latest.
    pub expires: Timestamp,
    /// Every index file, by path.
    pub files: BTreeMap<String, BlobRef>,
    /// Archives that must not be installed any more.
    pub revoked: BTreeSet<Hash>,
}

impl Snapshot {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let snapshot: Self = parse(bytes, SNAPSHOT_FILE)?;
        check_number(SNAPSHOT_FILE, "serial", snapshot.serial)?;
        at_most(SNAPSHOT_FILE, "files", snapshot.files.len(), FILES_MAX)?;
        at_most(SNAPSHOT_FILE, "revoked", snapshot.revoked.len(), REVOKED_MAX)?;
        if let Some(path) = snapshot.files.keys().find(|path| index_name(path).is_none()) {
            let problem = format!("has \"{path}\", which is no path of an index file");
            return Err(FormatError::field(SNAPSHOT_FILE, "files", problem));
        }
        Ok(snapshot)
    }
}

/// Path of a name's index file, `index/gg/uf/gguf`; short names are filled up: `index/a_/__/a`.
pub(crate) fn index_path(name: &str) -> String {
    let part = |skip: usize| -> String { name.chars().chain("____".chars()).skip(skip).take(2).collect() };
    format!("index/{}/{}/{name}", part(0), part(2))
}

/// The name whose index file is at `path`.
pub(crate) fn index_name(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    (pajamas_plugin_api::manifest::is_name(name) && index_path(name) == path).then_some(name)
}

/// Whether `path` is one that a source may be asked for: relative, of plain segments, none of them hidden.
pub(crate) fn is_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    (1..=512).contains(&path.len())
        && path.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_index_path() {
        for (name, path) in [
            ("gguf", "index/gg/uf/gguf"),
            ("a", "index/a_/__/a"),
            ("mlx", "index/ml/x_/mlx"),
            ("system-tts", "index/sy/st/system-tts"),
        ] {
            assert_eq!(index_path(name), path);
            assert_eq!(index_name(path), Some(name));
        }
        for wrong in ["index/gg/uf/onnx", "index/gguf", "gguf", "index/gg/uf/../gguf", "index/A_/__/A"] {
            assert_eq!(index_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        for (path, expected) in [
            ("blobs/sha256/00ff", true),
            ("keys.json.minisig", true),
            ("../keys.json", false),
            ("/keys.json", false),
            ("a//b", false),
            ("a/.git/b", false),
            ("a?b", false),
            ("a\\b", false),
            ("", false),
        ] {
            assert_eq!(is_path(path), expected, "{path}");
        }
    }

    #[test]
    fn a_config_of_another_format_says_so() {
        let config = |text: &str| Config::parse(text.as_bytes()).map_err(|error| error.to_string());
        assert!(config(r#"{"format":1,"blobs":"blobs/{hex}.tar.zst"}"#).is_ok());
        assert!(config(r#"{"format":2,"blobs":"x/{hex}"}"#).unwrap_err().contains("update it"));
        for blobs in ["../{hex}", "blobs", "{hex}{hex}", "http://127.0.0.1/{hex}"] {
            let error = config(&format!(r#"{{"format":1,"blobs":"{blobs}"}}"#)).unwrap_err();
            assert!(error.contains("\"blobs\""), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Config::parse(&bytes);
            let _ = Keys::parse(&bytes, KEYS_FILE);
            let _ = Snapshot::parse(&bytes);
        }
    }
}
