//! The configuration: built-in defaults, then `pajamas.toml`, then `PAJAMAS_*` variables, then flags; later ones win.
//!
//! [`load`] reads the layers as typed ([`RawConfig`]) and builds one valid [`Config`]; it opens no socket and creates no
//! folder. `docs/configuration.md` describes every field, and a test holds it to that.

mod field;
mod hook;
mod options;
mod raw;
mod registry;
mod route;
mod surroundings;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::keys::KeyFile;
use crate::media::MediaLimits;
use crate::plugins::select::Preferences;

pub use field::{FIELDS, Field};
pub use hook::{HOOKS_MAX, HookConfig, HookPhase, HookSource, OnError};
pub use options::Options;
pub use raw::{RawConfig, RawLimits, RawLog, RawMemory, RawPlugin, RawSelection, RawWorker};
pub use registry::{RegistryConfig, RegistryName};
pub use route::{ROUTE_TARGETS_MAX, ROUTE_WEIGHT_MAX, RouteConfig, RouteShadow, RouteTarget};
pub use surroundings::{Folders, Surroundings};
pub use value::{BODY_BYTES_MAX, BodyBytes, Listen, LogFilter, LogFormat, MILLIS_MAX, Millis, PluginName};

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "pajamas.toml";
/// The variable that names the configuration file when no flag does.
pub const CONFIG_VARIABLE: &str = "PAJAMAS_CONFIG";
/// The variable with the key that commands send to a running host.
pub const KEY_VARIABLE: &str = "PAJAMAS_KEY";
/// Largest configuration file that is read, in bytes; a larger one is refused.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// A valid configuration. All paths are absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address that the server listens on; a loopback address unless [`Config::insecure`].
    pub listen: SocketAddr,
    /// Whether other machines may use the server although it asks nobody for a key.
    pub insecure: bool,
    /// Folder in which each plugin has a folder of its own.
    pub plugins_dir: PathBuf,
    /// Folders that are searched for models; an entry may also be the file or folder of one model.
    pub models_dirs: Vec<PathBuf>,
    /// Folder for what can be made again: probe results, and each plugin's own cache.
    pub cache_dir: PathBuf,
    /// Folder for what must not be lost: what was seen of registries, so that nobody can offer older states of them. `None`
    /// when the user has no home and named no folder.
    pub state_dir: Option<PathBuf>,
    /// Whether plugins and models are swapped when their files change.
    pub watch: bool,
    /// The API keys; `None` when the user has no home and named no file. Without a key in it, nobody is asked for one.
    pub keys_file: Option<PathBuf>,
    /// Whether plugins run inside this process, where their faults are the host's too; for debuggers.
    pub in_process: bool,
    /// How long running requests may go on after the host was told to stop.
    pub drain_timeout: Duration,
    /// The log.
    pub log: LogConfig,
    /// Bounds on requests.
    pub limits: Limits,
    /// Memory for models.
    pub memory: MemoryConfig,
    /// Patience with the processes that run plugins.
    pub worker: WorkerConfig,
    /// Which plugins are used, and which are preferred.
    pub selection: Preferences,
    /// Where plugins are installed from, by the registry's name.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Settings for single plugins, by the plugin's name.
    pub plugins: BTreeMap<String, PluginConfig>,
    /// Public names that share their requests among models.
    pub routes: BTreeMap<String, RouteConfig>,
    /// WebAssembly components that see what goes into models and what comes out.
    pub hooks: Vec<HookConfig>,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Which events are logged.
    pub filter: LogFilter,
    /// How a line looks.
    pub format: LogFormat,
}

/// Bounds on requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a request, in bytes; a larger one is answered with status 413.
    pub body_bytes: usize,
    /// Connections at the same time; a further one waits until another has ended.
    pub connections: usize,
    /// Requests that may wait for one model; one more is refused with status 503.
    pub queue: usize,
    /// The longest that one request may take once its model is loaded; it is ended with status 504.
    pub request_timeout: Duration,
    /// The most pixels of all pictures of one request, and the longest sound.
    pub media: MediaLimits,
}

/// Memory for models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes of the machine's memory for all models together; `None` means nine tenths of it.
    pub budget_bytes: Option<u64>,
    /// Bytes of other devices' memory for all models together, by the device's id; of others, nine tenths of what they have.
    pub device_budget_bytes: BTreeMap<String, u64>,
    /// How long a model may be unused before it is unloaded; `None` for ever.
    pub idle_timeout: Option<Duration>,
}

/// Patience with the processes that run plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// How long a process may take from its start to the end of the handshake.
    pub start_timeout: Duration,
    /// How long a plugin may look at the machine's devices, or at a model's metadata.
    pub probe_timeout: Duration,
    /// How long loading a model may take.
    pub load_timeout: Duration,
    /// How long a client may leave a full buffer unread before its request is cancelled.
    pub stall_timeout: Duration,
    /// How long a plugin that has jobs may send nothing before its process is stopped.
    pub hang_timeout: Duration,
}

/// Settings for one plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginConfig {
    /// Options for every load by this plugin; a model's own options win.
    pub options: Map<String, Value>,
    /// Whether a plugin that no registry installed gets the permissions that its manifest asks for. What a registry installed
    /// has what was granted at the installation.
    pub grant: bool,
}

/// What the layers above the built-in defaults are read from.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// What the command wants instead of a built-in default; everything that the user says wins over it.
    pub fallback: RawConfig,
    /// The file that the user named, if any.
    pub file: Option<&'a Path>,
    /// The flags.
    pub flags: RawConfig,
    /// The process's variables and folders.
    pub surroundings: &'a Surroundings,
}

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Variables that look like the host's, but mean nothing to it: most likely misspelt.
    pub unknown_variables: Vec<String>,
}

impl Loaded {
    /// Tells the log where the configuration came from.
    pub fn log(&self) {
        if let Some(file) = &self.file {
            tracing::info!(file = %file.display(), "read the configuration");
        }
        for name in &self.unknown_variables {
            tracing::warn!("environment variable {name} has no meaning and is ignored");
        }
    }
}

/// Why there is no valid configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is larger than [`CONFIG_BYTES_MAX`].
    #[error("the configuration file {} has {len} bytes, at most {CONFIG_BYTES_MAX} are allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// The file is not TOML, or one of its fields is unknown or has a wrong value.
    #[error("the configuration file {} is not valid", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Which field, and what was expected.
        source: Box<toml::de::Error>,
    },
    /// A variable has a wrong value.
    #[error("environment variable {name} is \"{value}\": {problem}")]
    Variable {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What was expected.
        problem: String,
    },
    /// The address can be reached from other machines.
    #[error(
        "refusing to listen on {listen}, where other machines could use this server without a key: \
         make one with `pajamas-host keys create NAME`, listen on 127.0.0.1, or pass --insecure"
    )]
    Exposed {
        /// The address.
        listen: SocketAddr,
    },
    /// A folder has no default here.
    #[error("this user has no home folder that {field} could be in: set {field} (see docs/configuration.md)")]
    NoHome {
        /// The field.
        field: &'static str,
    },
}

/// Reads all layers and builds the configuration.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(sources: Sources<'_>) -> Result<Loaded, ConfigError> {
    let Sources { fallback, file, flags, surroundings } = sources;
    let file = surroundings.config_file(file);
    let from_file = match &file {
        Some(path) => RawConfig::read(path)?,
        None => RawConfig::default(),
    };
    let from_variables = surroundings.raw_config()?;
    let raw = flags.or(from_variables).or(from_file).or(fallback);
    Ok(Loaded {
        config: Config::build(raw, surroundings)?,
        file,
        unknown_variables: surroundings.unknown_variables(),
    })
}

impl Config {
    /// Fills in the defaults and checks what concerns more than one field.
    fn build(raw: RawConfig, surroundings: &Surroundings) -> Result<Self, ConfigError> {
        let folders = surroundings.folders.as_ref();
        let folder = |field, typed: Option<PathBuf>, default: fn(&Folders) -> PathBuf| match (typed, folders)
        {
            (Some(path), _) => Ok(surroundings.absolute(&path)),
            (None, Some(folders)) => Ok(default(folders)),
            (None, None) => Err(ConfigError::NoHome { field }),
        };
        let models_dirs = match raw.models_dirs {
            Some(paths) => paths.iter().map(|path| surroundings.absolute(path)).collect(),
            None => vec![folder("models_dirs", None, |folders| folders.data.join("models"))?],
        };
        let listen = raw.listen.unwrap_or_default().0;
        let insecure = raw.insecure.unwrap_or(false);
        let keys_file = raw.keys_file.map(|path| surroundings.absolute(&path));
        let keys_file = keys_file.or_else(|| folders.map(|folders| folders.config.join("keys.toml")));
        // A file that cannot be read is reported when the server reads it, which is before it listens.
        let read = |path: &PathBuf| KeyFile::read(path).is_ok_and(|file| !file.keys.is_empty());
        let has_keys = keys_file.as_ref().is_some_and(read);
        if !insecure && !has_keys && !listen.ip().to_canonical().is_loopback() {
            return Err(ConfigError::Exposed { listen });
        }
        Ok(Self {
            listen,
            insecure,
            plugins_dir: folder("plugins_dir", raw.plugins_dir, |folders| folders.data.join("plugins"))?,
            models_dirs,
            cache_dir: folder("cache_dir", raw.cache_dir, |folders| folders.cache.clone())?,
            state_dir: raw
                .state_dir
                .map(|path| surroundings.absolute(&path))
                .or_else(|| folders.map(|folders| folders.data.join("state"))),
            keys_file,
            watch: raw.watch.unwrap_or(false),
            in_process: raw.in_process.unwrap_or(false),
            drain_timeout: millis(raw.drain_timeout_ms, 30_000),
            log: LogConfig {
                filter: raw.log.level.unwrap_or_default(),
                format: raw.log.format.unwrap_or_default(),
            },
            limits: Limits {
                queue: raw.limits.queue.unwrap_or_default().0,
                body_bytes: raw.limits.body_bytes.unwrap_or_default().0,
                connections: raw.limits.connections.unwrap_or_default().0,
                request_timeout: millis(raw.limits.request_timeout_ms, 3_600_000),
                media: MediaLimits {
                    image_pixels: raw.limits.image_pixels.unwrap_or_default().0,
                    audio_seconds: raw.limits.audio_seconds.unwrap_or_default().0,
                },
            },
            memory: MemoryConfig {
                budget_bytes: raw.memory.budget_bytes,
                device_budget_bytes: raw.memory.device_budget_bytes.unwrap_or_default(),
                idle_timeout: raw.memory.idle_timeout_ms.map(|timeout| timeout.0),
            },
            worker: WorkerConfig {
                start_timeout: millis(raw.worker.start_timeout_ms, 10_000),
                probe_timeout: millis(raw.worker.probe_timeout_ms, 10_000),
                load_timeout: millis(raw.worker.load_timeout_ms, 600_000),
                stall_timeout: millis(raw.worker.stall_timeout_ms, 30_000),
                hang_timeout: millis(raw.worker.hang_timeout_ms, 120_000),
            },
            selection: Preferences {
                prefer: names(raw.selection.prefer),
                disabled: names(raw.selection.disabled),
            },
            registries: raw.registries.into_iter().map(|(name, registry)| (name.0, registry)).collect(),
            plugins: raw.plugins.into_iter().map(|(name, plugin)| (name.0, plugin.build())).collect(),
            routes: raw.routes,
            hooks: raw.hooks.unwrap_or_default(),
        })
    }
}

fn names(typed: Option<Vec<PluginName>>) -> Vec<String> {
    typed.unwrap_or_default().into_iter().map(|name| name.0).collect()
}

fn millis(typed: Option<Millis>, default_ms: u64) -> Duration {
    typed.map_or(Duration::from_millis(default_ms), |millis| millis.0)
}

#[cfg(test)]
mod tests;
