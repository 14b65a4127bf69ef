//! The plugin's side of the boundary: turns a [`Backend`] into the C table. Panics are caught at every entry.
#![expect(unsafe_code, reason = "this file and abi/convert.rs are the boundary to C")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tracing::Level;

use crate::abi::convert::request::{blank_plugin, read_request};
use crate::abi::convert::{read_sized, with_raw_event};
use crate::abi::{
    PJ_ABI_MAJOR, PJ_ABI_MINOR, PJ_OK, PjContext, PjHost, PjJob, PjModel, PjPlugin, PjRequest, PjSink, PjStr,
};
use crate::backend::{Backend, Model};
use crate::error::Error;
use crate::event::{Event, EventSink, Flow};
use crate::job::{Job, Progress};
use crate::log::{LogSink, init_tracing, level_to_abi};
use crate::model_info::LoadSpec;
use crate::thread::panic_error;

/// Exports a [`Backend`] as a plugin: defines the one symbol that the host looks for.
///
/// ```ignore
/// pajamas_plugin_api::export_plugin!(MyBackend, id = "my-backend", version = env!("CARGO_PKG_VERSION"));
/// ```
///
/// The crate must be a `cdylib` and must not be built with `panic = "abort"`, which would take the worker down
/// where an error could have been answered.
#[macro_export]
macro_rules! export_plugin {
    ($backend:ty, id = $id:expr, version = $version:expr $(,)?) => {
        #[cfg(panic = "abort")]
        compile_error!("a pajamas-host plugin must be built with panic = \"unwind\"");

        /// The one exported symbol of the plugin.
        #[expect(unsafe_code, reason = "the host finds the plugin by the unmangled name of this function")]
        #[unsafe(no_mangle)]
        pub extern "C" fn pj_plugin_entry_v1(_host_minor: u32) -> *const $crate::abi::PjPlugin {
            static TABLE: $crate::export::Table = $crate::export::Table::new();
            TABLE.get::<$backend>($id, $version)
        }
    };
}

/// The plugin's table, filled at the first call of the entry symbol.
#[derive(Debug, Default)]
pub struct Table(OnceLock<PjPlugin>);

// SAFETY: the table is written once and holds only integers, pointers to static text, and function pointers.
unsafe impl Sync for Table {}
// SAFETY: as above.
unsafe impl Send for Table {}

const BUILD_JSON: &str =
    concat!("{\"sdk\":\"pajamas-plugin-api ", env!("CARGO_PKG_VERSION"), "\",\"panic\":\"unwind\"}");

impl Table {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The table of backend `B`.
    pub fn get<B: Backend>(&'static self, id: &'static str, version: &'static str) -> *const PjPlugin {
        self.0.get_or_init(|| PjPlugin {
            abi_major: PJ_ABI_MAJOR,
            abi_minor: PJ_ABI_MINOR,
            min_host_minor: 0,
            id: PjStr::new(id),
            version: PjStr::new(version),
            build_json: PjStr::new(BUILD_JSON),
            init: Some(init::<B>),
            probe: Some(probe::<B>),
            inspect: Some(inspect::<B>),
            load: Some(load::<B>),
            submit: Some(submit::<B>),
            cancel: Some(cancel),
            release_job: Some(release_job),
            stats: Some(stats::<B>),
            unload: Some(unload::<B>),
            shutdown: Some(shutdown::<B>),
            ..blank_plugin()
        })
    }
}

/// The host's sink as the SDK sees it.
struct HostSink(PjSink);

// SAFETY: SPEC S-1: both functions of a sink are callable from any thread.
unsafe impl Send for HostSink {}
// SAFETY: as above.
unsafe impl Sync for HostSink {}

impl HostSink {
    /// # Safety
    /// `sink` is valid for the call, and its functions and `ctx` stay valid as long as the result is used.
    unsafe fn new(sink: *const PjSink) -> Result<Arc<Self>, Error> {
        // SAFETY: forwarded.
        let sink = unsafe { read_sized(sink) };
        sink.map(|sink| Arc::new(Self(sink))).map_err(|e| Error::invalid(format!("malformed sink: {e}")))
    }
}

impl EventSink for HostSink {
    fn push(&self, event: &Event<'_>) -> Flow {
        let Some(push) = self.0.push else { return Flow::Cancelled };
        // SAFETY: the host keeps `ctx` valid until the call or job is over; the event lives for the call.
        let answer = with_raw_event(event, |raw| unsafe { push(self.0.ctx, raw) });
        if answer == PJ_OK { Flow::Continue } else { Flow::Cancelled }
    }

    fn cancelled(&self) -> bool {
        // SAFETY: as above.
        self.0.cancelled.is_some_and(|cancelled| unsafe { cancelled(self.0.ctx) != 0 })
    }
}

/// The host's log function as the SDK sees it.
struct HostLog(PjHost);

// SAFETY: SPEC H-1: the host's functions are callable from any thread until `shutdown` returned.
unsafe impl Send for HostLog {}
// SAFETY: as above.
unsafe impl Sync for HostLog {}

impl LogSink for HostLog {
    fn enabled(&self, level: Level, target: &str) -> bool {
        // SAFETY: `ctx` is the host's own and valid while the plugin runs.
        self.0.log_enabled.is_some_and(|enabled| unsafe {
            enabled(self.0.ctx, level_to_abi(level), PjStr::new(target)) != 0
        })
    }

    fn log(&self, level: Level, target: &str, message: &str, fields_json: &str) {
        if let Some(log) = self.0.log {
            let fields = PjStr::new(fields_json);
            // SAFETY: as above; the texts live for the call.
            unsafe { log(self.0.ctx, level_to_abi(level), PjStr::new(target), PjStr::new(message), fields) }
        }
    }
}

/// Runs the body of an entry point: a panic or an error becomes an ERROR event and a status.
fn guard(entry: &'static str, sink: Option<&dyn EventSink>, body: impl FnOnce() -> Result<(), Error>) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|payload| Err(panic_error(entry, payload.as_ref())));
    match outcome {
        Ok(()) => PJ_OK,
        Err(error) => {
            if let Some(sink) = sink {
                sink.push(&Event::Error { kind: error.kind(), message: error.message() });
            }
            error.kind().status()
        }
    }
}

/// Sends a call's answer.
fn answer(sink: &dyn EventSink, value: &impl serde::Serialize) -> Result<(), Error> {
    let json =
        serde_json::to_string(value).map_err(|e| Error::internal(format!("cannot write the answer: {e}")))?;
    sink.push(&Event::Result { index: 0, json: &json });
    Ok(())
}

/// Runs an entry point that reports to a sink.
///
/// # Safety
/// `sink` is valid for the call.
unsafe fn with_sink(
    entry: &'static str,
    sink: *const PjSink,
    body: impl FnOnce(Arc<HostSink>) -> Result<(), Error>,
) -> i32 {
    // SAFETY: forwarded.
    match unsafe { HostSink::new(sink) } {
        Ok(sink) => guard(entry, Some(&*Arc::clone(&sink)), || body(sink)),
        Err(error) => error.kind().status(),
    }
}

/// The object behind a handle that this file made.
///
/// # Safety
/// `handle` is `NULL` or came from `Box::<T>::into_raw` and is not freed during `'a`.
unsafe fn object<'a, T>(handle: *mut c_void, what: &str) -> Result<&'a T, Error> {
    // SAFETY: forwarded.
    unsafe { handle.cast::<T>().as_ref() }.ok_or_else(|| Error::invalid(format!("the {what} handle is NULL")))
}

/// # Safety
/// `text` is valid for `'a`.
unsafe fn text<'a>(text: PjStr, what: &'static str) -> Result<&'a str, Error> {
    // SAFETY: forwarded.
    unsafe { text.text(what) }.map_err(|e| Error::invalid(e.to_string()))
}

unsafe extern "C" fn init<B: Backend>(
    host: *const PjHost,
    plugin_dir: PjStr,
    sink: *const PjSink,
    out: *mut *mut PjContext,
) -> i32 {
    // SAFETY: SPEC L-2: the pointers are valid for the call, the host's functions until `shutdown`.
    unsafe {
        with_sink("init", sink, |_| {
            let host = read_sized(host).map_err(|e| Error::invalid(format!("malformed host: {e}")))?;
            init_tracing(Arc::new(HostLog(host)));
            let backend = B::init(Path::new(text(plugin_dir, "plugin_dir")?))?;
            out.write(Box::into_raw(Box::new(backend)).cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn probe<B: Backend>(ctx: *mut PjContext, sink: *const PjSink) -> i32 {
    // SAFETY: SPEC L-3: `ctx` came from `init`, the sink is valid for the call.
    unsafe { with_sink("probe", sink, |sink| answer(&*sink, &object::<B>(ctx.cast(), "context")?.probe()?)) }
}

unsafe extern "C" fn inspect<B: Backend>(ctx: *mut PjContext, path: PjStr, sink: *const PjSink) -> i32 {
    // SAFETY: as in `probe`; the path is valid for the call.
    unsafe {
        with_sink("inspect", sink, |sink| {
            let backend = object::<B>(ctx.cast(), "context")?;
            answer(&*sink, &backend.inspect(Path::new(text(path, "path")?))?)
        })
    }
}

unsafe extern "C" fn load<B: Backend>(
    ctx: *mut PjContext,
    spec_json: PjStr,
    sink: *const PjSink,
    out: *mut *mut PjModel,
) -> i32 {
    // SAFETY: as in `probe`; spec and `out` are valid for the call.
    unsafe {
        with_sink("load", sink, |sink| {
            let backend = object::<B>(ctx.cast(), "context")?;
            let spec: LoadSpec = serde_json::from_str(text(spec_json, "spec_json")?)
                .map_err(|e| Error::invalid(format!("load specification: {e}")))?;
            let model = backend.load(&spec, &Progress::new(Arc::<HostSink>::clone(&sink)))?;
            answer(&*sink, &model.info())?;
            out.write(Box::into_raw(Box::new(model)).cast());
            Ok(())
        })
    }
}

/// What a job handle points to.
struct JobHandle {
    cancel: Arc<AtomicBool>,
}

unsafe extern "C" fn submit<B: Backend>(
    model: *mut PjModel,
    request: *const PjRequest,
    sink: *const PjSink,
    out: *mut *mut PjJob,
) -> i32 {
    // SAFETY: SPEC J-1: model and request are valid for the call, the sink until `release_job` returned.
    unsafe {
        let Ok(sink) = HostSink::new(sink) else { return crate::abi::PJ_ERR_INVALID };
        // Before the job exists an error is the call's; afterwards it is an event of the job.
        guard("submit", Some(&*Arc::clone(&sink)), || {
            let model = object::<B::Model>(model.cast(), "model")?;
            let request = read_request(request)?;
            let cancel = Arc::new(AtomicBool::new(false));
            let job = Job::new(sink, Arc::clone(&cancel));
            out.write(Box::into_raw(Box::new(JobHandle { cancel })).cast());
            // A panic drops the job, which reports it.
            drop(catch_unwind(AssertUnwindSafe(|| model.submit(request, job))));
            Ok(())
        })
    }
}

unsafe extern "C" fn cancel(job: *mut PjJob) {
    // SAFETY: SPEC J-5: the handle is valid until `release_job`.
    if let Some(handle) = unsafe { job.cast::<JobHandle>().as_ref() } {
        handle.cancel.store(true, Ordering::Relaxed);
    }
}

unsafe extern "C" fn release_job(job: *mut PjJob) {
    // SAFETY: the handle came from `submit` and is released once.
    unsafe { free::<JobHandle>(job.cast()) }
}

unsafe extern "C" fn stats<B: Backend>(model: *mut PjModel, sink: *const PjSink) -> i32 {
    // SAFETY: the model came from `load`, the sink is valid for the call.
    unsafe {
        with_sink("stats", sink, |sink| answer(&*sink, &object::<B::Model>(model.cast(), "model")?.stats()))
    }
}

unsafe extern "C" fn unload<B: Backend>(model: *mut PjModel) {
    // SAFETY: the model came from `load`, its jobs are released, and it is unloaded once.
    unsafe { free::<B::Model>(model.cast()) }
}

unsafe extern "C" fn shutdown<B: Backend>(ctx: *mut PjContext) {
    // SAFETY: the context came from `init`, its models are unloaded, and it is shut down once.
    unsafe { free::<B>(ctx.cast()) }
}

/// Drops the object behind a handle; a panic in its destructor ends here.
///
/// # Safety
/// `handle` is `NULL` or came from `Box::<T>::into_raw` and was not freed before.
unsafe fn free<T>(handle: *mut c_void) {
    if !handle.is_null() {
        // SAFETY: forwarded.
        let object = unsafe { Box::from_raw(handle.cast::<T>()) };
        if catch_unwind(AssertUnwindSafe(move || drop(object))).is_err() {
            tracing::error!("panic while freeing an object");
        }
    }
}
