//! The tasks that keep a worker: reading, flushing, watching for hangs, and the end of the process.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pajamas_plugin_api::level_from_abi;
use pajamas_plugin_api::native::Handshake;
use tokio::io::Interest;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tracing::Level;

use super::super::exit;
use super::super::output::{LastLines, capture};
use super::super::protocol::{FromWorker, ToWorker};
use super::super::transport::{Read, receive};
use super::super::wire::Decoder;
use super::super::worker::{self, Host};
use super::{OnEnd, Shared, WorkerOptions, place};
use crate::engine::{FailureCause, WorkerFailure};
use crate::metrics::METRICS;

/// How long a worker may take to end after its connection closed, before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How often jobs are looked at for stalled readers.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The answer to the first frame: the handshake or a reason, and the confinement.
pub(super) type HelloAnswer = (Result<Handshake, String>, String);

/// Starts the worker and its tasks.
pub(super) fn run(
    shared: &Arc<Shared>,
    options: &WorkerOptions,
    theirs: OwnedFd,
    hello: oneshot::Sender<HelloAnswer>,
) -> io::Result<()> {
    let last_lines = LastLines::default();
    let body = match place(options) {
        Host::SameProcess => {
            let name = format!("worker {}", options.plugin);
            std::thread::Builder::new().name(name).spawn(|| worker::serve(theirs, Host::SameProcess))?;
            Body::Thread
        }
        Host::OtherProcess => {
            let process = spawn(options, theirs, &last_lines)?;
            if let Some(pid) = process.child.id() {
                shared.pid.get_or_init(|| pid);
            }
            Body::Process(Box::new(process))
        }
    };
    tokio::spawn(flush(Arc::clone(shared)));
    tokio::spawn(watch(Arc::clone(shared)));
    tokio::spawn(keep(Arc::clone(shared), body, last_lines, hello, options.on_end.clone()));
    Ok(())
}

/// Where the worker runs.
enum Body {
    Thread,
    Process(Box<Process>),
}

struct Process {
    child: Child,
    output: [tokio::task::JoinHandle<()>; 2],
}

fn spawn(options: &WorkerOptions, theirs: OwnedFd, last_lines: &LastLines) -> io::Result<Process> {
    let is_unset = |variable: &(&String, &String)| std::env::var_os(variable.0).is_none();
    let mut child = Command::new(&options.executable)
        .arg("worker")
        .stdin(theirs)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir(&options.plugin_dir)
        .envs(options.environment.iter().filter(is_unset))
        // Out of reach of the terminal's Ctrl-C: the host decides when a worker ends.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let missing = || io::Error::other("the worker's output is not captured");
    let (stdout, stderr) =
        (child.stdout.take().ok_or_else(missing)?, child.stderr.take().ok_or_else(missing)?);
    let output = [
        tokio::spawn(capture(stdout, options.plugin.clone(), "stdout", last_lines.clone())),
        tokio::spawn(capture(stderr, options.plugin.clone(), "stderr", last_lines.clone())),
    ];
    Ok(Process { child, output })
}

/// What the system says that the process has resident.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    crate::procfs::bytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Reads frames until the connection closes or the worker is to stop, then ends it and tells everyone.
async fn keep(
    shared: Arc<Shared>,
    body: Body,
    last_lines: LastLines,
    hello: oneshot::Sender<HelloAnswer>,
    on_end: OnEnd,
) {
    tokio::select! {
        () = read(&shared, hello) => {}
        () = shared.stop_requested.notified() => {}
    }
    shared.outbox.close();
    shared.flush.notify_one();
    // Closing our half tells the worker to end; it cannot be waited for when it hangs.
    let _ = rustix::net::shutdown(&shared.socket, rustix::net::Shutdown::Both);
    let status = match body {
        Body::Thread => None,
        Body::Process(process) => {
            let kill_now = shared.stop.lock().is_some();
            end(*process, kill_now).await
        }
    };
    let stopped = shared.stop.lock().clone();
    let (what, cause) = match (stopped, status) {
        (Some(stop), _) => (stop.what, stop.cause),
        (None, Some(status)) => (exit::describe(status), exit::cause(status)),
        (None, None) => ("ended".to_owned(), FailureCause::Plugin),
    };
    let failure =
        Arc::new(WorkerFailure { plugin: shared.plugin.clone(), what, last_lines: last_lines.get(), cause });
    if cause == FailureCause::Host {
        tracing::debug!("{failure}");
    } else {
        tracing::error!("{failure}");
    }
    let outcome = match cause {
        FailureCause::Plugin => "crashed",
        FailureCause::Outside => "killed",
        FailureCause::Host => "retired",
    };
    METRICS.worker_ended(&failure.plugin, outcome);
    on_end.tell(&failure);
    // Before the jobs are told: those that go on elsewhere must not find this worker alive.
    shared.ended.send_replace(Some(Arc::clone(&failure)));
    shared.jobs.fail_all(&failure);
    shared.calls.lock().clear();
}

/// Reaps the process. One that the host wants to stop is killed at once; one that ended by itself gets a moment, so
/// that its true exit status is seen.
async fn end(mut process: Process, kill_now: bool) -> Option<ExitStatus> {
    if kill_now {
        let _ = process.child.start_kill();
    }
    let status = match tokio::time::timeout(END_TIMEOUT, process.child.wait()).await {
        Ok(status) => status.ok(),
        Err(_) => {
            let _ = process.child.start_kill();
            process.child.wait().await.ok()
        }
    };
    // A grandchild may hold the pipes open: do not wait for ever.
    for task in process.output {
        let _ = tokio::time::timeout(Duration::from_millis(500), task).await;
    }
    status
}

async fn read(shared: &Arc<Shared>, hello: oneshot::Sender<HelloAnswer>) {
    let mut hello = Some(hello);
    let mut decoder = Decoder::default();
    loop {
        loop {
            match decoder.next::<FromWorker>() {
                Ok(Some((FromWorker::Hello { outcome, confined, .. }, _))) => {
                    if let Some(hello) = hello.take() {
                        // The starter may have given up; then it also stops the worker.
                        let _ = hello.send((outcome, confined));
                    }
                }
                Ok(Some((message, attachments))) => shared.dispatch(message, attachments),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(plugin = shared.plugin, "unreadable frame from the worker: {error}");
                    shared.blame("sent an unreadable frame and was stopped".to_owned());
                    return;
                }
            }
        }
        if shared.socket.readable().await.is_err() {
            return;
        }
        let received = shared.socket.try_io(Interest::READABLE, || {
            match receive(shared.socket.as_fd(), &mut decoder)? {
                Read { bytes: 0, .. } => Err(io::ErrorKind::UnexpectedEof.into()),
                Read { may_go_on: true, .. } => Ok(()),
                // Nothing more is there, and the next bytes will be announced.
                Read { .. } => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        match received {
            Ok(()) => {}
            Err(error) if is_transient(&error) => {}
            Err(_) => return,
        }
    }
}

async fn flush(shared: Arc<Shared>) {
    loop {
        shared.flush.notified().await;
        loop {
            if shared.socket.writable().await.is_err() {
                return;
            }
            let flushed = shared.socket.try_io(Interest::WRITABLE, || {
                match shared.outbox.flush(shared.socket.as_fd()) {
                    Ok(true) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(false) => Ok(()),
                    Err(error) => Err(io::Error::other(error)),
                }
            });
            match flushed {
                Ok(()) => break,
                Err(error) if is_transient(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// Whether the operation is to be tried again.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Stops jobs whose reader has stalled, and a worker that works on jobs and shows no sign of it.
async fn watch(shared: Arc<Shared>) {
    let mut ended = shared.ended.subscribe();
    loop {
        tokio::select! {
            _ = ended.changed() => return,
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
        }
        for job in shared.jobs.give_up_stalled(shared.stall_timeout) {
            let _ = shared.send(&ToWorker::Cancel { job });
        }
        if shared.jobs.longest_silence().is_some_and(|silence| silence >= shared.hang_timeout) {
            let limit_ms = shared.hang_timeout.as_millis();
            shared.blame(format!("had jobs to do, sent nothing for {limit_ms} ms and was stopped"));
            return;
        }
    }
}

/// A message of the plugin, in the host's log.
pub(super) fn log(plugin: &str, level: u32, target: &str, message: &str, fields: &str) {
    // An absent field is left out of the line.
    let fields = (!fields.is_empty()).then_some(fields);
    match level_from_abi(level) {
        Level::ERROR => tracing::error!(plugin, target, fields, "{message}"),
        Level::WARN => tracing::warn!(plugin, target, fields, "{message}"),
        Level::INFO => tracing::info!(plugin, target, fields, "{message}"),
        Level::DEBUG => tracing::debug!(plugin, target, fields, "{message}"),
        Level::TRACE => tracing::trace!(plugin, target, fields, "{message}"),
    }
}
