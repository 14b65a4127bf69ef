//! Hooks: WebAssembly components that see what goes into a model and what streams out of it.
//!
//! `component` makes a hook of a file, `instance` runs it for one request, `chain` puts the hooks of a request in a row,
//! and [`Hooks`] keeps those that the operator configured. `v0_1` is the only place that knows the WIT package's types.
//!
//! Calls run on tokio's blocking threads, as many at a time as there are cores. A guest has no access to the machine but
//! the imports of `state`; its processor time, memory, stack, output and log are bounded.

mod chain;
mod check;
mod component;
mod error;
mod instance;
mod limits;
mod runtime;
mod state;
mod v0_1;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use pajamas_plugin_api::Task;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use crate::config::{Config, HOOKS_MAX, HookConfig, HookSource};

use chain::{Link, LinkState};
use component::Hook;
use runtime::Runtime;

pub use chain::HookChain;
pub use check::{CheckReport, Sample, check};
pub use component::{FILE_BYTES_MAX, Facts};
pub use error::{Fault, HookError, LoadError};
pub use limits::{Grant, HookLimits};
pub use runtime::MEMORY_BYTES_MAX;
pub use value::{
    CallContext, Description, Message, NamedTensor, Picture, Placement, Sound, TensorSource, Verdict,
};

/// How often the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The hooks of a host. Clones are the same.
#[derive(Clone, Debug)]
pub struct Hooks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache_dir: PathBuf,
    plugins_dir: PathBuf,
    /// Made with the first hook: a host without any pays nothing.
    runtime: Mutex<Option<Arc<Runtime>>>,
    total_bytes: Arc<AtomicUsize>,
    /// In the order in which they run.
    entries: RwLock<Vec<Arc<Entry>>>,
    /// Changes are made one after the other.
    changing: tokio::sync::Mutex<()>,
}

/// A configured hook.
#[derive(Debug)]
struct Entry {
    config: HookConfig,
    name: Arc<str>,
    hook: RwLock<Arc<Hook>>,
    /// Why the file that is there now is not used.
    problem: Mutex<Option<String>>,
    /// When the file was changed, as far as it was looked at.
    seen: Mutex<Option<SystemTime>>,
}

/// A hook as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct HookStatus {
    /// Its settings.
    #[serde(flatten)]
    pub config: HookConfig,
    /// What runs.
    pub component: Facts,
    /// Why the file that is there now is not used, and the one before still is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Why the hooks cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// A hook cannot be loaded.
    #[error("cannot use hook {name}")]
    Load {
        /// The hook.
        name: String,
        /// Why.
        source: LoadError,
    },
    /// There is no such hook.
    #[error("there is no hook \"{0}\"")]
    Unknown(String),
    /// There are [`HOOKS_MAX`] others.
    #[error("there are {HOOKS_MAX} hooks already, which is the most")]
    TooMany,
    /// Two hooks have one name.
    #[error("two hooks are called \"{0}\": give one of them another `name`")]
    Twice(String),
}

impl Hooks {
    /// Loads the configured hooks. Blocks.
    ///
    /// # Errors
    /// One cannot be loaded: a host that is to redact does not serve without.
    pub fn load(config: &Config) -> Result<Self, HooksError> {
        let hooks = Self::new(config.cache_dir.join("hooks"), config.plugins_dir.clone());
        for hook in &config.hooks {
            if hooks.0.entries.read().iter().any(|entry| entry.config.name == hook.name) {
                return Err(HooksError::Twice(hook.name.clone()));
            }
            let entry = hooks.0.entry(hook.clone())?;
            hooks.0.put(entry)?;
        }
        Ok(hooks)
    }

    /// No hooks yet. What is compiled goes to `cache_dir`; installed hooks are below `plugins_dir`.
    #[must_use]
    pub fn new(cache_dir: PathBuf, plugins_dir: PathBuf) -> Self {
        Self(Arc::new(Inner {
            cache_dir,
            plugins_dir,
            runtime: Mutex::default(),
            total_bytes: Arc::default(),
            entries: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
        }))
    }

    /// All of them, in the order in which they run.
    #[must_use]
    pub fn list(&self) -> Vec<HookStatus> {
        self.0.entries.read().iter().map(|entry| entry.status()).collect()
    }

    /// Adds a hook, or replaces the one of this name, for requests that come from now on.
    ///
    /// # Errors
    /// It cannot be loaded, or there are too many; nothing has changed then.
    ///
    /// # Cancellation
    /// The change is made all the same.
    pub async fn set(&self, config: HookConfig) -> Result<HookStatus, HooksError> {
        let inner = Arc::clone(&self.0);
        let name = config.name.clone();
        let change = tokio::spawn(async move {
            let _changing = inner.changing.lock().await;
            let entry = inner.load_aside(config).await?;
            let status = entry.status();
            inner.put(entry)?;
            Ok(status)
        });
        change.await.unwrap_or(Err(HooksError::Load { name, source: LoadError::Lost }))
    }

    /// Removes a hook; requests that have it keep it.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove(&self, name: &str) -> Result<(), HooksError> {
        let mut entries = self.0.entries.write();
        let index = entries.iter().position(|entry| entry.config.name == name);
        entries.remove(index.ok_or_else(|| HooksError::Unknown(name.to_owned()))?);
        Ok(())
    }

    /// Reads a hook's file again, for requests that come from now on.
    ///
    /// # Errors
    /// The file cannot be used; the one before stays, and the status says why.
    pub async fn reload(&self, name: &str) -> Result<HookStatus, HooksError> {
        let entry = self.0.entries.read().iter().find(|entry| entry.config.name == name).cloned();
        let entry = entry.ok_or_else(|| HooksError::Unknown(name.to_owned()))?;
        let _changing = self.0.changing.lock().await;
        *entry.seen.lock() = entry.changed_at(&self.0.plugins_dir);
        match self.0.load_aside(entry.config.clone()).await {
            Ok(new) => {
                *entry.hook.write() = Arc::clone(&new.hook.read());
                *entry.problem.lock() = None;
                let facts = &new.hook.read().facts;
                tracing::info!(hook = name, sha256 = facts.sha256, "the hook was loaded again");
                Ok(entry.status())
            }
            Err(error) => {
                let problem = crate::error_chain(&error);
                tracing::error!("{problem}; the hook that was loaded before still runs");
                *entry.problem.lock() = Some(problem);
                Err(error)
            }
        }
    }

    /// Reloads hooks whose files change, until the host's hooks are gone.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        let hooks = Arc::downgrade(&self.0);
        async move {
            loop {
                tokio::time::sleep(WATCH_INTERVAL).await;
                match hooks.upgrade() {
                    Some(hooks) => Self(hooks).reload_changed().await,
                    None => return,
                }
            }
        }
    }

    async fn reload_changed(&self) {
        let entries = self.0.entries.read().clone();
        for entry in entries {
            let changed_at = entry.changed_at(&self.0.plugins_dir);
            if changed_at.is_some() && *entry.seen.lock() != changed_at {
                // The failure is in the log and in the status.
                let _ = self.reload(&entry.config.name).await;
            }
        }
    }

    /// The hooks for a request about a model that is known by these names.
    ///
    /// # Errors
    /// [`HookError::Busy`].
    pub async fn chain(
        &self,
        names: &[&str],
        task: &Task,
        context: impl FnOnce() -> CallContext,
    ) -> Result<HookChain, HookError> {
        let links: Vec<Link> = {
            let entries = self.0.entries.read();
            entries.iter().filter(|entry| entry.applies(names, task)).map(|entry| entry.link()).collect()
        };
        let runtime = if links.is_empty() { None } else { self.0.runtime.lock().clone() };
        match runtime {
            Some(runtime) => HookChain::new(&runtime, links, context()).await,
            None => Ok(HookChain::default()),
        }
    }
}

impl Inner {
    /// Loads aside, because compiling takes a while.
    async fn load_aside(self: &Arc<Self>, config: HookConfig) -> Result<Arc<Entry>, HooksError> {
        let inner = Arc::clone(self);
        let name = config.name.clone();
        let load = tokio::task::spawn_blocking(move || inner.entry(config));
        load.await.unwrap_or(Err(HooksError::Load { name, source: LoadError::Lost }))
    }

    fn entry(&self, config: HookConfig) -> Result<Arc<Entry>, HooksError> {
        let load = |config: &HookConfig| {
            let runtime = self.runtime()?;
            let path = path_of(&config.source, &self.plugins_dir)?;
            Hook::load(&runtime, &path, config, &self.total_bytes)
        };
        let hook = load(&config).map_err(|source| HooksError::Load { name: config.name.clone(), source })?;
        let name = config.name.as_str().into();
        let entry = Entry {
            config,
            name,
            hook: RwLock::new(hook),
            problem: Mutex::default(),
            seen: Mutex::default(),
        };
        *entry.seen.lock() = entry.changed_at(&self.plugins_dir);
        Ok(Arc::new(entry))
    }

    fn runtime(&self) -> Result<Arc<Runtime>, LoadError> {
        let mut runtime = self.runtime.lock();
        if let Some(runtime) = &*runtime {
            return Ok(Arc::clone(runtime));
        }
        Ok(Arc::clone(runtime.insert(Arc::new(Runtime::new(&self.cache_dir)?))))
    }

    /// Puts an entry where it belongs, in place of one of the same name.
    fn put(&self, entry: Arc<Entry>) -> Result<(), HooksError> {
        let mut entries = self.entries.write();
        match entries.iter().position(|other| other.config.name == entry.config.name) {
            Some(index) => entries[index] = entry,
            None if entries.len() >= HOOKS_MAX => return Err(HooksError::TooMany),
            None => entries.push(entry),
        }
        entries.sort_by_key(|entry| entry.config.order);
        Ok(())
    }
}

/// The file of a hook.
fn path_of(source: &HookSource, plugins_dir: &Path) -> Result<PathBuf, LoadError> {
    match source {
        HookSource::Path(path) => Ok(path.clone()),
        HookSource::Hook(name) => {
            let path = installed_path(plugins_dir, name);
            if path.is_file() { Ok(path) } else { Err(LoadError::NotInstalled { name: name.clone(), path }) }
        }
    }
}

/// Where an installed hook is.
fn installed_path(plugins_dir: &Path, name: &str) -> PathBuf {
    plugins_dir.join("hooks").join(name).join(format!("{name}.wasm"))
}

/// Names of the installed hooks, sorted.
#[must_use]
pub fn installed(plugins_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(plugins_dir.join("hooks")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| installed_path(plugins_dir, name).is_file()).collect();
    names.sort();
    names
}

impl Entry {
    fn applies(&self, names: &[&str], task: &Task) -> bool {
        let config = &self.config;
        (config.routes.is_empty() || config.routes.iter().any(|route| names.contains(&route.as_str())))
            && (config.tasks.is_empty() || config.tasks.contains(task))
    }

    fn link(&self) -> Link {
        Link {
            name: Arc::clone(&self.name),
            hook: Arc::clone(&self.hook.read()),
            phases: self.config.phases.clone(),
            on_error: self.config.on_error,
            state: LinkState::Fresh,
        }
    }

    fn status(&self) -> HookStatus {
        HookStatus {
            config: self.config.clone(),
            component: self.hook.read().facts.clone(),
            problem: self.problem.lock().clone(),
        }
    }

    fn changed_at(&self, plugins_dir: &Path) -> Option<SystemTime> {
        let path = path_of(&self.config.source, plugins_dir).ok()?;
        std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
    }
}
