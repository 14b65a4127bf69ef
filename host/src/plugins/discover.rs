//! Discovery: reads the manifests below the plugins folder. No plugin code runs.

use std::path::{Path, PathBuf};

use pajamas_plugin_api::Manifest;
use pajamas_plugin_api::manifest::{MANIFEST_FILE, ManifestError, is_name};

/// Name of the pointer file that a registry install keeps beside the versions.
pub const ACTIVE_FILE: &str = "active";
/// Most entries of the plugins folder that are looked at; the others are ignored with a warning.
pub const ENTRIES_MAX: usize = 1024;
/// Longest content of an `active` file, in bytes.
const ACTIVE_BYTES_MAX: usize = 256;

/// A plugin that was found.
#[derive(Clone, Debug)]
pub struct FoundPlugin {
    /// Folder with `plugin.toml`, absolute.
    pub dir: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
}

impl FoundPlugin {
    /// The library for this platform.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.manifest.library(&self.dir)
    }
}

/// A folder that looks like a plugin but is not usable.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverProblem {
    /// The manifest is unusable.
    #[error("plugin in {dir}")]
    Manifest {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// Two folders hold plugins of the same name.
    #[error("plugin {name} is in {first} and in {second}: the second one is ignored, remove one of them")]
    Duplicate {
        /// The name.
        name: String,
        /// The folder that is used.
        first: PathBuf,
        /// The folder that is ignored.
        second: PathBuf,
    },
    /// The `active` file does not name a version that is there.
    #[error("{path} names \"{version}\", which is not a folder with a plugin beside it")]
    Active {
        /// The pointer file.
        path: PathBuf,
        /// What it says.
        version: String,
    },
}

/// Why the plugins folder cannot be searched.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the plugins folder {dir}")]
pub struct DiscoverError {
    /// The folder.
    pub dir: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Usable plugins, by name.
    pub plugins: Vec<FoundPlugin>,
    /// Folders that could not be used.
    pub problems: Vec<DiscoverProblem>,
}

/// Searches a plugins folder: `<dir>/<name>/plugin.toml`, or `<dir>/<name>/active` naming a version folder beside it.
/// Other entries are ignored.
///
/// # Errors
/// The folder does not exist or is not readable.
pub fn discover(dir: &Path) -> Result<Found, DiscoverError> {
    let error = |source| DiscoverError { dir: dir.to_owned(), source };
    let dir = dir.canonicalize().map_err(error)?;
    let mut entries: Vec<PathBuf> = std::fs::read_dir(&dir)
        .map_err(error)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .take(ENTRIES_MAX + 1)
        .collect();
    if entries.len() > ENTRIES_MAX {
        tracing::warn!(dir = %dir.display(), limit = ENTRIES_MAX, "the plugins folder has too many entries");
        entries.truncate(ENTRIES_MAX);
    }
    entries.sort();
    let mut found = Found::default();
    for entry in entries {
        match locate(&entry) {
            Ok(Some(folder)) => found.add(folder),
            Ok(None) => {}
            Err(problem) => found.problems.push(problem),
        }
    }
    Ok(found)
}

/// The folder with the manifest, if `entry` holds a plugin.
fn locate(entry: &Path) -> Result<Option<PathBuf>, DiscoverProblem> {
    if entry.join(MANIFEST_FILE).is_file() {
        return Ok(Some(entry.to_owned()));
    }
    let pointer = entry.join(ACTIVE_FILE);
    if !pointer.is_file() {
        return Ok(None);
    }
    let content = std::fs::read(&pointer).unwrap_or_default();
    let version = String::from_utf8_lossy(&content[..content.len().min(ACTIVE_BYTES_MAX)]).trim().to_owned();
    let plain = !version.is_empty() && !version.contains(['/', '\\']) && version != "." && version != "..";
    let folder = entry.join(&version);
    if plain && folder.join(MANIFEST_FILE).is_file() {
        Ok(Some(folder))
    } else {
        Err(DiscoverProblem::Active { path: pointer, version })
    }
}

/// Why a version of a plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// There is no folder for it.
    #[error("plugin {plugin} has no version \"{version}\" in {dir}; there are: {available}")]
    Missing {
        /// The plugin.
        plugin: String,
        /// The version that was asked for.
        version: String,
        /// The plugin's folder.
        dir: PathBuf,
        /// The versions that are there, comma-separated.
        available: String,
    },
    /// The folder holds no usable plugin.
    #[error("plugin {plugin}: {reason}")]
    Unusable {
        /// The plugin.
        plugin: String,
        /// Why.
        reason: String,
    },
}

/// The version of a plugin that `version` names, by its folder (`1.2.0+0123456789ab`) or by its manifest (`1.2.0`); without a
/// name the one that the folder itself holds or that its `active` file points to.
///
/// # Errors
/// See [`VersionError`].
pub fn version(plugins_dir: &Path, plugin: &str, version: Option<&str>) -> Result<FoundPlugin, VersionError> {
    let unusable = |reason: String| VersionError::Unusable { plugin: plugin.to_owned(), reason };
    let dir = plugins_dir.join(plugin).canonicalize().map_err(|error| unusable(error.to_string()))?;
    let located = locate(&dir).map_err(|problem| unusable(crate::error_chain(&problem)))?;
    let read = |dir: PathBuf| Manifest::read(&dir).map(|manifest| FoundPlugin { dir, manifest });
    let Some(wanted) = version else {
        let dir = located.ok_or_else(|| unusable(format!("{} holds no plugin", dir.display())))?;
        return read(dir).map_err(|error| unusable(crate::error_chain(&error)));
    };
    let folders = std::fs::read_dir(&dir).into_iter().flatten().take(ENTRIES_MAX);
    let folders = folders.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let candidates = located.into_iter().chain(folders.filter(|folder| folder.join(MANIFEST_FILE).is_file()));
    let mut available = Vec::new();
    for found in
        candidates.filter_map(|folder| read(folder).ok()).filter(|found| found.manifest.name == plugin)
    {
        let number = found.manifest.version.to_string();
        if number == wanted || found.dir.file_name().is_some_and(|name| name == wanted) {
            return Ok(found);
        }
        if !available.contains(&number) {
            available.push(number);
        }
    }
    let (plugin, version) = (plugin.to_owned(), wanted.to_owned());
    Err(VersionError::Missing { plugin, version, dir, available: available.join(", ") })
}

/// Makes the plugin in `dir` the one that the next start finds. Nothing is to be done for a folder without versions.
///
/// # Errors
/// The `active` file cannot be replaced; it is as it was before.
pub fn activate(dir: &Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let pointer = parent.join(ACTIVE_FILE);
    if !pointer.is_file() {
        return Ok(());
    }
    let draft = parent.join(format!(".{ACTIVE_FILE}.{}", std::process::id()));
    std::fs::write(&draft, format!("{name}\n"))?;
    std::fs::rename(&draft, &pointer)
}

impl Found {
    fn add(&mut self, dir: PathBuf) {
        match Manifest::read(&dir) {
            Err(source) => self.problems.push(DiscoverProblem::Manifest { dir, source }),
            Ok(manifest) => {
                debug_assert!(is_name(&manifest.name));
                match self.plugins.iter().find(|plugin| plugin.manifest.name == manifest.name) {
                    Some(first) => self.problems.push(DiscoverProblem::Duplicate {
                        name: manifest.name,
                        first: first.dir.clone(),
                        second: dir,
                    }),
                    None => self.plugins.push(FoundPlugin { dir, manifest }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "name = \"{name}\"\nversion = \"1.0.0\"\npublisher = \"p\"\nlicense = \"MIT\"\n\
             description = \"d\"\nabi = \">=1.0, <2\"\nentry = \"lib/x\"\n"
        )
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn finds_plain_folders_and_active_versions_and_reports_the_rest() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        put(root, "echo/plugin.toml", &manifest("echo"));
        put(root, "gguf/1.0.0+abc/plugin.toml", &manifest("gguf"));
        put(root, "gguf/active", "1.0.0+abc\n");
        put(root, "copy/plugin.toml", &manifest("echo"));
        put(root, "broken/plugin.toml", "name = 1");
        put(root, "gone/active", "2.0.0");
        put(root, "escape/active", "../echo");
        put(root, "notes/readme.txt", "not a plugin");
        let found = discover(root).unwrap();
        let names: Vec<&str> = found.plugins.iter().map(|p| p.manifest.name.as_str()).collect();
        assert_eq!(names, ["echo", "gguf"]);
        let mut problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        problems.sort();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems.iter().any(|p| p.contains("\"../echo\"")), "{problems:?}");
        assert!(problems.iter().any(|p| p.contains("the second one is ignored")), "{problems:?}");
    }

    #[test]
    fn versions_are_found_by_folder_and_by_number_and_one_is_active() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        put(root, "gguf/old/plugin.toml", &manifest("gguf").replace("1.0.0", "0.9.0"));
        put(root, "gguf/1.0.0+abc/plugin.toml", &manifest("gguf"));
        put(root, "gguf/active", "old");
        put(root, "echo/plugin.toml", &manifest("echo"));
        let number = |plugin: &str, wanted: Option<&str>| {
            version(root, plugin, wanted)
                .map(|found| found.manifest.version.to_string())
                .map_err(|e| e.to_string())
        };
        assert_eq!(number("gguf", None).as_deref(), Ok("0.9.0"));
        assert_eq!(number("gguf", Some("1.0.0")).as_deref(), Ok("1.0.0"));
        assert_eq!(number("gguf", Some("1.0.0+abc")).as_deref(), Ok("1.0.0"));
        assert_eq!(number("echo", Some("1.0.0")).as_deref(), Ok("1.0.0"));
        let missing = number("gguf", Some("2.0.0")).unwrap_err();
        assert!(
            missing.contains("\"2.0.0\"") && missing.contains("0.9.0") && missing.contains("1.0.0"),
            "{missing}"
        );
        assert!(number("nobody", None).is_err());
        activate(&version(root, "gguf", Some("1.0.0")).unwrap().dir).unwrap();
        assert_eq!(number("gguf", None).as_deref(), Ok("1.0.0"));
        // Nothing to point with.
        activate(&version(root, "echo", None).unwrap().dir).unwrap();
        assert!(!root.join("active").exists());
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = discover(Path::new("/nowhere/plugins")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the plugins folder /nowhere/plugins");
    }
}
