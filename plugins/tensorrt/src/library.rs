//! TensorRT's libraries: found in the plugin's folder or by the system, loaded once in a process.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;

use pajamas_plugin_api::{Error, ErrorKind};
use parking_lot::Mutex;
use trtx::{LogHandler, Logger, Severity};

use crate::flavour;

/// The loaded libraries, which live as long as the process.
#[derive(Debug)]
pub struct Library {
    logger: Logger,
}

static LIBRARY: Mutex<Option<&'static Library>> = Mutex::new(None);

impl Library {
    /// Loads the library and its parser of ONNX files from `lib` in the plugin's folder, or, where they are not there, from
    /// where the system looks for libraries; or returns those that this process has loaded already.
    ///
    /// # Errors
    /// One is missing, or is no library for this machine.
    pub fn load(plugin_dir: &Path) -> Result<&'static Self, Error> {
        let mut loaded = LIBRARY.lock();
        if let Some(library) = *loaded {
            return Ok(library);
        }
        let folder = plugin_dir.join("lib");
        let open = |name: &str, load: fn(Option<String>) -> trtx::Result<()>| {
            let own = folder.join(name);
            let place = if own.is_file() { own.to_string_lossy().into_owned() } else { name.to_owned() };
            load(Some(place)).map_err(|error| missing(&folder, name, &error))
        };
        open(flavour::LIBRARY, trtx::dynamically_load_tensorrt)?;
        open(flavour::PARSER, trtx::dynamically_load_tensorrt_onnxparser)?;
        let logger = Logger::new(Forward).map_err(|error| engine_error("cannot start", &error))?;
        let library: &'static Self = Box::leak(Box::new(Self { logger }));
        *loaded = Some(library);
        Ok(library)
    }

    pub(crate) fn logger(&'static self) -> &'static Logger {
        &self.logger
    }
}

fn missing(folder: &Path, name: &str, error: &trtx::Error) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "{name}, a library of {}, cannot be loaded from {} nor from where the system looks for libraries: {}; {error}",
            flavour::full_version(),
            folder.display(),
            flavour::HOW_TO_GET,
        ),
    )
}

/// Most complaints of the library that an error repeats.
const SAID_MAX: usize = 4;
/// Most characters of one complaint that an error repeats.
const SAID_CHARS_MAX: usize = 400;

thread_local! {
    /// What the library has complained about on this thread: its calls themselves say only that they failed.
    static SAID: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// Forwards the library's messages to the log.
struct Forward;

impl LogHandler for Forward {
    fn log(&self, severity: Severity, message: &str) {
        match severity {
            Severity::Verbose => tracing::trace!(target: "tensorrt", "{message}"),
            Severity::Info => tracing::debug!(target: "tensorrt", "{message}"),
            Severity::Warning => tracing::warn!(target: "tensorrt", "{message}"),
            // It comes back with the call that failed, which decides what the user sees.
            Severity::Error | Severity::InternalError => {
                tracing::debug!(target: "tensorrt", "error: {message}");
                SAID.with_borrow_mut(|said| {
                    if said.len() == SAID_MAX {
                        said.pop_front();
                    }
                    said.push_back(message.chars().take(SAID_CHARS_MAX).collect());
                });
            }
        }
    }
}

/// Forgets what the library has complained about on this thread; before a call whose failure is to be explained.
pub(crate) fn listen() {
    SAID.with_borrow_mut(VecDeque::clear);
}

/// A failed call, with what the library complained about on this thread since [`listen`].
pub(crate) fn engine_error(doing: &str, error: &dyn fmt::Display) -> Error {
    let said: Vec<String> = SAID.with_borrow_mut(|said| said.drain(..).collect());
    let reason = if said.is_empty() { error.to_string() } else { said.join("; ") };
    Error::new(kind(&reason), format!("{} {doing}: {reason}", flavour::NAME))
}

fn kind(reason: &str) -> ErrorKind {
    let has = |signs: &[&str]| signs.iter().any(|sign| reason.contains(sign));
    if has(&["out of memory", "OutOfMemory", "cudaErrorMemoryAllocation", "bad_alloc"]) {
        ErrorKind::OutOfMemory
    } else if has(&["Cuda Runtime", "cudaError", "CUDA_ERROR", "Cuda Driver"]) {
        ErrorKind::Device
    } else {
        ErrorKind::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_how_to_get_it() {
        let folder = std::env::temp_dir().join("no-such-plugin");
        let error = trtx::Error::TrtRtxLibraryNotLoaded;
        let error = missing(&folder.join("lib"), flavour::LIBRARY, &error);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        for word in [flavour::LIBRARY, "no-such-plugin/lib", flavour::HOW_TO_GET] {
            assert!(error.message().contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn an_error_repeats_what_the_library_complained_about_and_nothing_older() {
        let handler = Forward;
        handler.log(Severity::Error, "old");
        listen();
        let plain = engine_error("cannot do it", &"call failed");
        assert_eq!(plain.message(), format!("{} cannot do it: call failed", flavour::NAME));
        for number in 0..6 {
            handler.log(Severity::Error, &format!("reason {number}"));
        }
        handler.log(Severity::Verbose, "chatter");
        let error = engine_error("cannot do it", &"call failed");
        assert!(error.message().ends_with("reason 2; reason 3; reason 4; reason 5"), "{error}");
        handler.log(Severity::Error, &"x".repeat(10_000));
        assert!(engine_error("", &"").message().len() < 500);
    }

    #[test]
    fn what_failed_is_told_from_the_librarys_words() {
        let table = [
            ("Error Code 1: Cuda Runtime (In ScopedCudaStream: cudaError 35)", ErrorKind::Device),
            ("Error Code 2: OutOfMemory (Requested size was 8 bytes.)", ErrorKind::OutOfMemory),
            ("Cuda Runtime (out of memory)", ErrorKind::OutOfMemory),
            ("Error Code 4: API Usage Error", ErrorKind::Internal),
        ];
        for (reason, expected) in table {
            assert_eq!(kind(reason), expected, "{reason}");
        }
    }
}
