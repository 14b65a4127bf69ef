//! `model.toml`: what the user says about a model.

use std::fs;
use std::path::{Component, Path, PathBuf};

use pajamas_plugin_api::Task;
use pajamas_plugin_api::manifest::{SelfTest, is_name};
use serde::Deserialize;

use crate::config::{Millis, Options};

/// Name of the settings file in a model's folder.
pub const SETTINGS_FILE: &str = "model.toml";
/// Largest settings file that is read, in bytes; a larger one is refused.
pub const SETTINGS_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name or alias, in bytes; a longer one is refused.
pub const NAME_BYTES_MAX: usize = 256;
/// Most aliases of a model; more are refused.
pub const ALIASES_MAX: usize = 64;

/// The settings of a model. Everything may be left out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// The public name, instead of the file's or folder's own.
    pub name: Option<String>,
    /// Further public names.
    pub aliases: Vec<String>,
    /// Which file or folder the settings are about, relative to theirs; needed in `model.toml` when several models lie
    /// beside it.
    pub file: Option<PathBuf>,
    /// The format, when the name does not tell it.
    pub format: Option<String>,
    /// What the model is for, instead of what its plugin thinks.
    pub tasks: Option<Vec<Task>>,
    /// Class names by class id.
    pub labels: Vec<String>,
    /// The only plugin that may load it.
    pub plugin: Option<String>,
    /// Options for the load, in the words of the plugin.
    pub options: Options,
    /// Never unload it to make room, nor because it is unused.
    pub pin: bool,
    /// Load it when the server starts.
    pub preload: bool,
    /// How long it may be unused before it is unloaded, instead of `memory.idle_timeout_ms`.
    pub idle_timeout_ms: Option<Millis>,
    /// What the model must still answer before a new version of its plugin or of its file gets the route.
    pub golden: Vec<SelfTest>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// The file is larger than [`SETTINGS_BYTES_MAX`].
    #[error("has {len} bytes, at most {SETTINGS_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length in bytes.
        len: u64,
    },
    /// Not TOML, or a field is unknown or of a wrong type.
    #[error("is not valid: {0}")]
    Parse(Box<toml::de::Error>),
    /// A field has a value that is not allowed.
    #[error("field \"{field}\" {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

impl ModelSettings {
    /// Reads a settings file.
    ///
    /// # Errors
    /// See [`SettingsError`]; the file's name is for the caller to add.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let len = fs::metadata(path).map_err(SettingsError::Read)?.len();
        if len > SETTINGS_BYTES_MAX {
            return Err(SettingsError::TooLarge { len });
        }
        Self::parse(&fs::read_to_string(path).map_err(SettingsError::Read)?)
    }

    /// Parses the text of a settings file.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text).map_err(|source| SettingsError::Parse(Box::new(source)))?;
        match settings.problem() {
            None => Ok(settings),
            Some((field, problem)) => Err(SettingsError::Field { field, problem }),
        }
    }

    fn problem(&self) -> Option<(&'static str, String)> {
        if let Some(problem) = self.name.as_deref().and_then(name_problem) {
            return Some(("name", problem));
        }
        if self.aliases.len() > ALIASES_MAX {
            return Some((
                "aliases",
                format!("has {} names, at most {ALIASES_MAX} are allowed", self.aliases.len()),
            ));
        }
        if let Some(problem) = self.aliases.iter().find_map(|alias| name_problem(alias)) {
            return Some(("aliases", problem));
        }
        if let Some(file) = self.file.as_deref().filter(|file| !is_inside(file)) {
            let problem =
                format!("is \"{}\": expected a path inside the settings' own folder", file.display());
            return Some(("file", problem));
        }
        if self.format.as_deref().is_some_and(|format| !is_name(format)) {
            return Some((
                "format",
                "expected lower-case letters, digits and hyphens, such as gguf".to_owned(),
            ));
        }
        if self.plugin.as_deref().is_some_and(|plugin| !is_name(plugin)) {
            return Some(("plugin", "expected the name of a plugin, such as gguf".to_owned()));
        }
        if self.tasks.as_ref().is_some_and(Vec::is_empty) {
            return Some(("tasks", "is empty: name a task, or leave the field out".to_owned()));
        }
        None
    }
}

/// What is wrong with a public name, if anything.
fn name_problem(name: &str) -> Option<String> {
    if name.len() > NAME_BYTES_MAX {
        return Some(format!("has {} bytes, at most {NAME_BYTES_MAX} are allowed", name.len()));
    }
    let is_sound = !name.is_empty() && name.trim() == name && !name.contains(char::is_control);
    (!is_sound)
        .then(|| format!("is {name:?}: expected a name without spaces around it or control characters"))
}

/// Whether a relative path stays in its folder.
fn is_inside(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_fields_are_read() {
        let settings = ModelSettings::parse(
            "name = 'tiny'\naliases = ['t', 'org/tiny']\nfile = 'weights.bin'\nformat = 'gguf'\n\
             tasks = ['embed', 'my_task']\nlabels = ['cat', 'dog']\nplugin = 'gguf'\n[options]\ncontext = 512",
        )
        .unwrap();
        assert_eq!(settings.name.as_deref(), Some("tiny"));
        assert_eq!(settings.aliases, ["t", "org/tiny"]);
        assert_eq!(settings.file.as_deref(), Some(Path::new("weights.bin")));
        assert_eq!(settings.format.as_deref(), Some("gguf"));
        assert_eq!(settings.tasks, Some(vec![Task::Embed, Task::Other("my_task".into())]));
        assert_eq!(settings.labels, ["cat", "dog"]);
        assert_eq!(settings.plugin.as_deref(), Some("gguf"));
        assert_eq!(settings.options.0["context"], 512);
        assert_eq!(ModelSettings::parse("").unwrap(), ModelSettings::default());
    }

    #[test]
    fn wrong_settings_name_the_field_and_what_was_expected() {
        let long = format!("name = '{}'", "x".repeat(257));
        let many = format!("aliases = [{}]", "'a',".repeat(65));
        let cases = [
            ("nmae = 'x'", "unknown field `nmae`, expected one of"),
            ("name = 5", "expected a string"),
            ("name = ''", "field \"name\" is \"\": expected a name"),
            ("name = ' x'", "field \"name\" is \" x\": expected a name"),
            (&long, "field \"name\" has 257 bytes, at most 256"),
            ("aliases = [\"a\\n\"]", "field \"aliases\" is \"a\\n\": expected a name"),
            (&many, "field \"aliases\" has 65 names, at most 64"),
            ("file = '../x.gguf'", "field \"file\" is \"../x.gguf\": expected a path inside"),
            ("file = '/x.gguf'", "field \"file\""),
            ("format = 'GGUF!'", "field \"format\" expected lower-case"),
            ("plugin = 'My Plugin'", "field \"plugin\" expected the name of a plugin"),
            ("tasks = []", "field \"tasks\" is empty"),
            ("[options]\nx = 1979-05-27", "option \"x\" is the date"),
        ];
        for (text, expected) in cases {
            let error = ModelSettings::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,400}") {
            let _ = ModelSettings::parse(&text);
        }

        #[test]
        fn any_assignment_is_parsed_or_refused(
            key in "(name|aliases|file|format|tasks|labels|plugin|options|options\\.x)",
            value in "('[^']{0,9}'|[0-9]{1,9}|\\[('a',)*\\]|\\{ y = 1 \\}|true|nan|1979-05-27)",
        ) {
            let _ = ModelSettings::parse(&format!("{key} = {value}"));
        }
    }
}
