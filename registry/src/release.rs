//! Releases: the lines of an index file. Each is one version of a plugin for one kind of hardware:
//!
//! ```json
//! {"release":{"manifest":{"name":"gguf",…},"blob":{"sha256":"…","len":123}},"signature":"untrusted comment: …"}
//! ```
//!
//! The publisher signs the bytes of `release` as they stand in the line, so nobody has to agree on how to write JSON.

use std::path::Path;

use pajamas_plugin_api::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::format::{self, BlobRef, FormatError, check_publisher, index_name};
use crate::key::{KeyError, PublicKey, SecretKey};
use crate::package::{PackageLimits, check_files};

/// Largest index file, in bytes.
pub(crate) const INDEX_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most lines of an index file.
pub(crate) const LINES_MAX: usize = 4096;
/// Longest version, in bytes: it is part of a folder's name.
const VERSION_BYTES_MAX: usize = 64;

/// A verified line of the index: one version of a plugin, for one kind of hardware.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    pub(crate) manifest: Manifest,
    pub(crate) blob: BlobRef,
    pub(crate) key: PublicKey,
    pub(crate) registry: String,
}

impl Release {
    /// What the plugin is, needs and asks for.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its archive.
    #[must_use]
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// The key of the publisher that signed it.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Name of the registry that it comes from.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Its name and version, and its variant if it has one, for people: `gguf 1.2.0 (cuda)`.
    #[must_use]
    pub fn title(&self) -> String {
        title(&self.manifest)
    }

    /// Name of its folder among the versions of the plugin.
    #[must_use]
    pub fn folder(&self) -> String {
        version_folder(&self.manifest, &self.blob)
    }
}

/// Name of the folder of a version.
pub(crate) fn version_folder(manifest: &Manifest, archive: &BlobRef) -> String {
    format!("{}+{}", manifest.version, archive.sha256.short())
}

/// A manifest's name and version, and its variant if it has one, for people: `gguf 1.2.0 (cuda)`.
#[must_use]
pub fn title(manifest: &Manifest) -> String {
    let variant = manifest.variant.as_ref().map(|variant| format!(" ({variant})")).unwrap_or_default();
    format!("{} {}{variant}", manifest.name, manifest.version)
}

/// A line as it was read: well-formed, but not verified.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) manifest: Manifest,
    pub(crate) blob: BlobRef,
    statement: Box<RawValue>,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct RawLine {
    release: Box<RawValue>,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    manifest: Manifest,
    blob: BlobRef,
}

impl Line {
    /// Signs a release; the line of the index, without the end of line.
    pub(crate) fn sign(manifest: &Manifest, blob: BlobRef, key: &SecretKey) -> Result<String, SignError> {
        let json = |source| FormatError::Json { file: "the release".to_owned(), source };
        let statement = Statement { manifest: manifest.clone(), blob };
        let release = serde_json::value::to_raw_value(&statement).map_err(json)?;
        let signature = key.sign(release.get().as_bytes())?;
        Ok(serde_json::to_string(&RawLine { release, signature }).map_err(json)?)
    }

    fn parse(text: &[u8], file: &str) -> Result<Self, FormatError> {
        let RawLine { release: statement, signature } = format::parse(text, file)?;
        let Statement { manifest, blob } = format::parse(statement.get().as_bytes(), file)?;
        manifest
            .check(Path::new(file))
            .map_err(|error| FormatError::field(file, "manifest", format!("is not usable: {error}")))?;
        if index_name(file) != Some(manifest.name.as_str()) {
            let problem = format!("is \"{}\", which does not belong here", manifest.name);
            return Err(FormatError::field(file, "name", problem));
        }
        check_release(&manifest, file)?;
        Ok(Self { manifest, blob, statement, signature })
    }

    /// Checks the publisher's signature.
    pub(crate) fn verify(&self, key: &PublicKey) -> Result<(), KeyError> {
        key.verify(self.statement.get().as_bytes(), &self.signature)
    }
}

/// Why a release could not be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Whether a manifest may be that of a release: what a registry asks for beyond the rules for local folders.
pub(crate) fn check_release(manifest: &Manifest, file: &str) -> Result<(), FormatError> {
    check_publisher(&manifest.publisher, file)?;
    let version = manifest.version.to_string();
    if version.len() > VERSION_BYTES_MAX {
        let problem = format!("has {} bytes, at most {VERSION_BYTES_MAX} are allowed", version.len());
        return Err(FormatError::field(file, "version", problem));
    }
    check_files(manifest, &PackageLimits::default())
        .map_err(|problem| FormatError::field(file, "files", problem))
}

/// Reads an index file. A line that cannot be read (a newer host may be able to) does not hide the others.
///
/// # Errors
/// There are more than [`LINES_MAX`] lines.
pub(crate) fn parse_index(bytes: &[u8], file: &str) -> Result<Vec<Result<Line, FormatError>>, FormatError> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    if lines.clone().take(LINES_MAX + 1).count() > LINES_MAX {
        return Err(FormatError::field(file, "lines", format!("are more than {LINES_MAX}")));
    }
    Ok(lines.map(|line| Line::parse(line, file)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;

    fn manifest() -> Manifest {
        let text = "name = \"echo\"\nversion = \"0.1.0\"\npublisher = \"pajamas\"\nlicense = \"MIT\"\n\
             description = \"d\"\nabi = \">=1.0, <2\"\nentry = \"lib/echo\"\n";
        Manifest::parse(text, Path::new("plugin.toml")).unwrap()
    }

    fn line() -> (String, SecretKey) {
        let temp = tempfile::tempdir().unwrap();
        let key = SecretKey::generate(&temp.path().join("key")).unwrap();
        let blob = BlobRef { sha256: Hash::of(b""), len: 0 };
        (Line::sign(&manifest(), blob, &key).unwrap(), key)
    }

    #[test]
    fn a_line_is_signed_as_it_stands() {
        let (text, key) = line();
        let lines = parse_index(format!("{text}\n\n{{}}\n").as_bytes(), "index/ec/ho/echo").unwrap();
        assert_eq!(lines.len(), 2);
        let good = lines[0].as_ref().unwrap();
        assert_eq!(good.manifest, manifest());
        good.verify(key.public()).unwrap();
        assert!(lines[1].as_ref().unwrap_err().to_string().contains("index/ec/ho/echo"));
        let changed = text.replace("\"license\":\"MIT\"", "\"license\":\"BSD\"");
        let lines = parse_index(changed.as_bytes(), "index/ec/ho/echo").unwrap();
        assert!(lines[0].as_ref().unwrap().verify(key.public()).is_err());
        let lines = parse_index(text.as_bytes(), "index/gg/uf/gguf").unwrap();
        assert!(lines[0].as_ref().unwrap_err().to_string().contains("does not belong here"));
    }

    #[test]
    fn too_many_lines_are_refused() {
        let text = "{}\n".repeat(LINES_MAX + 1);
        assert!(parse_index(text.as_bytes(), "index/ec/ho/echo").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_lines_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse_index(&bytes, "index/ec/ho/echo");
        }

        #[test]
        fn a_changed_line_is_refused_or_not_verified(at in 0..2000_usize, byte in 0..=255_u8) {
            let (text, key) = line();
            let mut bytes = text.into_bytes();
            let at = at % bytes.len();
            proptest::prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            for line in parse_index(&bytes, "index/ec/ho/echo").unwrap().into_iter().flatten() {
                // The signature's own first line is not signed; all else is.
                let same = line.manifest == manifest() && line.blob.sha256 == Hash::of(b"");
                proptest::prop_assert!(line.verify(key.public()).is_err() || same);
            }
        }
    }
}
