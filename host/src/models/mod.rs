//! The catalog: which models lie in the configured folders, and what each is called.
//!
//! Nothing here opens a model: formats are told by names and by what a folder contains. A model may have a settings file,
//! either `STEM.toml` beside `STEM.gguf`, or `model.toml` in the model's folder; see [`ModelSettings`].

mod format;
mod naming;
pub mod pull;
mod scan;
mod settings;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pajamas_plugin_api::Task;
use pajamas_plugin_api::manifest::SelfTest;
use serde_json::{Map, Value};

pub use format::FORMATS;
pub use scan::{DEPTH_MAX, ENTRIES_MAX};
pub use settings::{
    ALIASES_MAX, ModelSettings, NAME_BYTES_MAX, SETTINGS_BYTES_MAX, SETTINGS_FILE, SettingsError,
};

/// The models of all folders, sorted by their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// The models. Ids and aliases are unique across all of them.
    pub models: Vec<ModelSpec>,
    /// What kept a model out, or a name from being used.
    pub problems: Vec<CatalogProblem>,
}

/// One model, as it lies on the disk.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// The public name.
    pub id: String,
    /// Further public names.
    pub aliases: Vec<String>,
    /// Absolute path of the file or folder to load; of a file in several parts, the first one.
    pub path: PathBuf,
    /// All its files: whoever loads it must be able to read them, wherever links among them lead.
    pub files: Vec<PathBuf>,
    /// The format, such as `gguf`; plugins name the formats that they load.
    pub format: String,
    /// Size of all its files, in bytes.
    pub size_bytes: u64,
    /// When the newest of its files was last changed.
    pub modified: SystemTime,
    /// The only plugin that may load it, if the user said so.
    pub plugin_pin: Option<String>,
    /// Options for the load, in the words of the plugin.
    pub options: Map<String, Value>,
    /// What the model is for, if the user said so.
    pub tasks_override: Option<Vec<Task>>,
    /// Class names by class id, if the user gave them.
    pub labels: Vec<String>,
    /// Never unload it to make room, nor because it is unused.
    pub pin: bool,
    /// Load it when the server starts.
    pub preload: bool,
    /// How long it may be unused before it is unloaded, if the user said so.
    pub idle_timeout: Option<Duration>,
    /// What it must still answer before a new version of it gets the route.
    pub golden: Vec<SelfTest>,
}

/// Something about a model or a folder that the user should mend. Other models are not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogProblem {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for CatalogProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}

impl Catalog {
    /// Searches folders down to [`DEPTH_MAX`] levels, up to [`ENTRIES_MAX`] entries in all; hidden entries are left out. An
    /// entry of `places` may also be the file or folder of one model. A file whose extension is one of `plugin_formats`
    /// is a model too, so that a plugin may bring a format that the host has never heard of.
    ///
    /// Never fails: what cannot be read or understood is a [`CatalogProblem`], which is logged as well. Blocks on the
    /// file system.
    #[must_use]
    pub fn scan(places: &[PathBuf], plugin_formats: &[String]) -> Self {
        let catalog = Self::scan_quietly(places, plugin_formats);
        catalog.log_problems();
        catalog
    }

    /// Like [`Catalog::scan`], for whoever does not know yet whether the problems matter.
    pub(crate) fn scan_quietly(places: &[PathBuf], plugin_formats: &[String]) -> Self {
        let (found, mut problems) = scan::scan(places, plugin_formats);
        let mut models = naming::name(found, &mut problems);
        models.sort_by(|a, b| a.id.cmp(&b.id));
        Self { models, problems }
    }

    pub(crate) fn log_problems(&self) {
        for problem in &self.problems {
            tracing::warn!("{problem}");
        }
    }

    /// The model with this id, alias or absolute path.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&ModelSpec> {
        let by_id = self.models.iter().find(|model| model.id == name);
        by_id.or_else(|| {
            self.models.iter().find(|model| {
                model.aliases.iter().any(|alias| alias == name) || model.path == Path::new(name)
            })
        })
    }
}

#[cfg(test)]
mod tests;
