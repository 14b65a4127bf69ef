//! ExecuTorch's libraries: found in the plugin's folder, loaded once in a process.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Error, ErrorKind};
use parking_lot::Mutex;

use crate::ffi::{Runtime, Status, load_companion};

/// The loaded libraries, which live as long as the process.
pub struct Library {
    runtime: Runtime,
    backends: Vec<String>,
    threads: Mutex<Threads>,
}

/// The pool of threads that all kernels and delegates of the process share.
#[derive(Default)]
struct Threads {
    count: u32,
    /// Networks that may point into the pool.
    leases: usize,
}

static LIBRARY: Mutex<Option<&'static Library>> = Mutex::new(None);

/// What to do about a missing library.
const HOW: &str =
    "`cargo xtask build --plugin executorch` compiles it and fetches ExecuTorch's libraries beside it";

/// Most libraries with kernels or backends that are loaded.
const COMPANIONS_MAX: usize = 64;

impl Library {
    /// Where the library is through which a plugin's folder reaches ExecuTorch.
    #[must_use]
    pub fn path_in(plugin_dir: &Path) -> PathBuf {
        plugin_dir.join("lib").join(format!("{DLL_PREFIX}pajamas_executorch_shim{DLL_SUFFIX}"))
    }

    /// Loads the libraries of a plugin's folder, or returns those that this process has loaded already: the shim, which brings
    /// ExecuTorch's core, and then every `libexecutorch_kernels_*` and `libexecutorch_backend_*` beside it.
    ///
    /// # Errors
    /// The shim or what it needs is missing, or is no library for this machine.
    pub fn load(plugin_dir: &Path) -> Result<&'static Self, Error> {
        let mut loaded = LIBRARY.lock();
        if let Some(library) = *loaded {
            return Ok(library);
        }
        let shim = Self::path_in(plugin_dir);
        if !shim.is_file() {
            return Err(Error::new(ErrorKind::NotFound, format!("{} is missing: {HOW}", shim.display())));
        }
        let runtime = Runtime::load(&shim).map_err(|reason| {
            Error::internal(format!("executorch cannot start from {}: {reason}; {HOW}", shim.display()))
        })?;
        for companion in companions(&plugin_dir.join("lib")) {
            // One that needs what this machine has not must not keep the others from working.
            if let Err(reason) = load_companion(&companion) {
                tracing::warn!("{} is left out: {reason}", companion.display());
            }
        }
        let backends = runtime.backends();
        let library: &'static Self =
            Box::leak(Box::new(Self { runtime, backends, threads: Mutex::default() }));
        *loaded = Some(library);
        Ok(library)
    }

    pub(crate) fn runtime(&'static self) -> &'static Runtime {
        &self.runtime
    }

    /// The names of the backends that programs may be compiled for.
    pub(crate) fn backends(&self) -> &[String] {
        &self.backends
    }

    /// Such as `1.5.1`.
    pub(crate) fn version(&self) -> String {
        self.runtime.version()
    }

    /// Lets a network use the pool of threads. Its size can change only while nobody does: the first network decides, and
    /// later ones that want another size are told so in the log.
    pub(crate) fn lease(&'static self, threads: u32) -> Result<Lease, Error> {
        let mut pool = self.threads.lock();
        if pool.leases == 0 && pool.count != threads {
            self.runtime.set_threads(threads).map_err(|status| {
                Error::internal(format!("executorch cannot start {threads} threads: {}", status.name))
            })?;
            pool.count = threads;
        } else if pool.count != threads {
            tracing::warn!(
                "option `threads` is {threads}, but the models of one worker share {} threads, as the first of them wanted",
                pool.count
            );
        }
        pool.leases += 1;
        Ok(Lease { library: self })
    }
}

/// The right to use the pool of threads.
pub(crate) struct Lease {
    library: &'static Library,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.library.threads.lock().leases -= 1;
    }
}

/// The libraries with kernels and backends, kernels first.
fn companions(lib: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(lib) else { return Vec::new() };
    let of = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_prefix(DLL_PREFIX)?.strip_suffix(DLL_SUFFIX)?;
        let is_kernels = name.starts_with("executorch_kernels_");
        (is_kernels || name.starts_with("executorch_backend_")).then_some(!is_kernels)
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> = paths.filter_map(|path| Some((of(&path)?, path))).take(COMPANIONS_MAX).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Most complaints of the runtime that an error repeats.
const SAID_MAX: usize = 4;
/// Most characters of one complaint that an error repeats.
const SAID_CHARS_MAX: usize = 400;

thread_local! {
    /// What the runtime has complained about on this thread: its calls themselves return a code only.
    static SAID: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// Forwards a message of the runtime.
pub(crate) fn log(level: u8, file: &str, line: usize, message: &str) {
    match level {
        b'D' => tracing::trace!(target: "executorch", file, line, "{message}"),
        b'I' => tracing::debug!(target: "executorch", file, line, "{message}"),
        // The runtime ends the process after it, so that nothing else will tell.
        b'F' => tracing::error!(target: "executorch", file, line, "{message}"),
        // It comes back with the call that failed, which decides what the user sees.
        _ => {
            tracing::debug!(target: "executorch", file, line, "error: {message}");
            SAID.with_borrow_mut(|said| {
                if said.len() == SAID_MAX {
                    said.pop_front();
                }
                said.push_back(message.chars().take(SAID_CHARS_MAX).collect());
            });
        }
    }
}

/// Forgets what the runtime has complained about on this thread; before a call whose failure is to be explained.
pub(crate) fn listen() {
    SAID.with_borrow_mut(VecDeque::clear);
}

/// A failed call, with what the runtime complained about on this thread since [`listen`].
pub(crate) fn engine_error(doing: &str, status: &Status) -> Error {
    let said: Vec<String> = SAID.with_borrow_mut(|said| said.drain(..).collect());
    let said = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
    Error::new(kind(status.code), format!("executorch {doing}, {}{said}", status.name))
}

/// Codes of `executorch/runtime/core/error.h`.
fn kind(code: u32) -> ErrorKind {
    match code {
        0x10 => ErrorKind::Unsupported,
        0x12 | 0x13 => ErrorKind::Invalid,
        0x14 | 0x23 | 0x24 | 0x30 => ErrorKind::BadModel,
        0x20 => ErrorKind::NotFound,
        0x21 | 0x25 | 0x31 => ErrorKind::OutOfMemory,
        _ => ErrorKind::Internal,
    }
}
