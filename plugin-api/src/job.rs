//! A job as a plugin sees it: where its events go, and whether it is cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind};
use crate::event::{Event, EventSink, Finish, Flow, Usage};

/// The sending end of one job's events. Exactly one terminal event leaves it, whatever happens: dropping an
/// unfinished job, also by unwinding, sends an error.
pub struct Job {
    sink: Arc<dyn EventSink>,
    cancel: Arc<AtomicBool>,
    finished: bool,
}

impl Job {
    /// A job that sends to `sink`; `cancel` is set when the host cancels it. Used by the SDK and by tests.
    pub fn new(sink: Arc<dyn EventSink>, cancel: Arc<AtomicBool>) -> Self {
        Self { sink, cancel, finished: false }
    }

    /// Sends one event that is not terminal (terminal ones are refused in debug builds and ignored otherwise:
    /// use [`Job::done`] and [`Job::fail`]). Never blocks.
    pub fn push(&self, event: &Event<'_>) -> Flow {
        debug_assert!(!event.is_terminal(), "terminal events are sent by done and fail");
        if event.is_terminal() {
            return Flow::Continue;
        }
        match self.sink.push(event) {
            Flow::Continue if !self.cancel.load(Ordering::Relaxed) => Flow::Continue,
            _ => Flow::Cancelled,
        }
    }

    /// Whether the job is cancelled. Cheap; poll it wherever nothing is pushed for long, such as during prefill.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || self.sink.cancelled()
    }

    /// Ends the job well.
    pub fn done(mut self, finish: Finish, usage: Usage) {
        self.finished = true;
        self.sink.push(&Event::Done { finish, usage });
    }

    /// Ends the job with an error.
    pub fn fail(mut self, error: &Error) {
        self.finished = true;
        self.sink.push(&Event::Error { kind: error.kind(), message: error.message() });
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (kind, message) = if std::thread::panicking() {
            (ErrorKind::Panic, "the plugin panicked while it worked on this request")
        } else {
            (ErrorKind::Internal, "the plugin dropped this request without an answer")
        };
        self.sink.push(&Event::Error { kind, message });
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

/// The progress of a load.
pub struct Progress {
    sink: Arc<dyn EventSink>,
}

impl Progress {
    /// Progress that is reported to `sink`. Used by the SDK and by tests.
    pub fn new(sink: Arc<dyn EventSink>) -> Self {
        Self { sink }
    }

    /// Reports that `fraction` (0 to 1) is done.
    pub fn report(&self, fraction: f32, text: &str) -> Flow {
        self.sink.push(&Event::Progress { fraction, text })
    }

    /// Whether the load is to be given up.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.sink.cancelled()
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}
