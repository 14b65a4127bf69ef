//! The host's side of the boundary: loads a plugin's library and wraps its functions safely.
//!
//! The order of calls is in the types: [`Library::open`] → [`Library::init`] → [`NativeBackend::load`] →
//! [`NativeModel::submit`]. Libraries are never closed: code of a plugin's threads or thread-local destructors may
//! still run, and the process that loaded it is disposable.
#![expect(unsafe_code, reason = "calls into the plugin's library")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::abi::convert::{Malformed, read_sized};
use crate::abi::{
    PJ_ABI_MINOR, PJ_OK, PJ_PLUGIN_ENTRY_V1, PjContext, PjModel, PjPlugin, PjPluginEntryV1, PjStr,
};
use crate::device::ProbeReport;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, EventSink};
use crate::log::LogSink;
use crate::model_info::{LoadSpec, ModelInfo, ModelStats};
use crate::task::Request;
use crate::version::{PluginVersions, VersionError, negotiate};

mod call;
mod services;
mod sink;

use call::Call;
use services::Services;
pub use sink::NativeJob;

/// Why a library cannot be used as a plugin. Nothing of it ran except its static constructors and its entry.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The dynamic linker refuses the file: missing, of another architecture, or lacking a dependency.
    #[error("cannot load the library {path}")]
    Dlopen {
        /// The file.
        path: PathBuf,
        /// The linker's reason.
        source: libloading::Error,
    },
    /// The library is not a plugin.
    #[error("the library {path} does not export {PJ_PLUGIN_ENTRY_V1}: it is not a plugin for this host")]
    NoEntry {
        /// The file.
        path: PathBuf,
    },
    /// The plugin refuses this host.
    #[error("the plugin refuses this host (ABI 1.{host_minor}): it needs another version of the host")]
    Refused {
        /// The host's minor version.
        host_minor: u32,
    },
    /// Versions do not fit.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The table or one of its strings is malformed.
    #[error("the plugin's table is malformed")]
    Table(#[source] Malformed),
    /// A required function is missing.
    #[error(
        "the plugin's table lacks the required function \"{function}\" (its struct_size is {struct_size}): rebuild the plugin against pajamas_plugin.h"
    )]
    MissingFunction {
        /// The function's name.
        function: &'static str,
        /// The table's declared size.
        struct_size: u32,
    },
}

/// What the plugin said of itself in the handshake.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Handshake {
    /// Name.
    pub id: String,
    /// Version.
    pub version: String,
    /// Build information: empty or a JSON object.
    pub build_json: String,
    /// Versions as stated by the plugin.
    pub versions: PluginVersions,
    /// The minor that both sides speak.
    pub negotiated_minor: u32,
}

/// A loaded library whose handshake succeeded.
#[derive(Debug)]
pub struct Library {
    table: PjPlugin,
    handshake: Handshake,
}

// SAFETY: the table holds integers, static text and function pointers of a library that is never closed.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Loads a library and shakes hands, as a host of the newest minor.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, PJ_ABI_MINOR)
    }

    /// Loads a library and shakes hands as a host of minor `host_minor`: for compatibility tests.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_as(path: &Path, host_minor: u32) -> Result<Self, OpenError> {
        let dlopen = |source| OpenError::Dlopen { path: path.to_owned(), source };
        // SAFETY: loading runs the library's constructors; that is why it happens in a disposable process.
        let library = unsafe { open_now(path) }.map_err(dlopen)?;
        // SAFETY: SPEC V-1 gives the symbol this type.
        let entry = unsafe { library.get::<PjPluginEntryV1>(PJ_PLUGIN_ENTRY_V1) }
            .map(|symbol| *symbol)
            .map_err(|_| OpenError::NoEntry { path: path.to_owned() })?;
        std::mem::forget(library);
        // SAFETY: SPEC V-2: the entry may be called from any thread before anything else.
        let table = unsafe { entry(host_minor) };
        if table.is_null() {
            return Err(OpenError::Refused { host_minor });
        }
        // SAFETY: SPEC V-3: the table is static and declares its size.
        let table = unsafe { read_sized(table) }.map_err(OpenError::Table)?;
        let versions = PluginVersions {
            abi_major: table.abi_major,
            abi_minor: table.abi_minor,
            min_host_minor: table.min_host_minor,
        };
        let negotiated_minor = negotiate(versions, host_minor)?;
        require_functions(&table)?;
        // SAFETY: SPEC V-3: the strings are static.
        let read =
            |text: PjStr, what| unsafe { text.text(what) }.map(str::to_owned).map_err(OpenError::Table);
        let handshake = Handshake {
            id: read(table.id, "id")?,
            version: read(table.version, "version")?,
            build_json: read(table.build_json, "build_json")?,
            versions,
            negotiated_minor,
        };
        Ok(Self { table, handshake })
    }

    /// What the plugin said of itself.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// The plugin's table, for conformance tests of the raw ABI.
    #[must_use]
    pub fn table(&self) -> &PjPlugin {
        &self.table
    }

    /// Initialises the plugin. `plugin_dir` is the folder that holds its `plugin.toml`; `log` receives its messages.
    ///
    /// # Errors
    /// The plugin cannot work in this process.
    pub fn init(self, plugin_dir: &Path, log: Arc<dyn LogSink>) -> Result<NativeBackend, Error> {
        let services = Services::new(log, self.handshake.negotiated_minor);
        let dir = utf8_path(plugin_dir)?;
        let mut ctx = std::ptr::null_mut();
        let init = require(self.table.init)?;
        let call = Call::new(None);
        // SAFETY: SPEC L-2: the services live until `shutdown`, the other pointers for the call.
        call.finish("init", unsafe { init(services.raw(), PjStr::new(dir), call.sink(), &raw mut ctx) })?;
        if ctx.is_null() {
            return Err(Error::internal("the plugin's init returned no context"));
        }
        Ok(NativeBackend { shared: Arc::new(Shared { table: self.table, ctx, _services: services }) })
    }
}

/// `dlopen` with all symbols resolved now, so that a missing dependency is an error here and not a crash later,
/// and with the library's symbols hidden from other plugins.
///
/// # Safety
/// Runs the library's static constructors.
unsafe fn open_now(path: &Path) -> Result<libloading::Library, libloading::Error> {
    #[cfg(unix)]
    {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        // SAFETY: forwarded.
        unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into)
    }
    #[cfg(not(unix))]
    {
        // SAFETY: forwarded.
        unsafe { libloading::Library::new(path) }
    }
}

fn require_functions(table: &PjPlugin) -> Result<(), OpenError> {
    let required = [
        ("init", table.init.is_some()),
        ("load", table.load.is_some()),
        ("submit", table.submit.is_some()),
        ("cancel", table.cancel.is_some()),
        ("release_job", table.release_job.is_some()),
        ("unload", table.unload.is_some()),
        ("shutdown", table.shutdown.is_some()),
    ];
    match required.into_iter().find(|(_, present)| !present) {
        Some((function, _)) => Err(OpenError::MissingFunction { function, struct_size: table.struct_size }),
        None => Ok(()),
    }
}

fn require<F>(function: Option<F>) -> Result<F, Error> {
    function.ok_or_else(|| Error::unsupported("the plugin does not offer this function"))
}

fn utf8_path(path: &Path) -> Result<&str, Error> {
    path.to_str()
        .ok_or_else(|| Error::invalid(format!("the path {} is not UTF-8: rename it", path.display())))
}

/// What models and jobs keep alive.
#[derive(Debug)]
struct Shared {
    table: PjPlugin,
    ctx: *mut PjContext,
    _services: Services,
}

// SAFETY: SPEC T-1: the functions of a plugin are callable from any thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(shutdown) = self.table.shutdown {
            // SAFETY: SPEC L-8: the last model is gone, and `shutdown` is called once.
            unsafe { shutdown(self.ctx) }
        }
    }
}

/// An initialised plugin. Calls are allowed from any thread; dropping it and its models shuts the plugin down.
#[derive(Clone, Debug)]
pub struct NativeBackend {
    shared: Arc<Shared>,
}

impl NativeBackend {
    /// Looks at the devices; `None` when the plugin has no probe.
    ///
    /// # Errors
    /// The plugin cannot be used here, or its answer is not what SPEC says.
    pub fn probe(&self) -> Result<Option<ProbeReport>, Error> {
        let Some(probe) = self.shared.table.probe else { return Ok(None) };
        let call = Call::new(None);
        // SAFETY: SPEC L-3: `ctx` is valid, the sink lives for the call.
        let status = unsafe { probe(self.shared.ctx, call.sink()) };
        call.answer("probe", status).map(Some)
    }

    /// Reads a model's metadata; `None` when the plugin cannot.
    ///
    /// # Errors
    /// The file is not usable, or the answer is not what SPEC says.
    pub fn inspect(&self, path: &Path) -> Result<Option<ModelInfo>, Error> {
        let Some(inspect) = self.shared.table.inspect else { return Ok(None) };
        let call = Call::new(None);
        // SAFETY: as in `probe`; the path lives for the call.
        let status = unsafe { inspect(self.shared.ctx, PjStr::new(utf8_path(path)?), call.sink()) };
        call.answer("inspect", status).map(Some)
    }

    /// Loads a model; blocks. `progress` receives PROGRESS events and may cancel.
    ///
    /// # Errors
    /// The model cannot be loaded, or the answer is not what SPEC says.
    pub fn load(&self, spec: &LoadSpec, progress: Arc<dyn EventSink>) -> Result<NativeModel, Error> {
        let load = require(self.shared.table.load)?;
        let spec_json =
            serde_json::to_string(spec).map_err(|e| Error::internal(format!("load specification: {e}")))?;
        let call = Call::new(Some(progress));
        let mut raw = std::ptr::null_mut();
        // SAFETY: SPEC L-5: `ctx` is valid, the other pointers live for the call.
        let status = unsafe { load(self.shared.ctx, PjStr::new(&spec_json), call.sink(), &raw mut raw) };
        let answer = call.answer("load", status);
        if raw.is_null() || !is_ok(status) {
            answer?;
            return Err(Error::internal("the plugin's load returned no model"));
        }
        let mut model = NativeModel { shared: Arc::clone(&self.shared), raw, info: ModelInfo::default() };
        // A malformed answer drops, and so unloads, the model.
        model.info = answer?;
        Ok(model)
    }
}

/// A loaded model; dropping it unloads it.
#[derive(Debug)]
pub struct NativeModel {
    shared: Arc<Shared>,
    raw: *mut PjModel,
    info: ModelInfo,
}

// SAFETY: SPEC T-1: the functions of a model are callable from any thread.
unsafe impl Send for NativeModel {}
// SAFETY: as above.
unsafe impl Sync for NativeModel {}

impl NativeModel {
    /// Metadata as the plugin reported it at load.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Starts a job. `sink` gets a well-formed stream whatever the plugin does: exactly one terminal event, nothing
    /// after it, and a refused or malformed answer as an error event. `None` when the plugin refused the request.
    pub fn submit(self: &Arc<Self>, request: &Request, sink: Arc<dyn EventSink>) -> Option<NativeJob> {
        sink::submit(self, request, sink)
    }

    /// Measured memory and occupancy; `None` when the plugin does not measure.
    ///
    /// # Errors
    /// The answer is not what SPEC says.
    pub fn stats(&self) -> Result<Option<ModelStats>, Error> {
        let Some(stats) = self.shared.table.stats else { return Ok(None) };
        let call = Call::new(None);
        // SAFETY: SPEC L-6: the model is loaded, the sink lives for the call.
        let status = unsafe { stats(self.raw, call.sink()) };
        call.answer("stats", status).map(Some)
    }
}

impl Drop for NativeModel {
    fn drop(&mut self) {
        if let Some(unload) = self.shared.table.unload {
            // SAFETY: SPEC L-7: jobs hold the model, so none is left, and `unload` is called once.
            unsafe { unload(self.raw) }
        }
    }
}

/// The error of a status without a message.
fn status_error(entry: &str, status: i32) -> Error {
    Error::new(
        ErrorKind::from_status(status),
        format!("the plugin's {entry} failed with status {status} and gave no reason"),
    )
}

/// Whether a status means success.
fn is_ok(status: i32) -> bool {
    status == PJ_OK
}

/// The message of an ERROR event, as an error.
fn event_error(event: &Event<'_>) -> Option<Error> {
    match event {
        Event::Error { kind, message } => Some(Error::new(*kind, *message)),
        _ => None,
    }
}
