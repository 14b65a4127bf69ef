//! `plugins list`: what is installed, and whether it works on this machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pajamas_plugin_api::manifest::Permissions;
use pajamas_plugin_api::{Device, Task};
use pajamas_registry::{Installed, Listing, Origin, Store, System};
use serde::Serialize;

use super::print::{Printer, list};
use super::{Error, block_on};
use crate::config::Config;
use crate::engine::{Engine, PluginState, PluginStatus};

pub(super) fn run(mut config: Config, json: bool) -> Result<(), Error> {
    // No model is needed to try a plugin.
    config.models_dirs.clear();
    let plugins = block_on(async {
        let engine = Engine::start(&config)?;
        engine.probed().await;
        let plugins = engine.plugins();
        engine.shutdown(Duration::ZERO).await;
        Ok(plugins)
    })?;
    let installed = installed(&config);
    let rows: Vec<_> = plugins.iter().map(|plugin| Row::new(plugin, &installed)).collect();
    print(&mut Printer::stdout(), &rows, json)
}

/// How the plugins came to be installed. Of a folder that is not safe to install into, nothing is known.
pub(super) fn installed(config: &Config) -> Vec<Installed> {
    let listing = Store::open(&config.plugins_dir, System::default()).and_then(|store| store.installed());
    let listing = listing.unwrap_or_else(|error| {
        tracing::warn!("{}", crate::error_chain(&error));
        Listing::default()
    });
    listing.problems.iter().for_each(|problem| tracing::warn!("{}", crate::error_chain(problem)));
    listing.plugins
}

/// The plugins as a table or as a JSON document.
pub(super) fn print<W: Write>(
    printer: &mut Printer<W>,
    plugins: &[Row<'_>],
    json: bool,
) -> Result<(), Error> {
    if json {
        return printer.json(&plugins);
    }
    let rows: Vec<_> = plugins.iter().map(Row::cells).collect();
    printer.table(["NAME", "VERSION", "STATE", "FORMATS", "TASKS", "DEVICES", "FROM", "ENGINE"], &rows)
}

/// One plugin of the list.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    name: &'a str,
    version: &'a str,
    description: &'a str,
    path: &'a PathBuf,
    formats: &'a [String],
    tasks: &'a [Task],
    state: &'static str,
    /// Why it cannot be used.
    reason: Option<&'a str>,
    engine: Option<&'a str>,
    devices: &'a [Device],
    /// How it came to be installed, where that is known.
    installation: Option<Installation<'a>>,
}

/// How a plugin came to be installed.
#[derive(Serialize)]
struct Installation<'a> {
    publisher: &'a str,
    variant: Option<&'a str>,
    origin: &'a Origin,
    /// When, in words of RFC 3339; `None` for a folder that somebody put there.
    installed: Option<String>,
    /// What it may do beyond the default.
    granted: &'a Permissions,
    /// The version that `plugins rollback` goes back to.
    previous: Option<String>,
}

impl<'a> Installation<'a> {
    /// That of the version in `dir`.
    fn find(dir: &Path, all: &'a [Installed]) -> Option<Self> {
        let this = all.iter().find(|installed| installed.dir == dir)?;
        let previous =
            all.iter().find(|other| other.is_previous && other.manifest.name == this.manifest.name);
        Some(Self {
            publisher: &this.manifest.publisher,
            variant: this.manifest.variant.as_deref(),
            origin: &this.origin,
            installed: this.installed.map(|time| time.to_string()),
            granted: &this.granted,
            previous: previous.map(|previous| previous.manifest.version.to_string()),
        })
    }
}

impl<'a> Row<'a> {
    pub(super) fn new(plugin: &'a PluginStatus, installed: &'a [Installed]) -> Self {
        let (state, reason) = match &plugin.state {
            PluginState::Probing => ("probing", None),
            PluginState::Ready => ("ready", None),
            PluginState::Running => ("running", None),
            PluginState::Rejected(reason) => ("rejected", Some(reason.as_str())),
            PluginState::Quarantined(reason) => ("quarantined", Some(reason.as_str())),
        };
        Self {
            name: &plugin.name,
            version: &plugin.version,
            description: &plugin.description,
            path: &plugin.path,
            formats: &plugin.formats,
            tasks: &plugin.tasks,
            state,
            reason,
            engine: plugin.engine.as_deref(),
            devices: &plugin.devices,
            installation: Installation::find(&plugin.path, installed),
        }
    }

    /// Where it comes from, and what it goes back to.
    fn from(&self) -> String {
        let Some(Installation { publisher, origin, previous, .. }) = &self.installation else {
            return "-".to_owned();
        };
        let source = match origin {
            Origin::Signed { registry, .. } => format!("registry {registry}, signed by {publisher}"),
            Origin::Unsigned => "folder, unsigned".to_owned(),
        };
        previous.as_ref().map_or_else(|| source.clone(), |previous| format!("{source}, previous {previous}"))
    }

    fn cells(&self) -> [String; 8] {
        let devices: Vec<_> = self.devices.iter().map(|device| &device.id).collect();
        // The reason is the longest cell, and a rejected plugin has no engine to name.
        let last = self.reason.or(self.engine).unwrap_or("-");
        [
            self.name.to_owned(),
            self.version.to_owned(),
            self.state.to_owned(),
            list(self.formats),
            list(self.tasks),
            list(&devices),
            self.from(),
            last.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_plugin_is_listed_with_its_reason() {
        let good = PluginStatus {
            name: "gguf".into(),
            version: "0.1.0".into(),
            description: "d".into(),
            path: "/p/gguf".into(),
            formats: vec!["gguf".into()],
            tasks: vec![Task::Generate, Task::Embed],
            state: PluginState::Ready,
            engine: Some("llama.cpp b1".into()),
            devices: vec![],
        };
        let bad = PluginStatus {
            name: "cuda".into(),
            state: PluginState::Rejected("no CUDA device".into()),
            engine: None,
            ..good.clone()
        };
        let mut text = Vec::new();
        let rows = [Row::new(&good, &[]), Row::new(&bad, &[])];
        print(&mut Printer::new(&mut text), &rows, false).unwrap();
        let expected = "\
NAME  VERSION  STATE     FORMATS  TASKS            DEVICES  FROM  ENGINE
gguf  0.1.0    ready     gguf     generate, embed  -        -     llama.cpp b1
cuda  0.1.0    rejected  gguf     generate, embed  -        -     no CUDA device
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
