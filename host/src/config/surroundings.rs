//! What the process finds around it: variables, its working folder, the user's folders.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use directories::ProjectDirs;
use serde::Deserialize;

use super::field::{FIELDS, Field, Kind};
use super::{CONFIG_FILE, CONFIG_VARIABLE, ConfigError, KEY_VARIABLE, RawConfig};

/// Begins the name of every variable that the host reads.
const PREFIX: &str = "PAJAMAS_";
/// Begins the names of variables that only the test suites read.
const TEST_PREFIX: &str = "PAJAMAS_TEST_";

/// The process's surroundings, as a value, so that tests can bring their own.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The variables whose names begin with `PAJAMAS_`.
    pub variables: BTreeMap<String, OsString>,
    /// Where relative paths begin.
    pub working_dir: PathBuf,
    /// The user's folders; `None` when the user has no home.
    pub folders: Option<Folders>,
}

/// The user's folders for this program, by the custom of the operating system.
#[derive(Clone, Debug)]
pub struct Folders {
    /// For the configuration file.
    pub config: PathBuf,
    /// For plugins and models.
    pub data: PathBuf,
    /// For what can be made again.
    pub cache: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    ///
    /// # Errors
    /// The working folder does not exist any more or cannot be read.
    pub fn of_this_process() -> std::io::Result<Self> {
        let ours = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            Some((name, value))
        };
        let folders = ProjectDirs::from("", "", "pajamas-host").map(|dirs| Folders {
            config: dirs.config_dir().to_owned(),
            data: dirs.data_local_dir().to_owned(),
            cache: dirs.cache_dir().to_owned(),
        });
        let variables = env::vars_os().filter_map(ours).collect();
        Ok(Self { variables, working_dir: env::current_dir()?, folders })
    }

    /// The path, seen from the working folder.
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        let joined = self.working_dir.join(path);
        // Only an empty path fails, and the working folder is none.
        std::path::absolute(&joined).unwrap_or(joined)
    }

    /// The configuration file to read: the named one, else the variable's, else the nearest that exists.
    pub(super) fn config_file(&self, named: Option<&Path>) -> Option<PathBuf> {
        let variable = self.variables.get(CONFIG_VARIABLE).filter(|value| !value.is_empty());
        if let Some(path) = named.or(variable.map(Path::new)) {
            return Some(self.absolute(path));
        }
        let nearby =
            [Some(self.working_dir.clone()), self.folders.as_ref().map(|folders| folders.config.clone())];
        nearby.into_iter().flatten().map(|folder| folder.join(CONFIG_FILE)).find(|path| path.is_file())
    }

    /// The layer of the configuration that the variables are. An empty variable is as good as none.
    pub(super) fn raw_config(&self) -> Result<RawConfig, ConfigError> {
        let mut raw = RawConfig::default();
        for field in FIELDS {
            let name = field.variable();
            let Some(value) = self.variables.get(&name).filter(|value| !value.is_empty()) else {
                continue;
            };
            match read(field, value) {
                Ok(layer) => raw = raw.or(layer),
                Err(problem) => {
                    let value = value.to_string_lossy().into_owned();
                    return Err(ConfigError::Variable { name, value, problem });
                }
            }
        }
        Ok(raw)
    }

    /// Variables that begin like the host's but are none.
    pub(super) fn unknown_variables(&self) -> Vec<String> {
        let is_known = |name: &str| {
            [CONFIG_VARIABLE, KEY_VARIABLE].contains(&name)
                || FIELDS.iter().any(|field| field.variable() == name)
        };
        let names = self.variables.keys();
        names.filter(|name| !name.starts_with(TEST_PREFIX) && !is_known(name)).cloned().collect()
    }
}

/// A layer with nothing but this field, read as the file would be: one set of rules for both.
fn read(field: &Field, value: &OsStr) -> Result<RawConfig, String> {
    let mut value = to_toml(field.kind, value)?;
    for key in field.path.rsplit('.') {
        value = toml::Value::Table([(key.to_owned(), value)].into_iter().collect());
    }
    RawConfig::deserialize(value).map_err(|error| error.message().to_owned())
}

fn to_toml(kind: Kind, value: &OsStr) -> Result<toml::Value, String> {
    let text = || value.to_str().map(str::to_owned).ok_or("expected UTF-8");
    Ok(match kind {
        Kind::Text => toml::Value::String(text()?),
        Kind::Number => toml::Value::Integer(text()?.trim().parse().map_err(|_| "expected a whole number")?),
        Kind::Boolean => match text()?.trim() {
            "1" | "true" => toml::Value::Boolean(true),
            "0" | "false" => toml::Value::Boolean(false),
            _ => return Err("expected true or false".to_owned()),
        },
        Kind::Names => {
            let text = text()?;
            let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
            toml::Value::Array(names.map(|name| toml::Value::String(name.to_owned())).collect())
        }
        Kind::Paths => {
            let paths = env::split_paths(value).filter(|path| !path.as_os_str().is_empty());
            let paths = paths.map(|path| path.into_os_string().into_string().map(toml::Value::String));
            toml::Value::Array(paths.collect::<Result<_, _>>().map_err(|_| "expected UTF-8")?)
        }
    })
}
