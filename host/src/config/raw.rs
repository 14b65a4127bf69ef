//! The configuration as the user typed it: one layer, in which everything may be left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::value::{
    AudioSeconds, BodyBytes, Connections, ImagePixels, Listen, LogFilter, LogFormat, Millis, PluginName,
    Queue,
};
use super::{
    CONFIG_BYTES_MAX, ConfigError, HookConfig, Options, PluginConfig, RegistryConfig, RegistryName,
    RouteConfig,
};

/// One layer of the configuration. [`super::Config`] has the meaning of the fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Address and port.
    pub listen: Option<Listen>,
    /// Allows other addresses than loopback ones.
    pub insecure: Option<bool>,
    /// Folder of the plugins.
    pub plugins_dir: Option<PathBuf>,
    /// Folders of the models.
    pub models_dirs: Option<Vec<PathBuf>>,
    /// Folder of the cache.
    pub cache_dir: Option<PathBuf>,
    /// Folder of what must not be lost.
    pub state_dir: Option<PathBuf>,
    /// Swap plugins and models whose files change.
    pub watch: Option<bool>,
    /// The API keys.
    pub keys_file: Option<PathBuf>,
    /// Runs plugins inside the host.
    pub in_process: Option<bool>,
    /// Patience with running requests at the end.
    pub drain_timeout_ms: Option<Millis>,
    /// The log.
    pub log: RawLog,
    /// Bounds on requests.
    pub limits: RawLimits,
    /// Memory for models.
    pub memory: RawMemory,
    /// Patience with workers.
    pub worker: RawWorker,
    /// Which plugins are used.
    pub selection: RawSelection,
    /// Where plugins are installed from.
    pub registries: BTreeMap<RegistryName, RegistryConfig>,
    /// Settings for single plugins.
    pub plugins: BTreeMap<PluginName, RawPlugin>,
    /// Public names that share their requests among models.
    pub routes: BTreeMap<String, RouteConfig>,
    /// WebAssembly components that see what goes into models and what comes out.
    pub hooks: Option<Vec<HookConfig>>,
}

/// The table `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    /// Which events are logged.
    pub level: Option<LogFilter>,
    /// How a line looks.
    pub format: Option<LogFormat>,
}

/// The table `[limits]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Largest body of a request.
    pub body_bytes: Option<BodyBytes>,
    /// Connections at the same time.
    pub connections: Option<Connections>,
    /// Requests that may wait for one model.
    pub queue: Option<Queue>,
    /// The longest that one request may take.
    pub request_timeout_ms: Option<Millis>,
    /// Pixels of the pictures of one request.
    pub image_pixels: Option<ImagePixels>,
    /// Length of the sound of one request.
    pub audio_seconds: Option<AudioSeconds>,
}

/// The table `[memory]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMemory {
    /// Bytes of the machine's memory for all models together.
    pub budget_bytes: Option<u64>,
    /// Bytes of other devices' memory for all models together.
    pub device_budget_bytes: Option<BTreeMap<String, u64>>,
    /// How long a model may be unused before it is unloaded.
    pub idle_timeout_ms: Option<Millis>,
}

/// The table `[worker]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWorker {
    /// From the start to the end of the handshake.
    pub start_timeout_ms: Option<Millis>,
    /// One look at the devices or at a model's metadata.
    pub probe_timeout_ms: Option<Millis>,
    /// Loading a model.
    pub load_timeout_ms: Option<Millis>,
    /// A client that reads nothing.
    pub stall_timeout_ms: Option<Millis>,
    /// A plugin that has jobs and sends nothing.
    pub hang_timeout_ms: Option<Millis>,
}

/// The table `[selection]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSelection {
    /// Plugins that come before all others.
    pub prefer: Option<Vec<PluginName>>,
    /// Plugins that are never used.
    pub disabled: Option<Vec<PluginName>>,
}

/// A table `[plugins.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPlugin {
    /// Options for every load by this plugin.
    pub options: Options,
    /// Gives a plugin that no registry installed what its manifest asks for.
    pub grant: Option<bool>,
}

impl RawConfig {
    /// Reads a file. Relative paths in it are taken from the file's own folder, so that it means the same everywhere.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let len = fs::metadata(path).map_err(read)?.len();
        if len > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned(), len });
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let mut raw: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        if let Some(folder) = path.parent() {
            raw.move_paths_to(folder);
        }
        Ok(raw)
    }

    /// This layer, with what it leaves out taken from a lower one. A list or an option replaces the lower one whole.
    #[must_use]
    pub(super) fn or(self, lower: Self) -> Self {
        let (log, limits, worker) = (self.log, self.limits, self.worker);
        let mut plugins = lower.plugins;
        for (name, plugin) in self.plugins {
            let lower: &mut RawPlugin = plugins.entry(name).or_default();
            lower.options.0.extend(plugin.options.0);
            lower.grant = plugin.grant.or(lower.grant);
        }
        let mut routes = lower.routes;
        routes.extend(self.routes);
        let mut registries = lower.registries;
        registries.extend(self.registries);
        Self {
            listen: self.listen.or(lower.listen),
            insecure: self.insecure.or(lower.insecure),
            plugins_dir: self.plugins_dir.or(lower.plugins_dir),
            models_dirs: self.models_dirs.or(lower.models_dirs),
            cache_dir: self.cache_dir.or(lower.cache_dir),
            state_dir: self.state_dir.or(lower.state_dir),
            watch: self.watch.or(lower.watch),
            keys_file: self.keys_file.or(lower.keys_file),
            in_process: self.in_process.or(lower.in_process),
            drain_timeout_ms: self.drain_timeout_ms.or(lower.drain_timeout_ms),
            log: RawLog { level: log.level.or(lower.log.level), format: log.format.or(lower.log.format) },
            limits: RawLimits {
                body_bytes: limits.body_bytes.or(lower.limits.body_bytes),
                connections: limits.connections.or(lower.limits.connections),
                queue: limits.queue.or(lower.limits.queue),
                request_timeout_ms: limits.request_timeout_ms.or(lower.limits.request_timeout_ms),
                image_pixels: limits.image_pixels.or(lower.limits.image_pixels),
                audio_seconds: limits.audio_seconds.or(lower.limits.audio_seconds),
            },
            memory: RawMemory {
                budget_bytes: self.memory.budget_bytes.or(lower.memory.budget_bytes),
                device_budget_bytes: self.memory.device_budget_bytes.or(lower.memory.device_budget_bytes),
                idle_timeout_ms: self.memory.idle_timeout_ms.or(lower.memory.idle_timeout_ms),
            },
            worker: RawWorker {
                start_timeout_ms: worker.start_timeout_ms.or(lower.worker.start_timeout_ms),
                probe_timeout_ms: worker.probe_timeout_ms.or(lower.worker.probe_timeout_ms),
                load_timeout_ms: worker.load_timeout_ms.or(lower.worker.load_timeout_ms),
                stall_timeout_ms: worker.stall_timeout_ms.or(lower.worker.stall_timeout_ms),
                hang_timeout_ms: worker.hang_timeout_ms.or(lower.worker.hang_timeout_ms),
            },
            selection: RawSelection {
                prefer: self.selection.prefer.or(lower.selection.prefer),
                disabled: self.selection.disabled.or(lower.selection.disabled),
            },
            registries,
            plugins,
            routes,
            hooks: self.hooks.or(lower.hooks),
        }
    }

    fn move_paths_to(&mut self, folder: &Path) {
        self.hooks.iter_mut().flatten().for_each(|hook| hook.move_path_to(folder));
        for registry in self.registries.values_mut().filter(|registry| !registry.location.contains("://")) {
            registry.location = folder.join(&registry.location).to_string_lossy().into_owned();
        }
        let folders = self.models_dirs.iter_mut().flatten().chain(&mut self.plugins_dir);
        for path in folders.chain(&mut self.cache_dir).chain(&mut self.state_dir).chain(&mut self.keys_file) {
            // Joining an absolute path gives that path.
            *path = folder.join(&*path);
        }
    }
}

impl RawPlugin {
    pub(super) fn build(self) -> PluginConfig {
        PluginConfig { options: self.options.0, grant: self.grant.unwrap_or(false) }
    }
}
