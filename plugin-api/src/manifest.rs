//! `plugin.toml`: what a plugin is, what it needs and what it asks for, readable without running any of its code.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::compute::ComputeRule;
use crate::device::Accel;
use crate::task::Task;

/// Name of the file in a plugin's folder.
pub const MANIFEST_FILE: &str = "plugin.toml";
/// Largest manifest that is read, in bytes; a larger one is refused.
pub const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;

/// Begin the names of variables that a manifest may set: those of runtimes for threads, matrices and devices.
const VARIABLE_PREFIXES: [&str; 14] = [
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "BLIS_",
    "CUDA_",
    "CUBLAS_",
    "CUDNN_",
    "NCCL_",
    "HIP_",
    "HSA_",
    "GGML_",
    "ORT_",
];

/// A plugin's manifest. Constraints are structured; nothing is guessed from a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Short name: lower-case letters, digits and hyphens.
    pub name: String,
    /// Semantic version of the plugin.
    pub version: Version,
    /// Hardware that this build of the version is for, where a version has several builds: `cpu`, `cuda`. Rules as for `name`.
    #[serde(default)]
    pub variant: Option<String>,
    /// Who publishes it.
    pub publisher: String,
    /// SPDX expression.
    pub license: String,
    /// One sentence for people.
    pub description: String,
    /// ABI versions of hosts that it works with, such as `>=1.0, <2`; the handshake decides in the end.
    pub abi: VersionReq,
    /// The library, relative to the folder. Without an extension the platform's prefix and suffix are added to the
    /// file name: `lib/pajamas_gguf` is `lib/libpajamas_gguf.so` on Linux.
    pub entry: PathBuf,
    /// Model formats, such as `gguf`.
    #[serde(default)]
    pub formats: Vec<String>,
    /// Tasks that models of this plugin may offer.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// Preference among plugins that fit equally; higher wins.
    #[serde(default)]
    pub priority: i32,
    /// Machines that it runs on.
    #[serde(default)]
    pub target: Target,
    /// Accelerator that it needs.
    #[serde(default)]
    pub accel: Option<AccelNeeds>,
    /// Its files, for verification.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// What it asks to be allowed.
    #[serde(default)]
    pub permissions: Permissions,
    /// Variables of the environment that its process gets, unless the host's own has them: what a runtime reads when its
    /// library is loaded, before any code of the plugin runs.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Golden requests that prove a working installation.
    #[serde(default)]
    pub self_test: Vec<SelfTest>,
}

/// Machines that a plugin runs on; an empty list or `None` means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// Operating systems as in `std::env::consts::OS`: `linux`, `macos`, `windows`.
    pub os: Vec<String>,
    /// Architectures as in `std::env::consts::ARCH`: `x86_64`, `aarch64`.
    pub arch: Vec<String>,
    /// Oldest version of an operating system, by its name in `os`: `macos = "13.0"`.
    pub os_min: BTreeMap<String, String>,
    /// Oldest glibc, such as `2.31`.
    pub glibc_min: Option<String>,
    /// CPU features as the Rust compiler names them: `avx2`, `fma`.
    pub cpu_features: Vec<String>,
}

/// Accelerator that a plugin needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccelNeeds {
    /// Interface.
    pub api: Accel,
    /// Oldest driver, as an integer: 13000 is CUDA 13.0.
    #[serde(default)]
    pub driver_min: Option<u32>,
    /// Compute capabilities: `8.0` for that one, `>=12.0` for all newer ones too; empty means any.
    #[serde(default)]
    pub compute: Vec<ComputeRule>,
    /// Least device memory, in MiB.
    #[serde(default)]
    pub vram_min_mb: Option<u64>,
}

/// One file of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path relative to the folder.
    pub path: PathBuf,
    /// Hash, lower-case hexadecimal.
    pub sha256: String,
    /// Length in bytes.
    pub len: u64,
}

/// What a plugin asks to be allowed beyond reading its own folder and the models. The operator grants it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Permissions {
    /// Connect to other machines.
    pub network: bool,
    /// Further paths to read.
    pub read: Vec<PathBuf>,
    /// Further paths to write.
    pub write: Vec<PathBuf>,
}

/// A tiny request and what must come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// Task.
    pub task: Task,
    /// Model file inside the plugin's folder, or none for the model at hand.
    #[serde(default)]
    pub model: Option<PathBuf>,
    /// Text input.
    #[serde(default)]
    pub input: String,
    /// Parameters.
    #[serde(default)]
    pub params: serde_json::Map<String, serde_json::Value>,
    /// Text that the output must contain.
    #[serde(default)]
    pub contains: Option<String>,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is larger than [`MANIFEST_BYTES_MAX`].
    #[error("{path} has {len} bytes, at most {MANIFEST_BYTES_MAX} are allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// Not TOML, or a field is missing, unknown or of a wrong type.
    #[error("{path} is not a plugin manifest")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A field has a value that is not allowed.
    #[error("{path}: field \"{field}\" {problem}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
}

impl Manifest {
    /// Reads the manifest of the plugin in `dir`. Runs no plugin code.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn read(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(MANIFEST_FILE);
        let read = |source| ManifestError::Read { path: path.clone(), source };
        let len = std::fs::metadata(&path).map_err(read)?.len();
        if len > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { path, len });
        }
        let text = std::fs::read_to_string(&path).map_err(read)?;
        Self::parse(&text, &path)
    }

    /// Parses a manifest; `path` is for messages only.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text)
            .map_err(|source| ManifestError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        manifest.check(path)?;
        Ok(manifest)
    }

    /// Checks the fields' values, as [`parse`](Self::parse) does; for manifests that come as something else than TOML.
    ///
    /// # Errors
    /// [`ManifestError::Field`]; `path` is for its message only.
    pub fn check(&self, path: &Path) -> Result<(), ManifestError> {
        match self.problem() {
            None => Ok(()),
            Some((field, problem)) => Err(ManifestError::Field { path: path.to_owned(), field, problem }),
        }
    }

    fn problem(&self) -> Option<(&'static str, String)> {
        if !is_name(&self.name) {
            let problem =
                format!("is \"{}\": 1 to 64 lower-case letters, digits and hyphens are allowed", self.name);
            return Some(("name", problem));
        }
        if let Some(variant) = self.variant.as_ref().filter(|variant| !is_name(variant)) {
            let problem =
                format!("is \"{variant}\": 1 to 64 lower-case letters, digits and hyphens are allowed");
            return Some(("variant", problem));
        }
        let inside = |path: &Path| {
            let mut parts = path.components().peekable();
            parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        if !inside(&self.entry) {
            let problem =
                format!("is \"{}\": a path inside the plugin's folder is needed", self.entry.display());
            return Some(("entry", problem));
        }
        if let Some(file) = self.files.iter().find(|file| !inside(&file.path)) {
            let problem =
                format!("has the path \"{}\", which leaves the plugin's folder", file.path.display());
            return Some(("files", problem));
        }
        let systems = self.target.os_min.values().map(|release| ("target.os_min", release));
        let glibc = self.target.glibc_min.iter().map(|release| ("target.glibc_min", release));
        if let Some((field, release)) = systems.chain(glibc).find(|(_, release)| !is_release(release)) {
            let problem = format!("is \"{release}\": numbers with dots between are allowed, such as 2.31");
            return Some((field, problem));
        }
        if let Some(name) = self.environment.keys().find(|name| !self.may_set(name)) {
            let problem = format!(
                "sets \"{name}\": allowed are names in capitals that begin with {} or the plugin's own name",
                VARIABLE_PREFIXES.join(", ")
            );
            return Some(("environment", problem));
        }
        let models = self.self_test.iter().filter_map(|test| test.model.as_ref());
        if let Some(model) = models.into_iter().find(|model| !inside(model)) {
            let problem =
                format!("names the model \"{}\", which leaves the plugin's folder", model.display());
            return Some(("self_test", problem));
        }
        None
    }

    /// Whether the manifest may set this variable: one that is read by a runtime, or by the plugin itself. Others decide
    /// about the process before the plugin is confined (`LD_PRELOAD`), or about the host.
    fn may_set(&self, name: &str) -> bool {
        let own = format!("{}_", self.name.replace('-', "_").to_uppercase());
        let reserved = ["LD_", "DYLD_", "GLIBC_", "PAJAMAS_"].iter().any(|prefix| own.starts_with(prefix));
        is_variable(name)
            && (VARIABLE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || (!reserved && name.starts_with(&own)))
    }

    /// The library's path for this platform.
    #[must_use]
    pub fn library(&self, dir: &Path) -> PathBuf {
        let path = dir.join(&self.entry);
        match (path.extension(), path.file_name().and_then(|name| name.to_str())) {
            (None, Some(name)) => path.with_file_name(format!(
                "{}{name}{}",
                std::env::consts::DLL_PREFIX,
                std::env::consts::DLL_SUFFIX
            )),
            _ => path,
        }
    }
}

/// Whether `name` may name a plugin.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
}

/// Whether `text` is the number of a release, such as `2.31`.
fn is_release(text: &str) -> bool {
    text.len() <= 64 && text.split('.').all(|part| part.parse::<u32>().is_ok())
}

/// Whether `name` may name a variable of the environment.
fn is_variable(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "echo"
        version = "0.1.0"
        publisher = "pajamas"
        license = "MIT"
        description = "repeats its input"
        abi = ">=1.0, <2"
        entry = "lib/echo"
        tasks = ["generate", "my_task"]
    "#;

    fn parse(text: &str) -> Result<Manifest, String> {
        use std::error::Error as _;
        Manifest::parse(text, Path::new("plugin.toml"))
            .map_err(|e| format!("{e}: {}", e.source().map(ToString::to_string).unwrap_or_default()))
    }

    #[test]
    fn a_good_manifest_names_the_library_of_this_platform() {
        let manifest = parse(GOOD).unwrap();
        assert_eq!(manifest.tasks, [Task::Generate, Task::Other("my_task".into())]);
        let name = format!("{}echo{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        assert_eq!(manifest.library(Path::new("/p")), Path::new("/p/lib").join(name));
        assert_eq!(manifest.variant, None);
        let variant = parse(&GOOD.replace("license", "variant = \"cuda\"\nlicense")).unwrap().variant;
        assert_eq!(variant.as_deref(), Some("cuda"));
    }

    #[test]
    fn wrong_manifests_name_the_field() {
        let cases = [
            ("name = \"echo\"", "name = \"Echo!\"", "field \"name\""),
            ("entry = \"lib/echo\"", "entry = \"../echo\"", "field \"entry\""),
            ("entry = \"lib/echo\"", "entry = \"/echo\"", "field \"entry\""),
            ("version = \"0.1.0\"", "version = \"one\"", "version"),
            ("publisher = \"pajamas\"", "", "publisher"),
            ("license", "licence", "licence"),
            ("publisher = ", "target = { glibc_min = \"2.x\" }\npublisher = ", "field \"target.glibc_min\""),
            (
                "publisher = ",
                "target = { os_min = { macos = \"new\" } }\npublisher = ",
                "field \"target.os_min\"",
            ),
            (
                "publisher = ",
                "accel = { api = \"cuda\", compute = [\"sm_90\"] }\npublisher = ",
                "compute capability",
            ),
            ("publisher = ", "variant = \"CUDA 13\"\npublisher = ", "field \"variant\""),
            ("publisher = ", "environment = { \"A=B\" = \"1\" }\npublisher = ", "field \"environment\""),
            (
                "publisher = ",
                "environment = { LD_PRELOAD = \"x.so\" }\npublisher = ",
                "field \"environment\"",
            ),
            (
                "name = \"echo\"",
                "name = \"ld\"\nenvironment = { LD_PRELOAD = \"x\" }",
                "field \"environment\"",
            ),
            (
                "publisher = ",
                "self_test = [{ task = \"generate\", model = \"../x\" }]\npublisher = ",
                "field \"self_test\"",
            ),
        ];
        for (from, to, expected) in cases {
            let error = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,400}") {
            let _ = Manifest::parse(&text, Path::new("plugin.toml"));
        }
    }
}
