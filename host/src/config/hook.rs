//! A hook of the configuration: which component it is, what it applies to and what it may use.

use std::path::{Path, PathBuf};

use pajamas_plugin_api::Task;
use pajamas_plugin_api::manifest::is_name;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Options;
use crate::hooks::{Grant, HookLimits};

/// Most hooks; more are refused.
pub const HOOKS_MAX: usize = 64;

/// One hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawHook")]
pub struct HookConfig {
    /// What it is called: in the log, in metrics, under `/admin/hooks`.
    pub name: String,
    /// Where its component is.
    #[serde(flatten)]
    pub source: HookSource,
    /// Names of models and routes that it applies to; empty means all.
    pub routes: Vec<String>,
    /// Tasks that it applies to; empty means all.
    pub tasks: Vec<Task>,
    /// Whether it sees what goes in and what comes out.
    pub phases: Vec<HookPhase>,
    /// Hooks run in this order, those with the same number in the order of the file.
    pub order: i32,
    /// What the hook reads as its configuration.
    pub config: Map<String, Value>,
    /// What it may use.
    pub limits: HookLimits,
    /// What it may have beside that.
    pub grants: Vec<Grant>,
    /// What happens to a request when the hook fails.
    pub on_error: OnError,
}

/// Where a hook's component is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookSource {
    /// A file.
    Path(PathBuf),
    /// An installed hook, by its name: `hooks/NAME/NAME.wasm` in the folder of the plugins.
    Hook(String),
}

/// What a hook sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookPhase {
    /// What goes into a model.
    Input,
    /// What comes out of it.
    Output,
}

/// What happens to a request when a hook fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// It is refused.
    #[default]
    Reject,
    /// It goes on without the hook.
    Pass,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    name: Option<String>,
    path: Option<PathBuf>,
    hook: Option<String>,
    #[serde(default)]
    routes: Vec<String>,
    #[serde(default)]
    tasks: Vec<Task>,
    #[serde(default)]
    phases: Vec<HookPhase>,
    #[serde(default)]
    order: i32,
    #[serde(default)]
    config: Options,
    #[serde(default)]
    limits: HookLimits,
    #[serde(default)]
    grants: Vec<Grant>,
    #[serde(default)]
    on_error: OnError,
}

impl TryFrom<RawHook> for HookConfig {
    type Error = String;

    fn try_from(raw: RawHook) -> Result<Self, String> {
        let source = match (raw.path, raw.hook) {
            (Some(path), None) => HookSource::Path(path),
            (None, Some(name)) if is_name(&name) => HookSource::Hook(name),
            (None, Some(name)) => return Err(format!("`hook` is \"{name}\", which no hook can be called")),
            _ => return Err("a hook needs either `path` or `hook`".to_owned()),
        };
        let name = raw.name.unwrap_or_else(|| source.default_name());
        if !is_name(&name) {
            return Err(format!(
                "`name` is \"{name}\": 1 to 64 lower-case letters, digits and hyphens are allowed"
            ));
        }
        raw.limits.check()?;
        let phases =
            if raw.phases.is_empty() { vec![HookPhase::Input, HookPhase::Output] } else { raw.phases };
        Ok(Self {
            name,
            source,
            routes: raw.routes,
            tasks: raw.tasks,
            phases,
            order: raw.order,
            config: raw.config.0,
            limits: raw.limits,
            grants: raw.grants,
            on_error: raw.on_error,
        })
    }
}

impl HookConfig {
    /// A hook from a file, with the defaults.
    #[must_use]
    pub fn of_file(path: PathBuf) -> Self {
        let source = HookSource::Path(path);
        Self {
            name: source.default_name(),
            source,
            routes: Vec::new(),
            tasks: Vec::new(),
            phases: vec![HookPhase::Input, HookPhase::Output],
            order: 0,
            config: Map::new(),
            limits: HookLimits::default(),
            grants: Vec::new(),
            on_error: OnError::default(),
        }
    }

    /// Takes a relative path from `folder`.
    pub(super) fn move_path_to(&mut self, folder: &Path) {
        if let HookSource::Path(path) = &mut self.source {
            *path = folder.join(&*path);
        }
    }
}

impl HookSource {
    fn default_name(&self) -> String {
        match self {
            Self::Hook(name) => name.clone(),
            Self::Path(path) => {
                let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                stem.to_ascii_lowercase().replace(['_', '.', ' '], "-")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HookConfig, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_path_is_enough() {
        let hook = read("path = \"/hooks/My_Hook.wasm\"").unwrap();
        assert_eq!(
            hook,
            HookConfig { name: "my-hook".into(), ..HookConfig::of_file("/hooks/My_Hook.wasm".into()) }
        );
    }

    #[test]
    fn what_is_shown_can_be_set_again() {
        let text = "hook = \"redact\"\ntasks = [\"generate\"]\nphases = [\"output\"]\norder = -1\non_error = \"pass\"\n\
                    grants = [\"clock\"]\nconfig = { kinds = [\"email\"] }\nlimits = { cpu_ms = 9 }";
        let hook = read(text).unwrap();
        let json = serde_json::to_string(&hook).unwrap();
        assert_eq!(serde_json::from_str::<HookConfig>(&json).unwrap(), hook, "{json}");
    }

    #[test]
    fn wrong_hooks_say_what_is_wrong() {
        let table = [
            ("name = \"x\"", "either `path` or `hook`"),
            ("path = \"a.wasm\"\nhook = \"a\"", "either `path` or `hook`"),
            ("hook = \"../a\"", "no hook can be called"),
            ("path = \"a.wasm\"\nname = \"A b\"", "`name` is"),
            ("path = \"a.wasm\"\nlimits = { cpu_ms = 0 }", "limits.cpu_ms"),
            ("path = \"a.wasm\"\nlimits = { memory_bytes = 99999999999 }", "limits.memory_bytes"),
            ("path = \"a.wasm\"\nlimits = { time = 1 }", "time"),
            ("path = \"a.wasm\"\ngrants = [\"network\"]", "network"),
            ("path = \"a.wasm\"\norders = 1", "orders"),
        ];
        for (text, part) in table {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
