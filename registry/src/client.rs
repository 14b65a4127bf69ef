//! Reading a registry, and the chain of trust: the root key that the operator configured → `keys.json` → `snapshot.json` →
//! index files → publishers' signatures → archives.

mod error;
mod fetch;
mod keys;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use semver::VersionReq;

pub use error::{RegistryError, Rejected};

use crate::access::check_access;
use crate::files::{FileError, make_folder};
use crate::format::{
    CONFIG_BYTES_MAX, CONFIG_FILE, Config, Keys, SNAPSHOT_BYTES_MAX, SNAPSHOT_FILE, Snapshot, index_name,
    index_path,
};
use crate::hash::Hash;
use crate::key::{PublicKey, SIGNATURE_BYTES_MAX};
use crate::lock::Lock;
use crate::release::{INDEX_BYTES_MAX, Line, Release, parse_index};
use crate::source::{Source, SourceError};
use crate::system::System;
use state::{SeenSnapshot, State};

/// A registry as the operator configured it.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Its name here: as for plugins, lower-case letters, digits and hyphens.
    pub name: String,
    /// The key that its first `keys.json` is signed by. What comes later is trusted step by step from there; another root
    /// key than before begins anew.
    pub root_key: PublicKey,
    /// Folder for what has been seen and may not change: serials and publishers' keys. Losing it loses that protection.
    pub state_dir: PathBuf,
    /// Folder for archives. Everything in it may be removed at any time.
    pub cache_dir: PathBuf,
    /// Most bytes of archives that are kept; older ones are removed when another one is fetched.
    pub cache_bytes_max: u64,
    /// Longest time to wait for another process that uses the same folders.
    pub lock_wait: Duration,
    /// Clock and disk.
    pub system: System,
}

impl RegistryConfig {
    /// A registry with the default limits: 8 GiB of archives, a minute for a lock.
    #[must_use]
    pub fn new(name: &str, root_key: PublicKey, state_dir: PathBuf, cache_dir: PathBuf) -> Self {
        let (cache_bytes_max, lock_wait) = (8 * 1024 * 1024 * 1024, Duration::from_secs(60));
        let system = System::default();
        Self { name: name.to_owned(), root_key, state_dir, cache_dir, cache_bytes_max, lock_wait, system }
    }
}

/// A registry. All calls block.
pub struct Registry {
    config: RegistryConfig,
    source: Box<dyn Source>,
}

impl Registry {
    /// The registry at `source`. Nothing is fetched yet; the folders are created if needed.
    ///
    /// # Errors
    /// The name may not be one, a folder cannot be created, or others may write to that of the state: rules as for
    /// [`Store::open`](crate::Store::open).
    pub fn open(source: Box<dyn Source>, config: RegistryConfig) -> Result<Self, RegistryError> {
        if !pajamas_plugin_api::manifest::is_name(&config.name) {
            return Err(RegistryError::Name { name: config.name });
        }
        make_folder(&config.state_dir)?;
        let state_dir = config.state_dir.canonicalize().map_err(FileError::on("read", &config.state_dir))?;
        check_access(&state_dir)?;
        make_folder(&config.cache_dir)?;
        Ok(Self { config, source })
    }

    /// Fetches and verifies what the registry offers now, and remembers what may not go back.
    ///
    /// # Errors
    /// See [`RegistryError`]. What was seen before stays as it is, but for newer keys that could be verified.
    pub fn refresh(&self) -> Result<Catalog<'_>, RegistryError> {
        let _lock = self.lock()?;
        let mut state = State::load(&self.config)?;
        let config = Config::parse(&self.source.get(CONFIG_FILE, CONFIG_BYTES_MAX)?)?;
        let keys = self.refresh_keys(&mut state)?;
        let snapshot = self.refresh_snapshot(&keys, &mut state)?;
        Ok(Catalog { registry: self, config, keys, snapshot })
    }

    /// Forgets the key that was pinned for a publisher: the next one that the registry has for it is trusted again. To be
    /// done when the publisher confirms, by another way, that the change is theirs.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub fn forget_publisher(&self, publisher: &str) -> Result<(), RegistryError> {
        let _lock = self.lock()?;
        let mut state = State::load(&self.config)?;
        state.publishers.remove(publisher);
        state.save(&self.config)
    }

    fn lock(&self) -> Result<Lock, RegistryError> {
        let path = self.config.state_dir.join(format!(".{}.lock", self.config.name));
        Ok(Lock::take(&path, self.config.lock_wait)?)
    }

    /// A file and its signature, as text.
    fn get_signed(&self, file: &str, bytes_max: u64) -> Result<(Vec<u8>, String), SourceError> {
        let content = self.source.get(file, bytes_max)?;
        let signature = self.source.get(&format!("{file}.minisig"), SIGNATURE_BYTES_MAX)?;
        Ok((content, String::from_utf8_lossy(&signature).into_owned()))
    }

    fn refresh_snapshot(&self, keys: &Keys, state: &mut State) -> Result<Snapshot, RegistryError> {
        let (content, signature) = self.get_signed(SNAPSHOT_FILE, SNAPSHOT_BYTES_MAX)?;
        keys::check_signature(SNAPSHOT_FILE, &content, &signature, &keys.registry)?;
        let snapshot = Snapshot::parse(&content)?;
        let sha256 = Hash::of(&content);
        if let Some(seen) = &state.snapshot {
            keys::check_order(SNAPSHOT_FILE, (seen.serial, seen.sha256), (snapshot.serial, sha256))?;
        }
        self.check_expiry(SNAPSHOT_FILE, snapshot.expires)?;
        state.snapshot = Some(SeenSnapshot { serial: snapshot.serial, sha256 });
        state.save(&self.config)?;
        Ok(snapshot)
    }

    fn check_expiry(&self, file: &'static str, expires: crate::Timestamp) -> Result<(), RegistryError> {
        if (self.config.system.now)() < expires {
            return Ok(());
        }
        Err(RegistryError::Expired { registry: self.config.name.clone(), file, expires })
    }
}

/// What a registry offered at the moment of [`Registry::refresh`], verified.
pub struct Catalog<'a> {
    registry: &'a Registry,
    config: Config,
    keys: Keys,
    snapshot: Snapshot,
}

/// The releases of one plugin.
#[derive(Debug, Default)]
pub struct Index {
    /// Those that may be installed, newest first; of one version by variant.
    pub releases: Vec<Release>,
    /// Those that may not, with the reason.
    pub rejected: Vec<Rejected>,
}

impl Catalog<'_> {
    /// Name of the registry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.registry.config.name
    }

    /// The verified snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The verified keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The names of all plugins, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.snapshot.files.keys().filter_map(|path| index_name(path))
    }

    /// The releases of all plugins, by name. One file is fetched for each.
    ///
    /// # Errors
    /// See [`index`](Self::index).
    pub fn all(&self) -> Result<Vec<(String, Index)>, RegistryError> {
        self.names().map(|name| Ok((name.to_owned(), self.index(name)?))).collect()
    }

    /// The releases of a plugin.
    ///
    /// # Errors
    /// There is no such plugin, or its file cannot be fetched or is not the one of the snapshot. One release that cannot be
    /// read or verified is not an error: it is among those that are [`rejected`](Index::rejected).
    pub fn index(&self, name: &str) -> Result<Index, RegistryError> {
        let registry = || self.registry.config.name.clone();
        let path = index_path(name);
        let Some(expected) = self.snapshot.files.get(&path) else {
            return Err(RegistryError::NoPlugin { registry: registry(), name: name.to_owned() });
        };
        let content = self.registry.source.get(&path, expected.len.min(INDEX_BYTES_MAX))?;
        if content.len() as u64 != expected.len || Hash::of(&content) != expected.sha256 {
            return Err(RegistryError::NotInSnapshot { registry: registry(), path });
        }
        let state = State::load(&self.registry.config)?;
        let mut index = Index::default();
        for line in parse_index(&content, &path)? {
            match line {
                Err(error) => index.rejected.push(Rejected { release: None, reason: error.into() }),
                Ok(line) => match self.check(&line, &state) {
                    Ok(release) => index.releases.push(release),
                    Err(reason) => index.rejected.push(Rejected { release: Some(line.manifest), reason }),
                },
            }
        }
        index.releases.sort_by(|one, other| {
            let (one, other) = (&one.manifest, &other.manifest);
            other.version.cmp(&one.version).then_with(|| one.variant.cmp(&other.variant))
        });
        Ok(index)
    }

    /// The releases of a plugin with a version that `wanted` allows, newest first; of one version by variant.
    /// There is at least one.
    ///
    /// # Errors
    /// See [`index`](Self::index); or none fits: where one would but was rejected, the reason for that.
    pub fn resolve(&self, name: &str, wanted: &VersionReq) -> Result<Vec<Release>, RegistryError> {
        let Index { releases, rejected } = self.index(name)?;
        let offered: Vec<String> =
            releases.iter().map(|release| release.manifest.version.to_string()).collect();
        let fitting: Vec<Release> =
            releases.into_iter().filter(|release| wanted.matches(&release.manifest.version)).collect();
        if !fitting.is_empty() {
            return Ok(fitting);
        }
        let fits = |rejected: &Rejected| {
            rejected.release.as_ref().is_none_or(|manifest| wanted.matches(&manifest.version))
        };
        if let Some(rejected) = rejected.into_iter().find(fits) {
            return Err(rejected.reason);
        }
        let (name, wanted) = (name.to_owned(), wanted.to_string());
        Err(RegistryError::NoVersion { name, wanted, offered: offered.join(", ") })
    }

    /// Checks that a line may be installed: its publisher signed it with a key that is trusted, and nobody revoked it.
    fn check(&self, line: &Line, state: &State) -> Result<Release, RegistryError> {
        let key = self.publisher_key(&line.manifest.publisher, state)?.clone();
        let (manifest, registry) = (line.manifest.clone(), self.registry.config.name.clone());
        let release = Release { manifest, blob: line.blob, key, registry };
        line.verify(&release.key).map_err(|source| RegistryError::ReleaseSignature {
            title: release.title(),
            publisher: release.manifest.publisher.clone(),
            source,
        })?;
        self.check_revoked(&release)?;
        Ok(release)
    }

    /// The key that a publisher signs with, if whoever trusted an earlier one may trust it.
    fn publisher_key(&self, name: &str, state: &State) -> Result<&PublicKey, RegistryError> {
        let (registry, publisher) = (self.registry.config.name.clone(), name.to_owned());
        let Some(found) = self.keys.publishers.get(name) else {
            return Err(RegistryError::NoPublisher { registry, publisher });
        };
        match state.publishers.get(name) {
            Some(pinned) if !found.succeeds(name, pinned) => {
                let (pinned, offered) = (pinned.clone(), found.key.clone());
                Err(RegistryError::PublisherChanged { publisher, pinned, offered })
            }
            _ => Ok(&found.key),
        }
    }

    fn check_revoked(&self, release: &Release) -> Result<(), RegistryError> {
        let sha256 = release.blob.sha256;
        if !self.snapshot.revoked.contains(&sha256) {
            return Ok(());
        }
        Err(RegistryError::Revoked { registry: release.registry.clone(), title: release.title(), sha256 })
    }
}
