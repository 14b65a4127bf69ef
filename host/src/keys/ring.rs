//! Keys as the server uses them: who asks, and whether it is too much.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::{Key, KeyError, KeyFile, Scope, hash};
use crate::engine::Priority;

/// How often the file is looked at for changes.
const REFRESH: Duration = Duration::from_secs(1);

/// The keys of a running server.
#[derive(Debug)]
pub struct Keyring {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// By the hash of the secret.
    accounts: HashMap<String, Arc<Account>>,
    changed: Option<SystemTime>,
    looked_at: Instant,
}

/// What a key has used.
#[derive(Debug)]
pub struct Account {
    key: Key,
    requests: Mutex<Option<Bucket>>,
    tokens: Mutex<Option<Bucket>>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No key came with it.
    #[error("this server asks for a key: send it as \"Authorization: Bearer KEY\"")]
    Missing,
    /// The key is unknown or revoked.
    #[error("the key is not known to this server; it may have been revoked")]
    Unknown,
    /// The key may be used for other things only.
    #[error("the key \"{name}\" may not be used for this: it lacks the scope \"{scope}\"")]
    Scope {
        /// The key's name.
        name: String,
        /// What it lacks.
        scope: &'static str,
    },
    /// The key was used too much.
    #[error("the key \"{name}\" may use {limit} {what} a minute: try again in {retry_after_s} s")]
    TooMuch {
        /// The key's name.
        name: String,
        /// How many.
        limit: u32,
        /// Requests or tokens.
        what: &'static str,
        /// When there is room again.
        retry_after_s: u64,
    },
}

impl Keyring {
    /// Reads the keys; without a file there are none.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn open(path: Option<PathBuf>) -> Result<Self, KeyError> {
        let changed = path.as_deref().and_then(changed);
        let file = path.as_deref().map_or_else(|| Ok(KeyFile::default()), KeyFile::read)?;
        let accounts = accounts(file, &HashMap::new());
        Ok(Self { path, state: Mutex::new(State { accounts, changed, looked_at: Instant::now() }) })
    }

    /// Whose request it is, if it may be made; `None` where nobody is asked for a key. Counts it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn admit(&self, secret: Option<&str>, scope: Scope) -> Result<Option<Arc<Account>>, Refusal> {
        let now = Instant::now();
        let account = {
            let mut state = self.state.lock();
            self.refresh(&mut state, now);
            if state.accounts.is_empty() {
                return Ok(None);
            }
            let secret = secret.ok_or(Refusal::Missing)?;
            // The hash is looked up, so the time that this takes tells nothing about the key.
            state.accounts.get(&hash(secret)).cloned().ok_or(Refusal::Unknown)?
        };
        account.admit(scope, now)?;
        Ok(Some(account))
    }

    /// Reads the file again when it has changed. One that cannot be read changes nothing.
    fn refresh(&self, state: &mut State, now: Instant) {
        if now.duration_since(state.looked_at) < REFRESH {
            return;
        }
        state.looked_at = now;
        let Some(path) = &self.path else { return };
        let changed = changed(path);
        if changed == state.changed {
            return;
        }
        match KeyFile::read(path) {
            Ok(file) if file.keys.is_empty() && !state.accounts.is_empty() => {
                // Without this, the last key's end would open the server to everybody.
                tracing::warn!(
                    "all keys were revoked: every request is refused until there is a key, or a restart"
                );
                state.accounts = HashMap::from([(String::new(), Arc::new(Account::new(nobody())))]);
                state.changed = changed;
            }
            Ok(file) => {
                tracing::info!(keys = file.keys.len(), "read the keys again");
                state.accounts = accounts(file, &state.accounts);
                state.changed = changed;
            }
            Err(error) => {
                tracing::warn!("the keys stay as they were: {}", crate::error_chain(&error));
            }
        }
    }
}

/// A key that nobody has.
fn nobody() -> Key {
    Key {
        id: String::new(),
        name: String::new(),
        sha256: String::new(),
        scopes: Vec::new(),
        priority: Priority::default(),
        weight: None,
        requests_per_minute: None,
        tokens_per_minute: None,
        created_unix_s: 0,
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// The accounts of these keys; a key that was there before keeps what it has used.
fn accounts(file: KeyFile, before: &HashMap<String, Arc<Account>>) -> HashMap<String, Arc<Account>> {
    let account = |key: Key| match before.get(&key.sha256) {
        Some(account) if account.key == key => (key.sha256.clone(), Arc::clone(account)),
        _ => (key.sha256.clone(), Arc::new(Account::new(key))),
    };
    file.keys.into_iter().map(account).collect()
}

impl Account {
    fn new(key: Key) -> Self {
        let now = Instant::now();
        let bucket = |limit: Option<u32>| Mutex::new(limit.map(|limit| Bucket::new(limit, now)));
        Self { requests: bucket(key.requests_per_minute), tokens: bucket(key.tokens_per_minute), key }
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.key.id
    }

    /// The highest priority of its requests.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.key.priority
    }

    /// Its share where requests wait, in relation to those of other keys.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.key.weight.unwrap_or(1)
    }

    fn admit(&self, scope: Scope, now: Instant) -> Result<(), Refusal> {
        let name = || self.key.name.clone();
        if !self.key.scopes.contains(&scope) {
            return Err(Refusal::Scope { name: name(), scope: scope.name() });
        }
        if let Some(tokens) = &mut *self.tokens.lock()
            && let Err(wait) = tokens.check(now)
        {
            let (limit, retry_after_s) = (tokens.limit, wait);
            return Err(Refusal::TooMuch { name: name(), limit, what: "tokens", retry_after_s });
        }
        if let Some(requests) = &mut *self.requests.lock() {
            if let Err(retry_after_s) = requests.check(now) {
                let limit = requests.limit;
                return Err(Refusal::TooMuch { name: name(), limit, what: "requests", retry_after_s });
            }
            requests.spend(1);
        }
        Ok(())
    }

    /// Counts the tokens of a request that has ended.
    pub fn spend_tokens(&self, count: u64) {
        if let Some(tokens) = &mut *self.tokens.lock() {
            tokens.spend(count);
        }
    }
}

/// Fills up to `limit` within a minute. It may be overdrawn, because the tokens of an answer are known at its end.
#[derive(Debug)]
struct Bucket {
    limit: u32,
    level: f64,
    filled_at: Instant,
}

impl Bucket {
    fn new(limit: u32, now: Instant) -> Self {
        Self { limit, level: f64::from(limit), filled_at: now }
    }

    /// Whether something may be spent; else the seconds until then.
    fn check(&mut self, now: Instant) -> Result<(), u64> {
        let per_second = f64::from(self.limit) / 60.0;
        let filled = self.level + now.duration_since(self.filled_at).as_secs_f64() * per_second;
        (self.level, self.filled_at) = (filled.min(f64::from(self.limit)), now);
        if self.level >= 1.0 {
            return Ok(());
        }
        if per_second == 0.0 {
            return Err(60);
        }
        Err(((1.0 - self.level) / per_second).ceil() as u64)
    }

    fn spend(&mut self, count: u64) {
        self.level -= count as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::KeyLimits;
    use super::*;

    #[test]
    fn a_bucket_lets_its_limit_through_and_fills_within_a_minute() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, start);
        for _ in 0..3 {
            bucket.check(start).unwrap();
            bucket.spend(1);
        }
        assert_eq!(bucket.check(start), Err(20));
        assert_eq!(bucket.check(start + Duration::from_secs(19)), Err(1));
        bucket.check(start + Duration::from_secs(20)).unwrap();
        // It never holds more than its limit, and an overdraft is paid back first.
        let later = start + Duration::from_secs(3600);
        bucket.check(later).unwrap();
        bucket.spend(9);
        assert_eq!(bucket.check(later), Err(140));
        assert_eq!(Bucket::new(0, start).check(start), Err(60));
    }

    #[test]
    fn who_may_do_what() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        assert_eq!(Keyring::open(Some(path.clone())).unwrap().admit(None, Scope::Admin).map(drop), Ok(()));
        let mut file = KeyFile::default();
        let two =
            KeyLimits { requests_per_minute: Some(2), tokens_per_minute: Some(100), ..KeyLimits::default() };
        let ann = file.create("ann", &[Scope::Infer], two).unwrap().0;
        let bob = file.create("bob", &[Scope::Infer, Scope::Admin], KeyLimits::default()).unwrap().0;
        file.write(&path).unwrap();
        let ring = Keyring::open(Some(path)).unwrap();
        let admit = |secret: Option<&str>, scope| ring.admit(secret, scope).map(|account| account.unwrap());
        assert_eq!(admit(None, Scope::Infer).unwrap_err(), Refusal::Missing);
        assert_eq!(admit(Some("pj-wrong"), Scope::Infer).unwrap_err(), Refusal::Unknown);
        assert!(matches!(admit(Some(&ann), Scope::Admin), Err(Refusal::Scope { scope: "admin", .. })));
        assert!(admit(Some(&bob), Scope::Admin).is_ok());
        let account = admit(Some(&ann), Scope::Infer).unwrap();
        account.spend_tokens(150);
        assert!(matches!(admit(Some(&ann), Scope::Infer), Err(Refusal::TooMuch { what: "tokens", .. })));
        assert!(admit(Some(&bob), Scope::Infer).is_ok(), "one key's use is nothing to another");
    }
}
