//! Runs cases in processes of their own: the starting side and the started side.
//!
//! The starting side writes the subject to the process's standard input and names, in an environment variable, a file
//! for the outcome; standard output and error belong to the plugin.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::bench::{Bench, Stop};
use crate::cases::{Case, cases, find_case};
use crate::report::{Outcome, Report};
use crate::subject::Subject;

/// Names the file for the outcome.
const OUTCOME_FILE_ENV: &str = "PAJAMAS_CONFORMANCE_OUTCOME";
/// Most lines of output that are kept; earlier ones are dropped.
const LINES_MAX: usize = 20;
/// Most bytes of output that are kept, from the end.
const TAIL_BYTES_MAX: usize = 16 * 1024;
/// Between two looks at whether the process has ended. The standard library has no wait with a limit.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Runs all cases one after the other. `start` makes the command for a case: a process that ends by calling
/// [`run_case_here`] with the name that it is given. Its standard streams are set here.
pub fn run_in(start: &dyn Fn(&str) -> Command, subject: &Subject) -> Vec<Report> {
    cases().iter().map(|case| run_one(start(case.name), subject, case)).collect()
}

/// Runs one case in the process that `command` starts.
#[must_use]
pub fn run_one(command: Command, subject: &Subject, case: &Case) -> Report {
    let started = Instant::now();
    let (outcome, output) = match start_and_wait(command, subject) {
        Ok(ended) => (ended.outcome(subject, case), ended.output.lines()),
        Err(problem) => (Outcome::Failed(format!("the case could not be started: {problem}")), Vec::new()),
    };
    Report {
        case: case.name.to_owned(),
        rules: case.rules.iter().map(|rule| (*rule).to_owned()).collect(),
        output: if outcome == Outcome::Passed { Vec::new() } else { output },
        outcome,
        elapsed_ms: started.elapsed().as_millis() as u64,
    }
}

/// Runs one case in this process, which [`run_in`] started for it. The plugin may take the process down at any time, or
/// leave threads behind: end the process right after this returns. Fails when the process was started by anything else.
#[must_use]
pub fn run_case_here(name: &str) -> ExitCode {
    let Some(outcome_file) = std::env::var_os(OUTCOME_FILE_ENV).map(PathBuf::from) else {
        tracing::error!("{OUTCOME_FILE_ENV} is not set: cases are started by the conformance runner");
        return ExitCode::FAILURE;
    };
    let outcome = match (serde_json::from_reader(std::io::stdin()), find_case(name)) {
        (Ok(subject), Some(case)) => outcome_of(case, &subject),
        (Err(problem), _) => Outcome::Failed(format!("the subject is malformed: {problem}")),
        (_, None) => Outcome::Failed(format!("there is no case {name}")),
    };
    match write_outcome(&outcome_file, &outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!("cannot write {}: {problem}", outcome_file.display());
            ExitCode::FAILURE
        }
    }
}

fn outcome_of(case: &Case, subject: &Subject) -> Outcome {
    match Bench::new(subject).and_then(|bench| (case.run)(&bench)) {
        Ok(()) => Outcome::Passed,
        Err(Stop::Fail(message)) => Outcome::Failed(message),
        Err(Stop::Skip(reason)) => Outcome::Skipped(reason),
    }
}

fn write_outcome(path: &Path, outcome: &Outcome) -> std::io::Result<()> {
    std::fs::write(path, serde_json::to_vec(outcome)?)
}

/// A process that has ended.
struct Ended {
    /// `None`: it was ended because its time was over.
    status: Option<ExitStatus>,
    /// What it wrote, if it came to that.
    written: Option<Outcome>,
    output: Tail,
}

fn start_and_wait(mut command: Command, subject: &Subject) -> std::io::Result<Ended> {
    let outcome_file = tempfile::NamedTempFile::new()?;
    command.env(OUTCOME_FILE_ENV, outcome_file.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (sender, receiver) = mpsc::channel();
    if let Some(pipe) = child.stdout.take() {
        read_tail(pipe, sender.clone());
    }
    if let Some(pipe) = child.stderr.take() {
        read_tail(pipe, sender);
    }
    if let Some(mut stdin) = child.stdin.take() {
        // A process that does not read its subject has died, and its status says how.
        drop(stdin.write_all(&serde_json::to_vec(subject)?));
    }
    let status = wait(&mut child, subject.limits.process())?;
    let mut output = Tail::default();
    // What inherited the pipes may outlive the process, so the end of the output is not waited for without a limit.
    while let Ok(tail) = receiver.recv_timeout(Duration::from_secs(1)) {
        output.append(&tail.kept, tail.total);
    }
    let written = std::fs::read(outcome_file.path()).ok().and_then(|json| serde_json::from_slice(&json).ok());
    Ok(Ended { status, written, output })
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

impl Ended {
    fn outcome(&self, subject: &Subject, case: &Case) -> Outcome {
        let limit_ms = subject.limits.process_ms;
        match (&self.written, self.status) {
            (Some(Outcome::Passed | Outcome::Skipped(_)), Some(status)) if !status.success() => {
                Outcome::Crashed(format!("{} after the case had ended well", death_of(status)))
            }
            (Some(Outcome::Passed | Outcome::Skipped(_)), None) => Outcome::Failed(format!(
                "the process did not end within {limit_ms} ms, although the case ended well"
            )),
            (Some(Outcome::Passed), _) if self.output.total > case.output_bytes_max => {
                Outcome::Failed(format!(
                    "the plugin printed {} bytes, at most {} are allowed: log through the host",
                    self.output.total, case.output_bytes_max
                ))
            }
            (Some(outcome), _) => outcome.clone(),
            (None, Some(status)) => Outcome::Crashed(death_of(status)),
            (None, None) => {
                Outcome::Failed(format!("the plugin hangs: the case did not end within {limit_ms} ms"))
            }
        }
    }
}

/// How a process died, in words.
fn death_of(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = match signal {
            4 => " (SIGILL)",
            6 => " (SIGABRT)",
            8 => " (SIGFPE)",
            9 => " (SIGKILL)",
            11 => " (SIGSEGV)",
            15 => " (SIGTERM)",
            // The numbers of the rest differ between systems.
            _ => "",
        };
        return format!("the process was ended by signal {signal}{name}");
    }
    match status.code() {
        Some(code) => format!("the process exited with code {code}"),
        None => "the process ended for an unknown reason".to_owned(),
    }
}

/// The end of what a process printed.
#[derive(Default)]
struct Tail {
    kept: Vec<u8>,
    total: u64,
}

impl Tail {
    fn append(&mut self, bytes: &[u8], total: u64) {
        self.kept.extend_from_slice(bytes);
        self.total += total;
        self.kept.drain(..self.kept.len().saturating_sub(TAIL_BYTES_MAX));
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.kept);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].to_vec()
    }
}

/// Reads a pipe to its end on a thread of its own, so that a process which floods it is not held up.
fn read_tail(mut pipe: impl Read + Send + 'static, done: mpsc::Sender<Tail>) {
    std::thread::spawn(move || {
        let mut tail = Tail::default();
        let mut chunk = [0; 8192];
        while let Ok(len @ 1..) = pipe.read(&mut chunk) {
            tail.append(&chunk[..len], len as u64);
        }
        // Nobody listens any more if the run has given up.
        drop(done.send(tail));
    });
}
