//! Publishing: a registry's folder, as its operator and its publishers change it. Any web server can hand it out as it is.
//!
//! A file and its signature are replaced one after the other, and so are the index and the snapshot that names it. A client
//! that comes in between refuses what does not fit and finds all in order a moment later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::{DRAFT_PREFIX, FileError, make_folder, read_bounded, replace, sync_folder};
use crate::format::{
    BlobRef, CONFIG_FILE, Config, FormatError, Handover, KEYS_BYTES_MAX, KEYS_FILE, Keys, Publisher,
    SNAPSHOT_BYTES_MAX, SNAPSHOT_FILE, Snapshot, check_publisher, handover_text, index_name, index_path,
    write,
};
use crate::hash::{Hash, Hashing};
use crate::key::{KeyError, PublicKey, SecretKey};
use crate::lock::{Lock, LockError};
use crate::package::{PackageError, PackageLimits, read_manifest, unpack};
use crate::release::{INDEX_BYTES_MAX, Line, SignError, check_release, parse_index, title};
use crate::system::System;

/// Longest time to wait for another process that changes the registry.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Why a registry could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what is expected there.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The archive is no package.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Another process changes the registry.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is something already.
    #[error("{dir} is not empty: choose a new folder for the registry")]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// The key may not sign for the registry.
    #[error("{key} is not one of the registry's keys, which keys.json lists")]
    NotRegistryKey {
        /// The key.
        key: PublicKey,
    },
    /// The publisher is not one of the registry's.
    #[error("the registry has no publisher \"{publisher}\": add it with its key first")]
    NoPublisher {
        /// The publisher.
        publisher: String,
    },
    /// The publisher has another key.
    #[error("publisher \"{publisher}\" has the key {expected} in this registry, not {key}")]
    OtherKey {
        /// The publisher.
        publisher: String,
        /// The key that it has.
        expected: PublicKey,
        /// The key that was given.
        key: PublicKey,
    },
    /// The version is there already.
    #[error("the registry has another {title} already: a version never changes, so choose a new one")]
    Exists {
        /// The release.
        title: String,
    },
    /// A release cannot be signed for.
    #[error(
        "{title} in {file} is not signed with the present key of its publisher: have it signed again, or remove the line"
    )]
    NotSigned {
        /// The release.
        title: String,
        /// The index file.
        file: String,
    },
    /// An archive is missing.
    #[error("the archive of {title} is not at {path}, or has another length")]
    NoBlob {
        /// The release.
        title: String,
        /// Where it should be.
        path: PathBuf,
    },
}

impl From<SignError> for PublishError {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Key(error) => error.into(),
            SignError::Format(error) => error.into(),
        }
    }
}

/// One of the registry's keys, and for how long what it signs is to count.
#[derive(Debug)]
pub struct Signer<'a> {
    /// The key.
    pub key: &'a SecretKey,
    /// Time until what is signed expires. Clients refuse it after that, so it has to be signed anew before.
    pub valid: Duration,
}

/// Signs for the change of a publisher's key from `old` to `new`, which only the publisher can: clients that trust the old
/// key then trust the new one. The signature is for [`Repository::change_publisher`].
///
/// # Errors
/// The system gives no random numbers.
pub fn sign_handover(publisher: &str, old: &SecretKey, new: &PublicKey) -> Result<String, KeyError> {
    old.sign(handover_text(publisher, new).as_bytes())
}

/// A registry's folder.
#[derive(Debug)]
pub struct Repository {
    dir: PathBuf,
    system: System,
    config: Config,
}

impl Repository {
    /// Makes an empty registry in `dir`, which is created or empty. Clients are given the public half of the key as their
    /// root key; the secret one must not be in `dir`.
    ///
    /// # Errors
    /// There is something in the folder, or it cannot be written.
    pub fn init(dir: &Path, signer: &Signer<'_>, system: System) -> Result<Self, PublishError> {
        make_folder(dir)?;
        if fs::read_dir(dir).map_err(FileError::on("read", dir))?.next().is_some() {
            return Err(PublishError::NotEmpty { dir: dir.to_owned() });
        }
        let config = Config::default();
        replace(&dir.join(CONFIG_FILE), &write(&config, CONFIG_FILE)?)?;
        let repository = Self { dir: dir.to_owned(), system, config };
        let registry = vec![signer.key.public().clone()];
        let expires = (system.now)().after(signer.valid);
        let mut keys = Keys { version: 0, expires, registry, publishers: BTreeMap::new() };
        repository.write_keys(&mut keys, signer)?;
        repository.write_snapshot(0, BTreeSet::new(), signer)?;
        Ok(repository)
    }

    /// The registry in `dir`.
    ///
    /// # Errors
    /// It is none, or one of another format.
    pub fn open(dir: &Path, system: System) -> Result<Self, PublishError> {
        let config = Config::parse(&read_bounded(&dir.join(CONFIG_FILE), crate::format::CONFIG_BYTES_MAX)?)?;
        Ok(Self { dir: dir.to_owned(), system, config })
    }

    /// Adds a publisher.
    ///
    /// # Errors
    /// It is there with another key, or a file cannot be written.
    pub fn add_publisher(
        &self,
        name: &str,
        key: &PublicKey,
        signer: &Signer<'_>,
    ) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        check_publisher(name, KEYS_FILE)?;
        let mut keys = self.keys(signer.key)?;
        let new = Publisher { key: key.clone(), handovers: Vec::new() };
        let found = keys.publishers.entry(name.to_owned()).or_insert(new);
        if found.key != *key {
            let (expected, key) = (found.key.clone(), key.clone());
            return Err(PublishError::OtherKey { publisher: name.to_owned(), expected, key });
        }
        self.write_keys(&mut keys, signer)
    }

    /// Gives a publisher another key. `handover` is its signature for that ([`sign_handover`]); without one, when the old key
    /// is lost or stolen, clients that trust the old key refuse the publisher's packages until they are told to forget it.
    /// The publisher's releases have to be [signed again](Self::resign).
    ///
    /// # Errors
    /// There is no such publisher, the old key did not sign, or a file cannot be written.
    pub fn change_publisher(
        &self,
        name: &str,
        key: &PublicKey,
        handover: Option<&str>,
        signer: &Signer<'_>,
    ) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        let mut keys = self.keys(signer.key)?;
        let no_publisher = || PublishError::NoPublisher { publisher: name.to_owned() };
        let publisher = keys.publishers.get_mut(name).ok_or_else(no_publisher)?;
        match handover {
            Some(signature) => {
                publisher.key.verify(handover_text(name, key).as_bytes(), signature)?;
                publisher.handovers.push(Handover { key: key.clone(), signature: signature.to_owned() });
            }
            None => publisher.handovers.clear(),
        }
        publisher.key = key.clone();
        self.write_keys(&mut keys, signer)
    }

    /// Puts another key in the place of one of the registry's. The old key signs for it, so clients follow; the new one signs
    /// once more, so that it can be given to new clients as their root key.
    ///
    /// # Errors
    /// `old` is not one of the registry's keys, or a file cannot be written.
    pub fn rotate(&self, old: &SecretKey, new: &Signer<'_>) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        let mut keys = self.keys(old)?;
        keys.registry.retain(|key| key != old.public());
        keys.registry.push(new.key.public().clone());
        self.write_keys(&mut keys, &Signer { key: old, valid: new.valid })?;
        self.write_keys(&mut keys, new)?;
        self.sign_snapshot(None, new)
    }

    /// Adds a package to the index and its archive to the blobs. Clients see it when the snapshot is
    /// [signed](Self::sign).
    ///
    /// # Errors
    /// It is no package that a client would install, its publisher has another key here, there is another archive of this
    /// version and variant, or a file cannot be written.
    pub fn add(&self, archive: &Path, publisher: &SecretKey) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        let manifest = read_manifest(archive)?;
        check_release(&manifest, &archive.display().to_string())?;
        self.check_key(&manifest.publisher, publisher.public())?;
        let trial = tempfile::Builder::new().prefix(DRAFT_PREFIX).tempdir_in(&self.dir);
        let trial = trial.map_err(FileError::on("write", &self.dir))?;
        unpack(archive, trial.path(), &manifest, &PackageLimits::default(), &mut || {})?;
        let blob = self.add_blob(archive)?;
        let file = index_path(&manifest.name);
        let path = self.dir.join(&file);
        let mut index = if path.exists() { read_bounded(&path, INDEX_BYTES_MAX)? } else { Vec::new() };
        for line in parse_index(&index, &file)? {
            let line = line?;
            if (&line.manifest.version, &line.manifest.variant) == (&manifest.version, &manifest.variant) {
                if line.blob == blob && line.verify(publisher.public()).is_ok() {
                    return Ok(());
                }
                return Err(PublishError::Exists { title: title(&manifest) });
            }
        }
        index.extend_from_slice(Line::sign(&manifest, blob, publisher)?.as_bytes());
        index.push(b'\n');
        make_folder(path.parent().unwrap_or(&self.dir))?;
        Ok(replace(&path, &index)?)
    }

    /// Signs all releases of a publisher with its present key, after a change of keys.
    ///
    /// # Errors
    /// It has another key here, or a file cannot be read or written.
    pub fn resign(&self, name: &str, key: &SecretKey) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        self.check_key(name, key.public())?;
        for file in self.index_files()? {
            let path = self.dir.join(&file);
            let old = read_bounded(&path, INDEX_BYTES_MAX)?;
            let mut index = Vec::new();
            let texts = old.split(|byte| *byte == b'\n').filter(|text| !text.is_empty());
            for (line, text) in parse_index(&old, &file)?.into_iter().zip(texts) {
                let line = line?;
                if line.manifest.publisher == name {
                    index.extend_from_slice(Line::sign(&line.manifest, line.blob, key)?.as_bytes());
                } else {
                    index.extend_from_slice(text);
                }
                index.push(b'\n');
            }
            replace(&path, &index)?;
        }
        Ok(())
    }

    /// Signs the registry as it is now, with a new serial. To be done after changes, and before the last snapshot expires.
    ///
    /// # Errors
    /// A release is not signed or its archive is missing, the key is not one of the registry's, or a file cannot be written.
    pub fn sign(&self, signer: &Signer<'_>) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        self.sign_snapshot(None, signer)
    }

    /// Signs the registry as it is now, and revokes an archive for good: clients do not install it any more.
    ///
    /// # Errors
    /// As for [`sign`](Self::sign).
    pub fn revoke(&self, sha256: Hash, signer: &Signer<'_>) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        self.sign_snapshot(Some(sha256), signer)
    }

    /// Gives `keys.json` a new version that expires later. To be done before the last one expires.
    ///
    /// # Errors
    /// The key is not one of the registry's, or a file cannot be written.
    pub fn renew_keys(&self, signer: &Signer<'_>) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        let mut keys = self.keys(signer.key)?;
        self.write_keys(&mut keys, signer)
    }

    fn lock(&self) -> Result<Lock, LockError> {
        Lock::take(&self.dir.join(".lock"), LOCK_WAIT)
    }

    /// The keys of now, which `signer` may change.
    fn keys(&self, signer: &SecretKey) -> Result<Keys, PublishError> {
        let keys = Keys::parse(&read_bounded(&self.dir.join(KEYS_FILE), KEYS_BYTES_MAX)?, KEYS_FILE)?;
        if !keys.registry.contains(signer.public()) {
            return Err(PublishError::NotRegistryKey { key: signer.public().clone() });
        }
        Ok(keys)
    }

    fn check_key(&self, publisher: &str, key: &PublicKey) -> Result<(), PublishError> {
        let keys = Keys::parse(&read_bounded(&self.dir.join(KEYS_FILE), KEYS_BYTES_MAX)?, KEYS_FILE)?;
        match keys.publishers.get(publisher) {
            None => Err(PublishError::NoPublisher { publisher: publisher.to_owned() }),
            Some(found) if found.key == *key => Ok(()),
            Some(found) => {
                let (expected, key) = (found.key.clone(), key.clone());
                Err(PublishError::OtherKey { publisher: publisher.to_owned(), expected, key })
            }
        }
    }

    /// Writes the next version of the keys, also to where those find it who have missed some.
    fn write_keys(&self, keys: &mut Keys, signer: &Signer<'_>) -> Result<(), PublishError> {
        keys.version += 1;
        keys.expires = (self.system.now)().after(signer.valid);
        let content = write(keys, KEYS_FILE)?;
        make_folder(&self.dir.join("keys"))?;
        self.write_signed(&format!("keys/{}.json", keys.version), &content, signer.key)?;
        self.write_signed(KEYS_FILE, &content, signer.key)
    }

    fn write_signed(&self, file: &str, content: &[u8], key: &SecretKey) -> Result<(), PublishError> {
        let signature = key.sign(content)?;
        replace(&self.dir.join(file), content)?;
        Ok(replace(&self.dir.join(format!("{file}.minisig")), signature.as_bytes())?)
    }

    fn sign_snapshot(&self, revoke: Option<Hash>, signer: &Signer<'_>) -> Result<(), PublishError> {
        self.keys(signer.key)?;
        let old = Snapshot::parse(&read_bounded(&self.dir.join(SNAPSHOT_FILE), SNAPSHOT_BYTES_MAX)?)?;
        let revoked = old.revoked.into_iter().chain(revoke).collect();
        self.write_snapshot(old.serial, revoked, signer)
    }

    fn write_snapshot(
        &self,
        serial: u64,
        revoked: BTreeSet<Hash>,
        signer: &Signer<'_>,
    ) -> Result<(), PublishError> {
        let keys = self.keys(signer.key)?;
        let mut files = BTreeMap::new();
        for file in self.index_files()? {
            let content = read_bounded(&self.dir.join(&file), INDEX_BYTES_MAX)?;
            for line in parse_index(&content, &file)? {
                self.check_line(&line?, &file, &keys)?;
            }
            files.insert(file, BlobRef { sha256: Hash::of(&content), len: content.len() as u64 });
        }
        let created = (self.system.now)();
        let (serial, expires) = (serial + 1, created.after(signer.valid));
        let snapshot = Snapshot { serial, created, expires, files, revoked };
        self.write_signed(SNAPSHOT_FILE, &write(&snapshot, SNAPSHOT_FILE)?, signer.key)
    }

    fn check_line(&self, line: &Line, file: &str, keys: &Keys) -> Result<(), PublishError> {
        let title = title(&line.manifest);
        let publisher = keys.publishers.get(&line.manifest.publisher);
        if publisher.is_none_or(|publisher| line.verify(&publisher.key).is_err()) {
            return Err(PublishError::NotSigned { title, file: file.to_owned() });
        }
        let path = self.dir.join(self.config.blob(&line.blob.sha256));
        if fs::metadata(&path).map_or(0, |found| found.len()) != line.blob.len {
            return Err(PublishError::NoBlob { title, path });
        }
        Ok(())
    }

    /// The index files that there are.
    fn index_files(&self) -> Result<Vec<String>, FileError> {
        let mut found = Vec::new();
        let mut folders = vec!["index".to_owned()];
        while let Some(folder) = folders.pop() {
            let path = self.dir.join(&folder);
            if !path.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&path).map_err(FileError::on("read", &path))? {
                let name = entry.map_err(FileError::on("read", &path))?.file_name();
                let file = format!("{folder}/{}", name.to_string_lossy());
                if index_name(&file).is_some() {
                    found.push(file);
                } else {
                    folders.push(file);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Copies an archive to where its hash says.
    fn add_blob(&self, archive: &Path) -> Result<BlobRef, FileError> {
        let write = || FileError::on("write", &self.dir);
        let mut draft =
            tempfile::Builder::new().prefix(DRAFT_PREFIX).tempfile_in(&self.dir).map_err(write())?;
        let file = File::open(archive).map_err(FileError::on("read", archive))?;
        let mut reader = Hashing::new(BufReader::new(file));
        io::copy(&mut reader, &mut draft).map_err(write())?;
        let (_, sha256, len) = reader.finish();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        draft.as_file().set_permissions(mode).and_then(|()| draft.as_file().sync_all()).map_err(write())?;
        let path = self.dir.join(self.config.blob(&sha256));
        let folder = path.parent().unwrap_or(&self.dir);
        make_folder(folder)?;
        draft.persist(&path).map_err(|error| write()(error.error))?;
        sync_folder(folder)?;
        Ok(BlobRef { sha256, len })
    }
}
