//! The worker's side: loads one plugin and serves the host over a socket until the host is gone.
//!
//! Threads: the main one reads frames and does nothing that may hang; `jobs` calls `submit` and `release_job`; each
//! probe, inspection, load and measurement has a thread of its own; `outbox` sends what the socket did not take.
//! Tokens go out on the plugin's own threads.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use pajamas_plugin_api::native::{Handshake, Library, NativeBackend, NativeJob, NativeModel};
use pajamas_plugin_api::{
    Error, ErrorKind, Event, EventSink, Flow, LoadSpec, LogSink, level_from_abi, level_to_abi,
};
use parking_lot::Mutex;

use super::confine;
use super::protocol::{
    CallId, FromWorker, Hello, JobId, ModelId, ToWorker, WireEvent, WireRequest, build_id,
};
use super::transport::{Outbox, SendError, receive};
use super::wire::{Attachments, Decoder, Received, encode, event_to_wire, request_from_wire};

/// Entry of the hidden `worker` command: the socket is standard input.
#[must_use]
pub fn main() -> ExitCode {
    match take_stdin() {
        Ok(socket) => {
            serve(socket, Host::OtherProcess);
            // Nothing of the plugin is to run any more, neither its threads nor its exit handlers.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::from(64),
    }
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
    let link = Arc::new(Link { socket, outbox: Outbox::default() });
    let flusher = Arc::clone(&link);
    let spawned =
        std::thread::Builder::new().name("outbox".to_owned()).spawn(move || flusher.flush_forever());
    if spawned.is_ok() {
        Reader { link: Arc::clone(&link), decoder: Decoder::default() }.run(host);
    }
    link.outbox.close();
}

/// The connection to the host.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    outbox: Outbox,
}

impl Link {
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
            match receive(self.link.socket.as_fd(), &mut self.decoder) {
                Ok(0) => return None,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
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
    work: mpsc::Sender<JobWork>,
}

/// Work of the `jobs` thread.
enum JobWork {
    Submit { job: JobId, state: Arc<JobState>, model: ModelId, request: WireRequest, attachments: Received },
    Release(JobId),
}

impl Session {
    fn start(backend: NativeBackend, link: &Arc<Link>) -> std::io::Result<Self> {
        let (work, inbox) = mpsc::channel();
        let session = Self {
            link: Arc::clone(link),
            backend,
            models: Models::default(),
            jobs: Jobs::default(),
            loads: Arc::default(),
            work: work.clone(),
        };
        let runner = JobRunner {
            link: Arc::clone(link),
            models: Arc::clone(&session.models),
            jobs: Arc::clone(&session.jobs),
            work,
        };
        std::thread::Builder::new().name("jobs".to_owned()).spawn(move || runner.run(&inbox))?;
        Ok(session)
    }

    fn handle(&self, message: ToWorker, attachments: Received) {
        match message {
            ToWorker::Hello(_) => {}
            ToWorker::Probe { call } => {
                let backend = self.backend.clone();
                self.call(call, "probe", move || to_json(&backend.probe()?));
            }
            ToWorker::Inspect { call, path } => {
                let backend = self.backend.clone();
                self.call(call, "inspect", move || to_json(&backend.inspect(&path)?));
            }
            ToWorker::Load { call, model, spec_json } => self.load(call, model, spec_json),
            ToWorker::CancelLoad { model } => {
                if let Some(cancel) = self.loads.lock().get(&model) {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
            ToWorker::Stats { call, model } => {
                let found = self.models.lock().get(&model).cloned();
                self.call(call, "stats", move || {
                    to_json(&found.ok_or_else(|| Error::internal("the model is not loaded"))?.stats()?)
                });
            }
            ToWorker::Unload { model } => {
                let removed = self.models.lock().remove(&model);
                // Frees the model, unless a job still holds it; that may take a while.
                let _ = std::thread::Builder::new().name("unload".to_owned()).spawn(move || drop(removed));
            }
            ToWorker::Submit { job, model, request } => {
                let state = Arc::new(JobState::new(job, &self.link, &self.work));
                self.jobs.lock().insert(job, Arc::clone(&state));
                let _ = self.work.send(JobWork::Submit { job, state, model, request, attachments });
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
    fn call(&self, call: CallId, name: &str, body: impl FnOnce() -> Result<String, Error> + Send + 'static) {
        let link = Arc::clone(&self.link);
        let spawned =
            std::thread::Builder::new().name(name.to_owned()).spawn(move || link.answer(call, body()));
        if let Err(error) = spawned {
            self.link.answer(call, Err(Error::internal(format!("cannot start a thread: {error}"))));
        }
    }

    fn load(&self, call: CallId, model: ModelId, spec_json: String) {
        let cancel = Arc::new(AtomicBool::new(false));
        self.loads.lock().insert(model, Arc::clone(&cancel));
        let (backend, link) = (self.backend.clone(), Arc::clone(&self.link));
        let (models, loads) = (Arc::clone(&self.models), Arc::clone(&self.loads));
        self.call(call, "load", move || {
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

/// One job from `Submit` to its release.
struct JobState {
    id: JobId,
    link: Arc<Link>,
    work: mpsc::Sender<JobWork>,
    /// The host wants nothing more of it.
    cancelled: AtomicBool,
    native: Mutex<Option<NativeJob>>,
}

impl JobState {
    fn new(id: JobId, link: &Arc<Link>, work: &mpsc::Sender<JobWork>) -> Self {
        Self {
            id,
            link: Arc::clone(link),
            work: work.clone(),
            cancelled: AtomicBool::new(false),
            native: Mutex::new(None),
        }
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(native) = &*self.native.lock() {
            native.cancel();
        }
    }

    fn send(&self, event: WireEvent, attachments: Attachments) -> Result<(), SendError> {
        self.link.send_with(&FromWorker::Event { job: self.id, event }, attachments)
    }

    fn forward(&self, event: &Event<'_>) {
        let mut attachments = Attachments::default();
        let sent = match event_to_wire(event, &mut attachments) {
            Ok(Some(wire)) => self.send(wire, attachments),
            Ok(None) => Ok(()),
            Err(_) => Err(SendError::Full),
        };
        if sent.is_err() && !event.is_terminal() {
            // A plugin that floods the link loses this job only; the terminal event is sent when it stops.
            self.cancelled.store(true, Ordering::Relaxed);
            let message = "the plugin sent more than the connection to the host can hold".to_owned();
            let _ =
                self.send(WireEvent::Error { kind: ErrorKind::Overloaded, message }, Attachments::default());
        }
    }
}

impl EventSink for JobState {
    fn push(&self, event: &Event<'_>) -> Flow {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        if event.is_terminal() {
            self.forward(event);
            // Released by the `jobs` thread: never from within the plugin's own call.
            let _ = self.work.send(JobWork::Release(self.id));
        } else if !cancelled {
            self.forward(event);
        }
        if cancelled { Flow::Cancelled } else { Flow::Continue }
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// The `jobs` thread.
struct JobRunner {
    link: Arc<Link>,
    models: Models,
    jobs: Jobs,
    work: mpsc::Sender<JobWork>,
}

impl JobRunner {
    fn run(self, inbox: &mpsc::Receiver<JobWork>) {
        while let Ok(work) = inbox.recv() {
            match work {
                JobWork::Submit { job, state, model, request, attachments } => {
                    self.submit(&state, model, request, attachments);
                    let _ = self.link.send(&FromWorker::Submitted { job });
                }
                JobWork::Release(job) => {
                    let state = self.jobs.lock().remove(&job);
                    let native = state.and_then(|state| state.native.lock().take());
                    drop(native);
                }
            }
        }
    }

    fn submit(&self, state: &Arc<JobState>, model: ModelId, request: WireRequest, mut attachments: Received) {
        let found = self.models.lock().get(&model).cloned();
        let Some(model) = found else {
            return self.refuse(state, &Error::internal("the model is not loaded in this worker"));
        };
        match request_from_wire(request, &mut attachments) {
            Err(error) => self.refuse(state, &error),
            Ok(request) => {
                let native = model.submit(&request, Arc::<JobState>::clone(state));
                let cancelled = {
                    let mut slot = state.native.lock();
                    *slot = native;
                    state.cancelled.load(Ordering::Relaxed)
                };
                if cancelled {
                    state.cancel();
                }
            }
        }
    }

    fn refuse(&self, state: &Arc<JobState>, error: &Error) {
        state.forward(&Event::Error { kind: error.kind(), message: error.message() });
        let _ = self.work.send(JobWork::Release(state.id));
    }
}
