//! Why a registry, or something in it, is not trusted.

use std::path::PathBuf;

use pajamas_plugin_api::Manifest;

use crate::access::AccessError;
use crate::files::FileError;
use crate::format::FormatError;
use crate::hash::Hash;
use crate::key::{KeyError, PublicKey};
use crate::lock::LockError;
use crate::source::SourceError;
use crate::system::SpaceError;
use crate::time::Timestamp;

/// A release that may not be installed.
#[derive(Debug)]
pub struct Rejected {
    /// What it claims to be; `None` if it could not be read.
    pub release: Option<Manifest>,
    /// Why.
    pub reason: RegistryError,
}

/// Why a registry, or something in it, cannot be used or is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name is not one.
    #[error("\"{name}\" cannot name a registry: 1 to 64 lower-case letters, digits and hyphens are expected")]
    Name {
        /// The name.
        name: String,
    },
    /// A file cannot be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A file of this machine cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process uses the registry.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Others could change what was remembered of the registry.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The disk is too full.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// What was remembered of the registry cannot be read.
    #[error(
        "{path} does not hold what was last seen of the registry: remove it to trust the registry anew, from its root key on"
    )]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A signature is missing, or by a key that does not count.
    #[error(
        "{file} is not signed by a key that is trusted: it was changed on its way, the configured root key is another registry's, \
         or the registry is just being updated"
    )]
    Signature {
        /// The file.
        file: String,
        /// Why the last key that was tried does not fit.
        source: KeyError,
    },
    /// The file is older than one that was seen before.
    #[error(
        "{file} has number {offered}, but {seen} was seen before: somebody offers an old state of the registry, or it was restored \
         from a copy and has to be signed anew"
    )]
    Rollback {
        /// The file.
        file: &'static str,
        /// The number that was seen.
        seen: u64,
        /// The number that it has now.
        offered: u64,
    },
    /// Two files have the same number.
    #[error(
        "{file} has number {number} like one that was seen before, but another content: one of them is forged"
    )]
    Forked {
        /// The file.
        file: &'static str,
        /// The number.
        number: u64,
    },
    /// A file has not been renewed in time.
    #[error(
        "{file} of registry {registry} expired at {expires}: fetch a newer copy, or ask its operator to sign it anew; if that time \
         is still to come, set this machine's clock"
    )]
    Expired {
        /// The registry.
        registry: String,
        /// The file.
        file: &'static str,
        /// When.
        expires: Timestamp,
    },
    /// An index file is not the one of the snapshot.
    #[error(
        "{path} is not the file that the snapshot of registry {registry} names: it was changed on its way, or the registry is just \
         being updated"
    )]
    NotInSnapshot {
        /// The registry.
        registry: String,
        /// The file.
        path: String,
    },
    /// There is no such plugin.
    #[error("registry {registry} has no plugin \"{name}\"")]
    NoPlugin {
        /// The registry.
        registry: String,
        /// The name.
        name: String,
    },
    /// There is no such version.
    #[error("plugin {name} has no version that fits \"{wanted}\"; there are: {offered}")]
    NoVersion {
        /// The plugin.
        name: String,
        /// The versions that were asked for.
        wanted: String,
        /// Those that there are, comma-separated.
        offered: String,
    },
    /// The publisher is not one of the registry's.
    #[error("registry {registry} has no key for publisher \"{publisher}\"")]
    NoPublisher {
        /// The registry.
        registry: String,
        /// The publisher.
        publisher: String,
    },
    /// The publisher's key is not the one that was trusted.
    #[error(
        "publisher \"{publisher}\" has the key {offered} now, and the key {pinned} that was trusted before has not signed for it: \
         ask the publisher whether this change is theirs, and only if it is, forget the old key"
    )]
    PublisherChanged {
        /// The publisher.
        publisher: String,
        /// The key that was trusted.
        pinned: PublicKey,
        /// The key that the registry has now.
        offered: PublicKey,
    },
    /// The publisher has not signed the release.
    #[error("{title} is not signed with the key of its publisher \"{publisher}\"")]
    ReleaseSignature {
        /// The release.
        title: String,
        /// The publisher.
        publisher: String,
        /// Why.
        source: KeyError,
    },
    /// The release was withdrawn.
    #[error("{title} was revoked by registry {registry} (archive {sha256}): choose another version")]
    Revoked {
        /// The registry.
        registry: String,
        /// The release.
        title: String,
        /// Hash of its archive.
        sha256: Hash,
    },
    /// The archive is not the one that was signed.
    #[error(
        "the archive of {title} is not the one that was signed (expected SHA-256 {sha256}): it was changed on its way"
    )]
    Blob {
        /// The release.
        title: String,
        /// The hash that was expected.
        sha256: Hash,
    },
}
