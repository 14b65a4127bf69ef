//! ONNX Runtime's library: found in the plugin's folder, loaded once in a process.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ort::environment::Environment;
use ort::logging::LogLevel;
use pajamas_plugin_api::{Error, ErrorKind};

use crate::provider::Provider;

/// The loaded library with its environment, which lives as long as the process: ONNX Runtime allows one only.
#[derive(Debug)]
pub struct Library {
    environment: Environment,
    providers: Vec<Provider>,
    version: String,
}

static LIBRARY: OnceLock<Result<Library, Error>> = OnceLock::new();

impl Library {
    /// Where the library of a plugin's folder is.
    #[must_use]
    pub fn path_in(plugin_dir: &Path) -> PathBuf {
        plugin_dir.join("lib").join(format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}"))
    }

    /// Loads the library, or returns the one that this process has loaded already, whatever its path was.
    ///
    /// # Errors
    /// The file is missing, no library for this machine, or too old.
    pub fn load(path: &Path) -> Result<&'static Self, Error> {
        // A file that is not there yet may come before the next call.
        if LIBRARY.get().is_none() && !path.is_file() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "{} is missing: `cargo xtask build --plugin onnx` fetches it; any library of ONNX Runtime 1.{} \
                     or newer for this machine may be put there",
                    path.display(),
                    ort::MINOR_VERSION
                ),
            ));
        }
        LIBRARY.get_or_init(|| Self::start(path)).as_ref().map_err(Clone::clone)
    }

    fn start(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| {
            Error::internal(format!("onnxruntime cannot start from {}: {reason}", path.display()))
        };
        let environment = ort::init_from(path)
            .map_err(|error| failed(error.to_string()))?
            .with_name("pajamas-onnx")
            // Where the library has telemetry built in, it is not asked for.
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| failed(error.to_string()))?;
        // Finer messages are formatted before anyone can refuse them.
        environment.set_log_level(LogLevel::Warning);
        let providers = Provider::available()?;
        Ok(Self { environment, providers, version: version(ort::info()) })
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What it can compute with, best first.
    pub(crate) fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// Such as `1.31.1`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

/// The version in what the library says about its build, such as `ORT Build Info: git-branch=rel-1.31.1, git-commit-id=…`;
/// the commit where no release is named, and all of it where there is none either.
fn version(build: &str) -> String {
    let mut fields = build.split([',', ' ']).filter_map(|field| field.split_once('='));
    let release = fields.clone().find_map(|(_, value)| value.strip_prefix("rel-"));
    let commit = || fields.find(|(name, _)| *name == "git-commit-id").map(|(_, id)| format!("commit {id}"));
    release.map(str::to_owned).or_else(commit).unwrap_or_else(|| build.to_owned())
}

/// Forwards a message of ONNX Runtime. Its errors also come back from the call that failed, which decides what the user
/// sees.
fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    // It is switched off, and warns all the same that a confined worker lets it write no identifier of the machine.
    if location.starts_with("telemetry") {
        return;
    }
    match level {
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", location, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", location, "{message}"),
    }
}

/// What ONNX Runtime reports when memory does not suffice has no code of its own.
pub(crate) fn engine_error<R>(doing: &str, error: &ort::Error<R>) -> Error {
    let message = error.message();
    let is_memory = ["Failed to allocate memory", "bad_alloc", "out of memory", "OOM"];
    let kind = match error.code() {
        _ if is_memory.iter().any(|sign| message.contains(sign)) => ErrorKind::OutOfMemory,
        ort::ErrorCode::InvalidArgument => ErrorKind::Invalid,
        ort::ErrorCode::ModelLoadCanceled => ErrorKind::Cancelled,
        ort::ErrorCode::NoSuchFile => ErrorKind::NotFound,
        ort::ErrorCode::InvalidProtobuf
        | ort::ErrorCode::InvalidGraph
        | ort::ErrorCode::NoModel
        | ort::ErrorCode::NotImplemented => ErrorKind::BadModel,
        ort::ErrorCode::DeviceReset => ErrorKind::Device,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("onnxruntime {doing}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_releases_say() {
        let release = "ORT Build Info: git-branch=rel-1.31.1, git-commit-id=26250ae, build type=Release";
        assert_eq!(version(release), "1.31.1");
        let wheel =
            "ORT Build Info: git-branch=HEAD, git-commit-id=6af1a93, fp8-kv-cache=1, build type=Release";
        assert_eq!(version(wheel), "commit 6af1a93");
        assert_eq!(version("built by hand"), "built by hand");
    }

    #[test]
    fn a_missing_library_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = Library::path_in(folder.path());
        // Another test of this process may have loaded it.
        if LIBRARY.get().is_none() {
            let error = Library::load(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            let message = error.message();
            assert!(message.contains("onnxruntime") && message.contains("cargo xtask build"), "{message}");
        }
    }
}
