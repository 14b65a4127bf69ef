//! `plugins list`: what is installed, and whether it works on this machine.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use pajamas_plugin_api::{Device, Task};
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
    print(&mut Printer::stdout(), &plugins, json)
}

/// The plugins as a table or as a JSON document.
pub(super) fn print<W: Write>(
    printer: &mut Printer<W>,
    plugins: &[PluginStatus],
    json: bool,
) -> Result<(), Error> {
    if json {
        return printer.json(&plugins.iter().map(Row::from).collect::<Vec<_>>());
    }
    let rows: Vec<_> = plugins.iter().map(|plugin| Row::from(plugin).cells()).collect();
    printer.table(["NAME", "VERSION", "STATE", "FORMATS", "TASKS", "DEVICES", "ENGINE"], &rows)
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
}

impl<'a> From<&'a PluginStatus> for Row<'a> {
    fn from(plugin: &'a PluginStatus) -> Self {
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
        }
    }
}

impl Row<'_> {
    fn cells(&self) -> [String; 7] {
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
        print(&mut Printer::new(&mut text), &[good, bad], false).unwrap();
        let expected = "\
NAME  VERSION  STATE     FORMATS  TASKS            DEVICES  ENGINE
gguf  0.1.0    ready     gguf     generate, embed  -        llama.cpp b1
cuda  0.1.0    rejected  gguf     generate, embed  -        no CUDA device
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
