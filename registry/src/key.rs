//! Minisign keys and signatures. Signatures are made by `minisign` and checked by `minisign-verify`, which is small and
//! written for hostile input. Only signatures over a hash of the content (minisign's default) are accepted.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::files::{FileError, read_bounded, sync_folder};

/// Longest key file that is read, in bytes.
const KEY_BYTES_MAX: u64 = 4096;
/// Longest signature that is looked at, in bytes; a longer one is refused.
pub(crate) const SIGNATURE_BYTES_MAX: u64 = 4096;
/// Mode of secret key files.
const SECRET_MODE: u32 = 0o600;

/// A public key: the base64 line of minisign's `.pub` file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(String);

/// Why a key cannot be used, or why a signature does not count.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a public key.
    #[error(
        "\"{text}\" is not a minisign public key: the 56 characters of a .pub file's second line are expected"
    )]
    Public {
        /// The text, cut off after 80 characters.
        text: String,
        /// Why.
        source: minisign_verify::Error,
    },
    /// Not a secret key, or one with a password that was not given.
    #[error(
        "{path} holds no secret key that can be used: a minisign secret key without a password is expected"
    )]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why.
        source: minisign::PError,
    },
    /// Others can read the secret key.
    #[error("the secret key {path} may be read by others (mode {mode:03o}): restrict it with chmod 600")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// No key could be made, or nothing be signed with it.
    #[error("cannot {action}")]
    Sign {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: minisign::PError,
    },
    /// The text is not a signature.
    #[error("the signature cannot be read: the four lines of a .minisig file are expected")]
    Malformed {
        /// Why.
        source: Option<minisign_verify::Error>,
    },
    /// The signature is not one of this content by this key.
    #[error("the signature does not fit the content and the key {key}")]
    Mismatch {
        /// The key.
        key: PublicKey,
        /// Why.
        source: minisign_verify::Error,
    },
    /// A key file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl PublicKey {
    /// Reads minisign's `.pub` file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no public key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = read_bounded(path, KEY_BYTES_MAX)?;
        String::from_utf8_lossy(&bytes).lines().nth(1).unwrap_or_default().parse()
    }

    /// Checks that `signature`, the text of a `.minisig` file, is one of `content` by this key.
    ///
    /// # Errors
    /// It is not: [`KeyError::Malformed`] or [`KeyError::Mismatch`].
    pub fn verify(&self, content: &[u8], signature: &str) -> Result<(), KeyError> {
        if signature.len() as u64 > SIGNATURE_BYTES_MAX {
            return Err(KeyError::Malformed { source: None });
        }
        let signature = minisign_verify::Signature::decode(signature)
            .map_err(|source| KeyError::Malformed { source: Some(source) })?;
        parse(&self.0)?
            .verify(content, &signature, false)
            .map_err(|source| KeyError::Mismatch { key: self.clone(), source })
    }
}

fn parse(text: &str) -> Result<minisign_verify::PublicKey, KeyError> {
    minisign_verify::PublicKey::from_base64(text)
        .map_err(|source| KeyError::Public { text: text.chars().take(80).collect(), source })
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        parse(text).map(|_| Self(text.to_owned()))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret key. Its `Debug` shows the public half only.
pub struct SecretKey {
    secret: minisign::SecretKey,
    public: PublicKey,
}

impl SecretKey {
    /// Makes a key pair: the secret key at `path` (minisign's format, no password, mode 600) and the public one at `path`
    /// with `.pub` added. Files that are there already are not touched.
    ///
    /// # Errors
    /// No random numbers, or a file cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let sign = |source| KeyError::Sign { action: "make a key pair", source };
        let pair = minisign::KeyPair::generate_unencrypted_keypair().map_err(sign)?;
        let secret = pair.sk.to_box(None).map_err(sign)?.into_string();
        let public = pair.pk.to_box().map_err(sign)?.into_string();
        let mut public_path = path.as_os_str().to_owned();
        public_path.push(".pub");
        create(path, &secret, SECRET_MODE)?;
        create(Path::new(&public_path), &public, 0o644)?;
        Self::new(pair.sk)
    }

    /// Reads a secret key without a password.
    ///
    /// # Errors
    /// The file cannot be read, may be read by others, or holds no such key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let mode = fs::metadata(path).map_err(FileError::on("read", path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let text = String::from_utf8_lossy(&read_bounded(path, KEY_BYTES_MAX)?).into_owned();
        let secret = minisign::SecretKeyBox::from_string(&text)
            .and_then(minisign::SecretKeyBox::into_unencrypted_secret_key)
            .map_err(|source| KeyError::Secret { path: path.to_owned(), source })?;
        Self::new(secret)
    }

    fn new(secret: minisign::SecretKey) -> Result<Self, KeyError> {
        let public = minisign::PublicKey::from_secret_key(&secret)
            .map_err(|source| KeyError::Sign { action: "derive the public key", source })?;
        let public = public.to_base64().parse()?;
        Ok(Self { secret, public })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `content`: the text of a `.minisig` file.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn sign(&self, content: &[u8]) -> Result<String, KeyError> {
        minisign::sign(None, &self.secret, io::Cursor::new(content), None, None)
            .map(minisign::SignatureBox::into_string)
            .map_err(|source| KeyError::Sign { action: "sign", source })
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("public", &self.public).finish_non_exhaustive()
    }
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let write = || FileError::on("create", path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(write())?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(write())?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(folder.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_count_for_their_content_and_key_only() {
        let temp = tempfile::tempdir().unwrap();
        let key = SecretKey::generate(&temp.path().join("one")).unwrap();
        let other = SecretKey::generate(&temp.path().join("two")).unwrap();
        let signature = key.sign(b"content").unwrap();
        key.public().verify(b"content", &signature).unwrap();
        assert!(matches!(key.public().verify(b"Content", &signature), Err(KeyError::Mismatch { .. })));
        assert!(matches!(other.public().verify(b"content", &signature), Err(KeyError::Mismatch { .. })));
        let long = format!("{signature}{}", " ".repeat(5000));
        assert!(matches!(key.public().verify(b"content", &long), Err(KeyError::Malformed { .. })));
        // The comment that minisign signs too.
        let changed = signature.replace("timestamp:", "timestamp:9");
        assert!(key.public().verify(b"content", &changed).is_err());
        assert!(!format!("{key:?}").contains("secret:"));
    }

    #[test]
    fn keys_are_files_that_only_their_owner_reads() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("root");
        let key = SecretKey::generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SecretKey::read(&path).unwrap().public(), key.public());
        assert_eq!(&PublicKey::read(&temp.path().join("root.pub")).unwrap(), key.public());
        assert!(SecretKey::generate(&path).unwrap_err().to_string().contains("cannot create"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = SecretKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
        assert!(PublicKey::read(&path).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_key_or_signature_or_is_refused(text in ".{0,200}", at in 0..300_usize, byte in 0..=127_u8) {
            let key: PublicKey = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".parse().unwrap();
            let _ = text.parse::<PublicKey>();
            proptest::prop_assert!(key.verify(b"x", &text).is_err());
            let good = "untrusted comment: s\nRUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/\
                z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\ntrusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
                wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";
            proptest::prop_assert!(key.verify(b"test", good).is_ok());
            let mut bytes = good.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            // Whether it counts depends on the byte: nobody signs the first line.
            let _ = key.verify(b"test", &String::from_utf8_lossy(&bytes));
        }
    }
}
