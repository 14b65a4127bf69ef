//! What the engine tells about its models and plugins.

use std::path::PathBuf;
use std::sync::Arc;

use pajamas_plugin_api::{Device, ModelInfo, Task};

/// Where a model is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Not in memory; the next request loads it.
    Unloaded,
    /// Being loaded.
    Loading,
    /// Serving.
    Ready,
    /// The last load failed; the next request tries again.
    Failed(String),
}

/// A model of the catalog.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// Public name.
    pub id: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// File format.
    pub format: String,
    /// File or folder.
    pub path: PathBuf,
    /// What it can do, as far as is known.
    pub tasks: Vec<Task>,
    /// Where it is in its life.
    pub state: ModelState,
    /// Requests that run.
    pub running: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// The plugin that serves it, or served it last.
    pub plugin: Option<String>,
    /// Time of the file's last change, in seconds since 1970.
    pub created_unix_s: u64,
    /// Size on disk.
    pub size_bytes: u64,
    /// Metadata, once it was loaded.
    pub info: Option<Arc<ModelInfo>>,
}

/// Whether a plugin can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginState {
    /// Its probe has not finished.
    Probing,
    /// It can be used.
    Ready,
    /// A worker of it is running.
    Running,
    /// It cannot be used, for this reason.
    Rejected(String),
    /// It crashed too often, as told, and is not started until somebody lifts this.
    Quarantined(String),
}

/// An installed plugin.
#[derive(Clone, Debug)]
pub struct PluginStatus {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// Its folder.
    pub path: PathBuf,
    /// Model formats.
    pub formats: Vec<String>,
    /// Tasks.
    pub tasks: Vec<Task>,
    /// Whether it can be used.
    pub state: PluginState,
    /// Engine inside, as the probe reported it.
    pub engine: Option<String>,
    /// Devices, as the probe reported them.
    pub devices: Vec<Device>,
}
