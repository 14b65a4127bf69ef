//! A job on the worker's side: its events to the host, its handle in the plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use pajamas_plugin_api::native::NativeJob;
use pajamas_plugin_api::{Error, ErrorKind, Event, EventSink, Flow};
use parking_lot::Mutex;

use super::super::protocol::{FromWorker, JobId, WireEvent};
use super::super::transport::SendError;
use super::super::wire::{Attachments, encode, event_to_wire};
use super::Link;

/// One job from `Submit` to its release.
pub(super) struct JobState {
    id: JobId,
    link: Arc<Link>,
    ended: mpsc::Sender<JobId>,
    /// The host wants nothing more of it.
    cancelled: AtomicBool,
    native: Mutex<Native>,
}

/// The plugin's side of a job.
enum Native {
    /// `submit` has not returned.
    Submitting,
    /// The plugin's handle, until it is released; `None` when `submit` failed.
    Running(Option<NativeJob>),
    /// The terminal event came before `submit` returned.
    EndedEarly,
}

impl JobState {
    pub(super) fn new(id: JobId, link: &Arc<Link>, ended: &mpsc::Sender<JobId>) -> Self {
        Self {
            id,
            link: Arc::clone(link),
            ended: ended.clone(),
            cancelled: AtomicBool::new(false),
            native: Mutex::new(Native::Submitting),
        }
    }

    /// Takes what `submit` has returned. A job that has ended already is released here: `submit` is over. Returns whether
    /// the job goes on.
    pub(super) fn start(&self, native: Option<NativeJob>) -> bool {
        let mut slot = self.native.lock();
        if matches!(*slot, Native::EndedEarly) {
            drop(slot);
            drop(native);
            return false;
        }
        if self.cancelled.load(Ordering::Relaxed)
            && let Some(native) = &native
        {
            native.cancel();
        }
        *slot = Native::Running(native);
        true
    }

    /// The handle to release after the terminal event.
    pub(super) fn end(&self) -> Option<NativeJob> {
        match &mut *self.native.lock() {
            Native::Running(native) => native.take(),
            Native::Submitting | Native::EndedEarly => None,
        }
    }

    /// The terminal event was sent. While `submit` runs, the thread in it does the rest when it returns; no other need wake.
    fn ended(&self) {
        let mut slot = self.native.lock();
        match *slot {
            Native::Submitting => *slot = Native::EndedEarly,
            Native::EndedEarly => {}
            Native::Running(_) => {
                // Released by the `release` thread: never from within the plugin's own call.
                let _ = self.ended.send(self.id);
            }
        }
    }

    /// Ends a job that the plugin never saw. Returns what [`JobState::start`] does: it does not go on.
    pub(super) fn refuse(&self, error: &Error) -> bool {
        self.push(&Event::Error { kind: error.kind(), message: error.message() });
        self.start(None)
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Native::Running(Some(native)) = &*self.native.lock() {
            native.cancel();
        }
    }

    fn send(&self, event: WireEvent, attachments: Attachments) -> Result<(), SendError> {
        let message = FromWorker::Event { job: self.id, event };
        if let FromWorker::Event { event: WireEvent::Usage(_), .. } = message {
            // Counts are always followed by a token or the end, and waking the host costs more than sending.
            let frame = encode(&message, attachments).map_err(|_| SendError::Full)?;
            return self.link.outbox.put(frame);
        }
        self.link.send_with(&message, attachments)
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
            self.ended();
        } else if !cancelled {
            self.forward(event);
        }
        if cancelled { Flow::Cancelled } else { Flow::Continue }
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
