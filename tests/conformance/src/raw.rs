//! Drives a plugin through the raw C ABI: hides none of its faults, and waits for nothing without a limit.
//!
//! Every call runs on a thread of its own, so a plugin that relies on the calling thread fails everywhere.
#![expect(unsafe_code, reason = "calls into the plugin's library")]

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pajamas_plugin_api::abi::{PJ_OK, PjContext, PjJob, PjModel, PjPlugin, PjStr};
use pajamas_plugin_api::native::{Handshake, Library};
use pajamas_plugin_api::{ErrorKind, LoadSpec, Request};
use serde::de::DeserializeOwned;

use crate::bench::{Checked, Stop, describe, fail};
use crate::subject::Limits;

mod block;
mod recorder;
mod request;
mod services;

use block::Block;
pub(crate) use block::Shape;
pub(crate) use recorder::{Recorder, Seen};
pub(crate) use request::RequestBlock;
pub(crate) use services::Message;
use services::Messages;

/// A pointer that only the plugin looks behind.
struct Handle<T>(*mut T);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}

// SAFETY: SPEC T-1: what the plugin hands out may be passed to it from any thread.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

impl<T> Handle<T> {
    const NULL: Self = Self(std::ptr::null_mut());
}

/// Runs `call` on another thread and waits for it no longer than `limit`.
pub(crate) fn limited<T: Send + 'static>(
    what: &str,
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Checked<T> {
    let (sender, receiver) = mpsc::channel();
    let body = move || drop(sender.send(call()));
    let thread = std::thread::Builder::new().name(what.to_owned()).spawn(body);
    let thread = thread.map_err(|e| Stop::Fail(format!("no thread for {what}: {e}")))?;
    let answer = receiver
        .recv_timeout(limit)
        .map_err(|_| Stop::Fail(format!("{what} did not return within {} ms", limit.as_millis())))?;
    // It has nothing left to do, and must not be counted as a thread of the plugin.
    drop(thread.join());
    Ok(answer)
}

/// The answer of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    entry: &'static str,
    pub(crate) status: i32,
    pub(crate) events: Vec<Seen>,
}

impl Answer {
    /// The one RESULT of a successful call.
    pub(crate) fn result<T: DeserializeOwned>(&self) -> Checked<T> {
        self.success()?;
        let entry = self.entry;
        let mut results = self.events.iter().filter_map(|event| match event {
            Seen::Result { json, .. } => Some(json),
            _ => None,
        });
        let (Some(json), None) = (results.next(), results.next()) else {
            return fail(format!(
                "{entry} succeeded without exactly one RESULT event: {}",
                describe(&self.events)
            ));
        };
        serde_json::from_str(json).map_err(|e| {
            let start: String = json.chars().take(200).collect();
            Stop::Fail(format!("{entry} answered with JSON of another schema: {e}: {start}"))
        })
    }

    /// Fails unless the call succeeded.
    pub(crate) fn success(&self) -> Checked {
        if self.status == PJ_OK {
            return Ok(());
        }
        let (kind, message) = self.error()?;
        fail(format!("{} failed ({kind:?}): {message}", self.entry))
    }

    /// The reason that a failed call gave; fails when it succeeded or gave none.
    pub(crate) fn error(&self) -> Checked<(ErrorKind, String)> {
        let entry = self.entry;
        if self.status == PJ_OK {
            return fail(format!("{entry} succeeded where it must fail"));
        }
        let errors: Vec<_> = self.events.iter().filter(|event| matches!(event, Seen::Error(..))).collect();
        match errors.as_slice() {
            [Seen::Error(kind, message)] if !message.trim().is_empty() => Ok((*kind, message.clone())),
            [] => fail(format!(
                "{entry} failed with status {} and gave no reason in an ERROR event",
                self.status
            )),
            _ => fail(format!("{entry} must give one reason in one ERROR event: {}", describe(&self.events))),
        }
    }
}

/// An initialised plugin.
#[derive(Clone)]
pub(crate) struct Plugin(Arc<Inner>);

struct Inner {
    table: PjPlugin,
    ctx: Handle<PjContext>,
    shape: Shape,
    limits: Limits,
    messages: Arc<Messages>,
    /// What `pj_host *` points to until `shutdown` has returned.
    _host: Block,
}

/// The table of a plugin as something that may be sent to other threads.
#[derive(Clone, Copy)]
struct Table(PjPlugin);

// SAFETY: SPEC V-3: the table holds static text and functions for all threads.
unsafe impl Send for Table {}

// SAFETY: SPEC V-3 and T-1.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Plugin {
    /// Initialises the plugin as a host whose structs have this shape.
    pub(crate) fn init(library: &Library, dir: &Path, shape: Shape, limits: Limits) -> Checked<Self> {
        let table = Table(*library.table());
        let messages = Arc::new(Messages::default());
        let host = services::host(&messages, library.handshake().negotiated_minor, shape);
        let recorder = Arc::new(Recorder::default());
        let sink = recorder.sink(shape);
        let dir = dir.to_string_lossy().into_owned();
        let (status, ctx, sink, host) = limited("init", limits.call(), move || {
            let (table, mut ctx) = ({ table }.0, std::ptr::null_mut());
            // SAFETY: SPEC L-2: all pointers are valid for the call, the host until `shutdown`.
            let status = table
                .init
                .map(|init| unsafe { init(host.as_ptr(), PjStr::new(&dir), sink.as_ptr(), &raw mut ctx) });
            (status, Handle(ctx), sink, host)
        })?;
        recorder.is_closed.store(true, Ordering::Release);
        drop(sink);
        let answer = Answer { entry: "init", status: status.unwrap_or(PJ_OK), events: recorder.events() };
        answer.success()?;
        if ctx.0.is_null() {
            return fail("init succeeded without a context".to_owned());
        }
        Ok(Self(Arc::new(Inner { table: *library.table(), ctx, shape, limits, messages, _host: host })))
    }

    /// What the plugin logged so far.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.0.messages.all()
    }

    fn call(
        &self,
        entry: &'static str,
        limit: Duration,
        is_cancelled: bool,
        call: impl FnOnce(&Inner, *const pajamas_plugin_api::abi::PjSink) -> i32 + Send + 'static,
    ) -> Checked<Answer> {
        let recorder = Arc::new(Recorder::default());
        recorder.is_cancelled.store(is_cancelled, Ordering::Relaxed);
        recorder.refuses_events.store(is_cancelled, Ordering::Relaxed);
        let sink = recorder.sink(self.0.shape);
        let inner = Arc::clone(&self.0);
        let status = limited(entry, limit, move || {
            let status = call(&inner, sink.as_ptr());
            // Keeps the sink until here, and no longer.
            drop(sink);
            status
        })?;
        recorder.is_closed.store(true, Ordering::Release);
        let events = recorder.events();
        if let Some(event) = events.iter().find(|event| matches!(event, Seen::Malformed(_) | Seen::Done(..)))
        {
            return fail(format!("{entry} sent an event that calls do not have: {event:?}"));
        }
        Ok(Answer { entry, status, events })
    }

    /// `None` when the plugin has no `probe`.
    pub(crate) fn probe(&self) -> Checked<Option<Answer>> {
        let Some(probe) = self.0.table.probe else { return Ok(None) };
        // SAFETY: SPEC L-3: the context is valid, the sink for the call.
        self.call("probe", self.0.limits.call(), false, move |inner, sink| unsafe {
            probe(inner.ctx.0, sink)
        })
        .map(Some)
    }

    /// `None` when the plugin has no `inspect`.
    pub(crate) fn inspect(&self, path: &Path) -> Checked<Option<Answer>> {
        let Some(inspect) = self.0.table.inspect else { return Ok(None) };
        let path = path.to_string_lossy().into_owned();
        // SAFETY: SPEC L-4: the context is valid, the path and the sink for the call.
        let call = move |inner: &Inner, sink| unsafe { inspect(inner.ctx.0, PjStr::new(&path), sink) };
        self.call("inspect", self.0.limits.call(), false, call).map(Some)
    }

    /// Loads; the specification is text, so that it may be malformed.
    pub(crate) fn load_text(&self, spec_json: &str, is_cancelled: bool) -> Checked<(Answer, Option<Model>)> {
        let Some(load) = self.0.table.load else { return fail("the plugin has no load".to_owned()) };
        let spec_json = spec_json.to_owned();
        let (sender, receiver) = mpsc::channel();
        let call = move |inner: &Inner, sink| {
            let mut model = std::ptr::null_mut();
            // SAFETY: SPEC L-5: the context is valid, the other pointers for the call.
            let status = unsafe { load(inner.ctx.0, PjStr::new(&spec_json), sink, &raw mut model) };
            // The receiver waits for this call or has given up.
            sender.send(Handle(model)).ok();
            status
        };
        let answer = self.call("load", self.0.limits.load(), is_cancelled, call)?;
        let raw = receiver.try_recv().unwrap_or(Handle::NULL);
        match (answer.status == PJ_OK, raw.0.is_null()) {
            (true, true) => fail("load succeeded without a model".to_owned()),
            (false, false) => fail("load failed and yet wrote a model to its out pointer".to_owned()),
            (is_loaded, _) => Ok((answer, is_loaded.then(|| Model { inner: Arc::clone(&self.0), raw }))),
        }
    }

    /// As [`Plugin::load_text`].
    pub(crate) fn load(&self, spec: &LoadSpec) -> Checked<(Answer, Option<Model>)> {
        let spec_json = serde_json::to_string(spec).map_err(|e| Stop::Fail(e.to_string()))?;
        self.load_text(&spec_json, false)
    }

    /// `None` when the plugin has no `get_extension`, else whether it has this one.
    pub(crate) fn has_extension(&self, id: &'static str) -> Checked<Option<bool>> {
        let Some(get_extension) = self.0.table.get_extension else { return Ok(None) };
        let inner = Arc::clone(&self.0);
        // SAFETY: SPEC V-10: the context is valid, the id for the call.
        let call = move || unsafe { !get_extension(inner.ctx.0, PjStr::new(id)).is_null() };
        limited("get_extension", self.0.limits.call(), call).map(Some)
    }

    /// Shuts the plugin down; all models are unloaded.
    pub(crate) fn shutdown(self) -> Checked {
        let inner = Arc::clone(&self.0);
        limited("shutdown", self.0.limits.call(), move || {
            if let Some(shutdown) = inner.table.shutdown {
                // SAFETY: SPEC L-8: cases unload all models first.
                unsafe { shutdown(inner.ctx.0) }
            }
        })
    }
}

/// A loaded model.
#[derive(Clone)]
pub(crate) struct Model {
    inner: Arc<Inner>,
    raw: Handle<PjModel>,
}

/// What became of a submitted request.
pub(crate) enum Submitted {
    /// A job.
    Job(Job),
    /// The call failed.
    Refused(Answer),
}

impl Model {
    /// Submits; the request is overwritten as soon as `submit` has returned.
    pub(crate) fn submit(&self, request: &Request) -> Checked<Submitted> {
        self.submit_block(RequestBlock::new(request, None, self.inner.shape), Arc::default())
    }

    /// As [`Model::submit`], with parameters that may be malformed.
    pub(crate) fn submit_with_params(&self, request: &Request, params: &str) -> Checked<Submitted> {
        self.submit_block(RequestBlock::new(request, Some(params), self.inner.shape), Arc::default())
    }

    /// As [`Model::submit`], with a recorder that was told what to answer.
    pub(crate) fn submit_to(&self, request: &Request, recorder: Arc<Recorder>) -> Checked<Submitted> {
        self.submit_block(RequestBlock::new(request, None, self.inner.shape), recorder)
    }

    fn submit_block(&self, mut request: RequestBlock, recorder: Arc<Recorder>) -> Checked<Submitted> {
        let Some(submit) = self.inner.table.submit else {
            return fail("the plugin has no submit".to_owned());
        };
        let (sink, model, owner) = (recorder.sink(self.inner.shape), self.raw, self.clone());
        let (status, job, sink) = limited("submit", self.inner.limits.call(), move || {
            let (model, mut job) = ({ model }.0, std::ptr::null_mut());
            // SAFETY: SPEC J-1: the model is loaded, the request is valid for the call, the sink until the release.
            let status = unsafe { submit(model, request.as_ptr(), sink.as_ptr(), &raw mut job) };
            request.poison();
            (status, Handle(job), sink)
        })?;
        match (status == PJ_OK, job.0.is_null()) {
            (true, true) => fail("submit succeeded without a job".to_owned()),
            (true, false) => {
                Ok(Submitted::Job(Job { model: owner, raw: job, recorder, sink: Arc::new(sink) }))
            }
            (false, _) => {
                recorder.is_closed.store(true, Ordering::Release);
                Ok(Submitted::Refused(Answer { entry: "submit", status, events: recorder.events() }))
            }
        }
    }

    /// `None` when the plugin has no `stats`.
    pub(crate) fn stats(&self) -> Checked<Option<Answer>> {
        let Some(stats) = self.inner.table.stats else { return Ok(None) };
        let raw = self.raw;
        // SAFETY: SPEC L-6: the model is loaded, the sink is valid for the call.
        let call = move |_: &Inner, sink| unsafe { stats({ raw }.0, sink) };
        Plugin(Arc::clone(&self.inner)).call("stats", self.inner.limits.call(), false, call).map(Some)
    }

    /// Unloads the model; all jobs are released.
    pub(crate) fn unload(self) -> Checked {
        let (unload, raw) = (self.inner.table.unload, self.raw);
        limited("unload", self.inner.limits.call(), move || {
            if let Some(unload) = unload {
                // SAFETY: SPEC L-7: cases release all jobs first, and unload once.
                unsafe { unload({ raw }.0) }
            }
        })
    }
}

/// A running job.
#[derive(Clone)]
pub(crate) struct Job {
    model: Model,
    raw: Handle<PjJob>,
    pub(crate) recorder: Arc<Recorder>,
    /// What `pj_sink *` points to until the release.
    sink: Arc<Block>,
}

impl Job {
    /// Cancels, from another thread.
    pub(crate) fn cancel(&self) -> Checked {
        let (cancel, raw) = (self.model.inner.table.cancel, self.raw);
        limited("cancel", self.model.inner.limits.call(), move || {
            if let Some(cancel) = cancel {
                // SAFETY: SPEC J-5: the handle is valid until the release.
                unsafe { cancel({ raw }.0) }
            }
        })
    }

    /// Longest time for a job.
    pub(crate) fn limit(&self) -> Duration {
        self.model.inner.limits.job()
    }

    /// Waits for the terminal event.
    pub(crate) fn wait(&self) -> Checked {
        let limit = self.limit();
        if self.recorder.wait_for_end(limit) {
            return Ok(());
        }
        fail(format!(
            "no terminal event within {} ms; {} events arrived",
            limit.as_millis(),
            self.recorder.events().len()
        ))
    }

    /// Releases the job after its terminal event. What the plugin pushes afterwards is counted as a fault.
    pub(crate) fn release(self) -> Checked {
        let (release, raw) = (self.model.inner.table.release_job, self.raw);
        limited("release_job", self.model.inner.limits.call(), move || {
            if let Some(release) = release {
                // SAFETY: SPEC J-6: the terminal event has arrived, and the job is released once.
                unsafe { release({ raw }.0) }
            }
        })?;
        self.recorder.is_closed.store(true, Ordering::Release);
        drop(self.sink);
        Ok(())
    }
}

/// Loads a library and shakes hands, no longer than `limit`.
pub(crate) fn open(path: &Path, host_minor: u32, limit: Duration) -> Checked<Library> {
    let path = path.to_owned();
    let opened = limited("the library's constructors or its entry", limit, move || {
        Library::open_as(&path, host_minor).map_err(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        })
    })?;
    opened.map_err(Stop::Fail)
}

/// What the plugin said of itself.
pub(crate) fn handshake(library: &Library) -> &Handshake {
    library.handshake()
}
