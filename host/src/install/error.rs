//! Why a plugin was not installed.

use pajamas_registry::source::SourceError;
use pajamas_registry::{RegistryError, StoreError};

use super::gates::GateReport;

/// Why a plugin was not installed. What was active before still is.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No registry is configured.
    #[error(
        "no registry is configured: add a table [registries.NAME] with its location and key to pajamas.toml (see docs/plugins.md)"
    )]
    NoRegistry,
    /// There is no registry of this name.
    #[error("there is no registry \"{name}\" in the configuration; there are: {}", .known.join(", "))]
    UnknownRegistry {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// There is no folder to remember registries in.
    #[error(
        "this user has no home folder in which registries could be remembered: set state_dir (see docs/configuration.md)"
    )]
    NoState,
    /// The registry cannot be read, or is not trusted.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The plugins folder cannot be changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plugin has no such variant.
    #[error("plugin {name} has no variant \"{variant}\" of that version; there are: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    UnknownVariant {
        /// The plugin.
        name: String,
        /// The variant.
        variant: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No release can run here.
    #[error("no release of plugin {name} can run on this machine: {}", .reasons.join("; "))]
    Unfit {
        /// The plugin.
        name: String,
        /// Why not, for each.
        reasons: Vec<String>,
    },
    /// It asks for more than the default.
    #[error("{title} asks for permission to {}: install it with --grant to allow that", .asked.join(", "))]
    NotGranted {
        /// The release.
        title: String,
        /// What it asks for.
        asked: Vec<String>,
    },
    /// It works, but finds no device on this machine.
    #[error("{}", .0.problem())]
    NoDevice(GateReport),
    /// It did not pass a gate.
    #[error("{}", .0.problem())]
    Gate(GateReport),
    /// The file that says which version is active cannot be replaced.
    #[error("cannot write which version is active")]
    Pointer(#[source] std::io::Error),
    /// This program's own file, which runs the gates, is not found.
    #[error("cannot find this program's own file, which tries plugins out")]
    Executable(#[source] std::io::Error),
}

impl InstallError {
    /// The gates, where the plugin did not pass one.
    #[must_use]
    pub fn gates(&self) -> Option<&GateReport> {
        match self {
            Self::NoDevice(report) | Self::Gate(report) => Some(report),
            _ => None,
        }
    }
}

impl From<SourceError> for InstallError {
    fn from(error: SourceError) -> Self {
        Self::Registry(error.into())
    }
}
