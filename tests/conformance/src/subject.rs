//! What is tested: a plugin, a model for it, and how long to wait.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::ManifestError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A plugin to test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// Folder that holds `plugin.toml`.
    pub plugin_dir: PathBuf,
    /// The library.
    pub library: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
    /// A small model; without one, the cases that load a model are skipped.
    pub model: Option<PathBuf>,
    /// Options of every load.
    pub load_options: Map<String, Value>,
    /// How long to wait.
    pub limits: Limits,
}

impl Subject {
    /// The plugin in this folder, as its manifest describes it.
    ///
    /// # Errors
    /// The manifest cannot be read.
    pub fn read(plugin_dir: &Path) -> Result<Self, ManifestError> {
        Ok(Self::of(plugin_dir, Manifest::read(plugin_dir)?))
    }

    /// The plugin in this folder, as this manifest describes it.
    #[must_use]
    pub fn of(plugin_dir: &Path, manifest: Manifest) -> Self {
        Self {
            plugin_dir: plugin_dir.to_owned(),
            library: manifest.library(plugin_dir),
            manifest,
            model: None,
            load_options: Map::new(),
            limits: Limits::default(),
        }
    }

    /// Takes this library instead of the manifest's.
    #[must_use]
    pub fn with_library(self, library: impl Into<PathBuf>) -> Self {
        Self { library: library.into(), ..self }
    }

    /// Loads this model.
    #[must_use]
    pub fn with_model(self, model: impl Into<PathBuf>) -> Self {
        Self { model: Some(model.into()), ..self }
    }

    /// Sets one option of every load.
    #[must_use]
    pub fn with_option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.load_options.insert(name.to_owned(), value.into());
        self
    }
}

/// How long a plugin may take before a case fails, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// For `init`, `probe`, `inspect`, `submit`, `stats`, `unload`, `shutdown`.
    pub call_ms: u64,
    /// For `load`.
    pub load_ms: u64,
    /// From `submit` to the terminal event.
    pub job_ms: u64,
    /// For the whole process of one case.
    pub process_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { call_ms: 10_000, load_ms: 120_000, job_ms: 60_000, process_ms: 300_000 }
    }
}

impl Limits {
    pub(crate) fn call(&self) -> Duration {
        Duration::from_millis(self.call_ms)
    }

    pub(crate) fn load(&self) -> Duration {
        Duration::from_millis(self.load_ms)
    }

    pub(crate) fn job(&self) -> Duration {
        Duration::from_millis(self.job_ms)
    }

    pub(crate) fn process(&self) -> Duration {
        Duration::from_millis(self.process_ms)
    }
}
