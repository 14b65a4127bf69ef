//! The worker's side: loads one plugin and serves the host over a socket until the host is gone.
//!
//! Threads: the main one reads frames and calls `submit`, which SPEC wants to return at once; `release` calls
//! `release_job`, unless the job ended while `submit` ran: then the main one does. Each probe, inspection, load and
//! measurement gets a thread; `outbox` sends what the socket did not take; `guard` ends the process when the host is
//! gone, whatever the plugin does, and reports a `submit` that hangs.
//! Tokens go out on the plugin's own threads.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pajamas_plugin_api::native::{Handshake, Library, NativeBackend, NativeModel};
use pajamas_plugin_api::{
    Error, Event, EventSink, Flow, LoadSpec, LogSink, level_from_abi, level_to_abi, thread,
};
use parking_lot::Mutex;

use super::confine;
use super::protocol::{CallId, FromWorker, Hello, JobId, ModelId, ToWorker, WireRequest, build_id};
use super::transport::{Outbox, SendError, receive};
use super::wire::{Attachments, Decoder, Received, encode, request_from_wire};

mod job;

use job::JobState;

/// Entry of the hidden `worker` command: the socket is standard input.
#[must_use]
pub fn main() -> ExitCode {
    match take_stdin() {
        Ok(socket) => {
            serve(socket, Host::OtherProcess);
            kill_self();
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::from(64),
    }
}

/// Nothing of the plugin is to run any more, neither its threads nor its exit handlers.
fn kill_self() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

/// Moves the socket away from standard input, so that a plugin that reads from it finds nothing.
fn take_stdin() -> std::io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3)?;
    rustix::net::sockopt::socket_type(&socket)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

/// Where the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// In another process: the normal case.
    OtherProcess,
    /// In this process: for debuggers.
    SameProcess,
}

/// Serves until the host closes the socket.
pub(crate) fn serve(socket: OwnedFd, host: Host) {
    let link = Arc::new(Link { socket, outbox: Outbox::default(), submitting_since: Mutex::new(None) });
    let flusher = Arc::clone(&link);
    let spawned =
        std::thread::Builder::new().name("outbox".to_owned()).spawn(move || flusher.flush_forever());
    let guarded = match host {
        Host::SameProcess => Ok(()),
        Host::OtherProcess => guard(Arc::clone(&link)),
    };
    if spawned.is_ok() && guarded.is_ok() {
        Reader { link: Arc::clone(&link), decoder: Decoder::default() }.run(host);
    }
    link.outbox.close();
}

/// How long `submit` may take before the host is told, which then ends this process.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a running `submit` is looked at.
const GUARD_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the thread that does what the main thread cannot do while it is inside the plugin.
fn guard(link: Arc<Link>) -> std::io::Result<()> {
    let guard = move || {
        let interval = rustix::event::Timespec::try_from(GUARD_INTERVAL).ok();
        loop {
            // A hang-up is reported without being asked for; nothing else wakes this thread.
            let mut hang_up = [rustix::event::PollFd::new(&link.socket, rustix::event::PollFlags::empty())];
            match rustix::event::poll(&mut hang_up, interval.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => link.report_hanging_submit(),
                _ => return kill_self(),
            }
        }
    };
    std::thread::Builder::new().name("guard".to_owned()).spawn(guard).map(drop)
}

/// The connection to the host.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    outbox: Outbox,
    /// When the `submit` that is running was called.
    submitting_since: Mutex<Option<Instant>>,
}

impl Link {
    fn report_hanging_submit(&self) {
        let since = *self.submitting_since.lock();
        if since.is_some_and(|since| since.elapsed() >= SUBMIT_TIMEOUT) {
            let ms = u64::try_from(SUBMIT_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
            let _ = self.send(&FromWorker::SubmitHangs { ms });
        }
    }

    fn send(&self, message: &FromWorker) -> Result<(), SendError> {
        self.send_with(message, Attachments::default())
    }

    fn send_with(&self, message: &FromWorker, attachments: Attachments) -> Result<(), SendError> {
        let frame = encode(message, attachments).map_err(|_| SendError::Full)?;
        self.outbox.send(self.socket.as_fd(), frame).map(drop)
    }

    fn answer(&self, call: CallId, outcome: Result<String, Error>) {
        // Fails only when the host is gone, and then the reader ends this worker.
        let _ = self.send(&FromWorker::Answer { call, outcome });
    }

    fn flush_forever(&self) {
        while self.outbox.wait_blocked() {
            let mut ready = [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::OUT)];
            let _ = rustix::event::poll(&mut ready, None);
            if self.outbox.flush(self.socket.as_fd()).is_err() {
                return;
            }
        }
    }
}

/// Reads frames.
struct Reader {
    link: Arc<Link>,
    decoder: Decoder,
}

impl Reader {
    fn next(&mut self) -> Option<(ToWorker, Received)> {
        loop {
            match self.decoder.next::<ToWorker>() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(_) => return None,
            }
            // Not a blocking read: the kernel wakes one whenever the host has read something that was sent to it.
            let mut ready = [rustix::event::PollFd::new(&self.link.socket, rustix::event::PollFlags::IN)];
            let _ = rustix::event::poll(&mut ready, None);
            match receive(self.link.socket.as_fd(), &mut self.decoder) {
                Ok(read) if read.bytes == 0 => return None,
                Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => return None,
            }
        }
    }

    fn run(mut self, host: Host) {
        let Some((ToWorker::Hello(hello), _)) = self.next() else { return };
        let own_id = build_id(Path::new("/proc/self/exe")).unwrap_or_default();
        if host == Host::OtherProcess && own_id != hello.build_id {
            let outcome = Err("the worker is of another build than the host: restart the host".to_owned());
            let _ = self.link.send(&FromWorker::Hello { build_id: own_id, outcome, confined: String::new() });
            return;
        }
        let confined = hello
            .confinement
            .as_ref()
            .map_or_else(|| "not confined: the plugin runs inside the host".to_owned(), confine::apply);
        let (backend, outcome) = match start(&hello, &self.link) {
            Ok((backend, handshake)) => (Some(backend), Ok(handshake)),
            Err(message) => (None, Err(message)),
        };
        let _ = self.link.send(&FromWorker::Hello { build_id: hello.build_id, outcome, confined });
        if let Some(backend) = backend
            && let Ok(session) = Session::start(backend, &self.link)
        {
            while let Some((message, attachments)) = self.next() {
                session.handle(message, attachments);
            }
        }
    }
}

/// Loads and initialises the plugin.
fn start(hello: &Hello, link: &Arc<Link>) -> Result<(NativeBackend, Handshake), String> {
    let library = Library::open(&hello.library).map_err(|e| crate::error_chain(&e))?;
    let handshake = library.handshake().clone();
    let log = HostLog { link: Arc::clone(link), level: level_from_abi(hello.log_level) };
    let backend = library.init(&hello.plugin_dir, Arc::new(log)).map_err(|e| e.to_string())?;
    Ok((backend, handshake))
}

/// Sends the plugin's messages to the host. A congested link drops them.
struct HostLog {
    link: Arc<Link>,
    level: tracing::Level,
}

impl LogSink for HostLog {
    fn enabled(&self, level: tracing::Level, _target: &str) -> bool {
        level <= self.level
    }

    fn log(&self, level: tracing::Level, target: &str, message: &str, fields_json: &str) {
        let _ = self.link.send(&FromWorker::Log {
            level: level_to_abi(level),
            target: target.to_owned(),
            message: message.to_owned(),
            fields_json: fields_json.to_owned(),
        });
    }
}

type Models = Arc<Mutex<HashMap<ModelId, Arc<NativeModel>>>>;
type Jobs = Arc<Mutex<HashMap<JobId, Arc<JobState>>>>;

/// A plugin that is being served.
struct Session {
    link: Arc<Link>,
    backend: NativeBackend,
    models: Models,
    jobs: Jobs,
    loads: Arc<Mutex<HashMap<ModelId, Arc<AtomicBool>>>>,
    calls: thread::Pool,
    /// Jobs that have ended, to the `release` thread.
    ended: mpsc::Sender<JobId>,
}

impl Session {
    fn start(backend: NativeBackend, link: &Arc<Link>) -> std::io::Result<Self> {
        let (ended, inbox) = mpsc::channel();
        let session = Self {
            link: Arc::clone(link),
            backend,
            models: Models::default(),
            jobs: Jobs::default(),
            loads: Arc::default(),
            calls: thread::Pool::new("call"),
            ended,
        };
        let jobs = Arc::clone(&session.jobs);
        let release = move || {
            while let Ok(job) = inbox.recv() {
                let state = jobs.lock().remove(&job);
                // Outside the lock: this calls the plugin.
                drop(state.and_then(|state| state.end()));
            }
        };
        std::thread::Builder::new().name("release".to_owned()).spawn(release)?;
        Ok(session)
    }

    fn handle(&self, message: ToWorker, attachments: Received) {
        match message {
            ToWorker::Hello(_) => {}
            ToWorker::Probe { call } => {
                let backend = self.backend.clone();
                self.call(call, move || to_json(&backend.probe()?));
            }
            ToWorker::Inspect { call, path } => {
                let backend = self.backend.clone();
                self.call(call, move || to_json(&backend.inspect(&path)?));
            }
            ToWorker::Load { call, model, spec_json } => self.load(call, model, spec_json),
            ToWorker::CancelLoad { model } => {
                if let Some(cancel) = self.loads.lock().get(&model) {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
            ToWorker::Stats { call, model } => {
                let found = self.models.lock().get(&model).cloned();
                self.call(call, move || {
                    to_json(&found.ok_or_else(|| Error::internal("the model is not loaded"))?.stats()?)
                });
            }
            ToWorker::Unload { model } => {
                let removed = self.models.lock().remove(&model);
                let link = Arc::clone(&self.link);
                // Frees the model, unless a job still holds it; that may take a while. Without a thread it is freed too.
                let _ = self.calls.run(move || {
                    drop(removed);
                    // Fails only when the host is gone.
                    let _ = link.send(&FromWorker::Unloaded);
                });
            }
            ToWorker::Submit { job, model, request } => {
                let state = Arc::new(JobState::new(job, &self.link, &self.ended));
                self.jobs.lock().insert(job, Arc::clone(&state));
                *self.link.submitting_since.lock() = Some(Instant::now());
                let goes_on = self.submit(&state, model, request, attachments);
                *self.link.submitting_since.lock() = None;
                if !goes_on {
                    self.jobs.lock().remove(&job);
                }
            }
            ToWorker::Cancel { job } => {
                let state = self.jobs.lock().get(&job).cloned();
                if let Some(state) = state {
                    state.cancel();
                }
            }
        }
    }

    /// Runs a call on a thread of its own: a hanging plugin hangs nothing else.
    fn call(&self, call: CallId, body: impl FnOnce() -> Result<String, Error> + Send + 'static) {
        let link = Arc::clone(&self.link);
        if let Err(error) = self.calls.run(move || link.answer(call, body())) {
            self.link.answer(call, Err(error));
        }
    }

    /// Hands a job to the plugin. Returns whether it goes on after that.
    fn submit(
        &self,
        state: &Arc<JobState>,
        model: ModelId,
        request: WireRequest,
        mut attachments: Received,
    ) -> bool {
        let found = self.models.lock().get(&model).cloned();
        let Some(model) = found else {
            return state.refuse(&Error::internal("the model is not loaded in this worker"));
        };
        match request_from_wire(request, &mut attachments) {
            Err(error) => state.refuse(&error),
            Ok(request) => state.start(model.submit(&request, Arc::<JobState>::clone(state))),
        }
    }

    fn load(&self, call: CallId, model: ModelId, spec_json: String) {
        let cancel = Arc::new(AtomicBool::new(false));
        self.loads.lock().insert(model, Arc::clone(&cancel));
        let (backend, link) = (self.backend.clone(), Arc::clone(&self.link));
        let (models, loads) = (Arc::clone(&self.models), Arc::clone(&self.loads));
        self.call(call, move || {
            let outcome = load(
                &backend,
                &spec_json,
                Arc::new(LoadProgress { link, call, cancel, last: Mutex::default() }),
            );
            loads.lock().remove(&model);
            let loaded = outcome?;
            let json = to_json(loaded.info())?;
            models.lock().insert(model, Arc::new(loaded));
            Ok(json)
        });
    }
}

fn load(backend: &NativeBackend, spec_json: &str, progress: Arc<LoadProgress>) -> Result<NativeModel, Error> {
    let spec: LoadSpec =
        serde_json::from_str(spec_json).map_err(|e| Error::internal(format!("load specification: {e}")))?;
    backend.load(&spec, progress)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::internal(format!("cannot encode the answer: {e}")))
}

/// Least progress between two messages of the same text; engines report every tensor.
const PROGRESS_STEP: f32 = 0.1;

/// Passes the progress of a load on.
struct LoadProgress {
    link: Arc<Link>,
    call: CallId,
    cancel: Arc<AtomicBool>,
    /// What was passed on last.
    last: Mutex<(f32, String)>,
}

impl EventSink for LoadProgress {
    fn push(&self, event: &Event<'_>) -> Flow {
        if let Event::Progress { fraction, text } = event {
            let mut last = self.last.lock();
            if *text != last.1 || *fraction >= last.0 + PROGRESS_STEP {
                *last = (*fraction, (*text).to_owned());
                let text = (*text).to_owned();
                let _ = self.link.send(&FromWorker::Progress { call: self.call, fraction: *fraction, text });
            }
        }
        if self.cancelled() { Flow::Cancelled } else { Flow::Continue }
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}
