//! The jobs of a worker and the queues between it and those who read their events.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Error, ErrorKind};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::super::protocol::{JobId, WireEvent};
use super::super::wire::{Received, event_from_wire};
use super::{JobOwner, Shared};
use crate::engine::{EngineError, JobEvent, WorkerFailure};

/// Most events that wait for a slow reader; one more ends the job with an error and cancels it.
const QUEUE_EVENTS_MAX: u32 = 65_536;
/// Most bytes that wait for a slow reader; an event that goes beyond ends the job likewise.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is to happen after an event was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Nothing.
    Fine,
    /// The reader is gone or too slow: the job is to be cancelled.
    CancelIt,
}

/// The sending end of a job's queue.
#[derive(Debug)]
pub struct JobQueue {
    sender: mpsc::UnboundedSender<JobEvent>,
    waiting: Arc<Waiting>,
}

/// What waits for the reader.
#[derive(Debug)]
struct Waiting {
    events: AtomicU32,
    bytes: AtomicUsize,
    opened: Instant,
    /// Milliseconds from `opened` to the last time that the reader asked for an event.
    read_at_ms: AtomicU64,
}

impl Waiting {
    fn new() -> Self {
        Self {
            events: AtomicU32::new(0),
            bytes: AtomicUsize::new(0),
            opened: Instant::now(),
            read_at_ms: AtomicU64::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn mark_read(&self) {
        self.read_at_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// How long events have been waiting without being asked for.
    fn stalled_ms(&self) -> u64 {
        match self.events.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.now_ms().saturating_sub(self.read_at_ms.load(Ordering::Relaxed)),
        }
    }
}

/// All jobs of a worker.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    jobs: Mutex<HashMap<JobId, JobQueue>>,
}

impl JobTable {
    pub(super) fn open(&self, job: JobId, owner: Weak<Shared>) -> JobReceiver {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting::new());
        let queue = JobQueue { sender, waiting: Arc::clone(&waiting) };
        self.jobs.lock().insert(job, queue);
        JobReceiver { job, owner, receiver, waiting, ended: false }
    }

    /// Forgets a job. Returns whether it was there.
    pub(super) fn close(&self, job: JobId) -> bool {
        self.jobs.lock().remove(&job).is_some()
    }

    /// Ends the jobs whose events nobody has asked for, and returns them for cancellation.
    pub(super) fn give_up_stalled(&self, timeout: Duration) -> Vec<JobId> {
        let limit_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut jobs = self.jobs.lock();
        let stalled: Vec<JobId> = jobs
            .iter()
            .filter(|(_, queue)| queue.waiting.stalled_ms() > limit_ms)
            .map(|(job, _)| *job)
            .collect();
        for job in &stalled {
            if let Some(queue) = jobs.remove(job) {
                let message = format!("the answer was not read for {limit_ms} ms, and was given up");
                let error = EngineError::Plugin(Error::new(ErrorKind::Deadline, message));
                let _ = queue.sender.send(JobEvent::Failed(error));
            }
        }
        stalled
    }

    pub(super) fn deliver(&self, job: JobId, event: WireEvent, attachments: &mut Received) -> Delivery {
        let mut jobs = self.jobs.lock();
        // Events of a job that was cancelled are expected for a while.
        let Some(queue) = jobs.get(&job) else { return Delivery::Fine };
        let terminal = event.is_terminal();
        let delivered = match event_from_wire(event, attachments) {
            Ok(event) => queue.put(event),
            Err(error) => {
                let message = format!("an answer of the plugin was damaged on its way to the host: {error}");
                queue.put(JobEvent::Failed(EngineError::Plugin(Error::internal(message))));
                Delivery::CancelIt
            }
        };
        if terminal || delivered == Delivery::CancelIt {
            jobs.remove(&job);
        }
        delivered
    }

    /// Ends all jobs, because the worker has ended.
    pub(super) fn fail_all(&self, failure: &Arc<WorkerFailure>) {
        for (_, queue) in self.jobs.lock().drain() {
            let _ = queue.sender.send(JobEvent::Failed(EngineError::Worker(Arc::clone(failure))));
        }
    }
}

impl JobQueue {
    fn put(&self, event: JobEvent) -> Delivery {
        let bytes = weight(&event);
        let events = self.waiting.events.fetch_add(1, Ordering::Relaxed);
        let waiting = self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        if !event.is_terminal() && (events >= QUEUE_EVENTS_MAX || waiting + bytes > QUEUE_BYTES_MAX) {
            let message = "the answer was not read as fast as it was made, and was given up";
            let error = EngineError::Plugin(Error::new(ErrorKind::Overloaded, message));
            let _ = self.sender.send(JobEvent::Failed(error));
            return Delivery::CancelIt;
        }
        match self.sender.send(event) {
            Ok(()) => Delivery::Fine,
            Err(_) => Delivery::CancelIt,
        }
    }
}

/// Bytes of an event's bulk data.
fn weight(event: &JobEvent) -> usize {
    match event {
        JobEvent::Audio { samples, .. } => samples.len() * 4,
        JobEvent::Vector { values, .. } => values.len() * 4,
        JobEvent::Tensors(tensors) => tensors.iter().map(|t| t.data.len()).sum(),
        JobEvent::Segment(json) | JobEvent::Detections(json) | JobEvent::Result { json, .. } => json.len(),
        _ => 0,
    }
}

/// The receiving end of a job. Dropping it before the terminal event cancels the job at once.
#[derive(Debug)]
pub struct JobReceiver {
    job: JobId,
    owner: Weak<Shared>,
    receiver: mpsc::UnboundedReceiver<JobEvent>,
    waiting: Arc<Waiting>,
    ended: bool,
}

impl JobReceiver {
    /// The next event; `None` after the terminal one.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<JobEvent> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// See [`JobReceiver::next`].
    pub fn poll_next(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<JobEvent>> {
        if self.ended {
            return std::task::Poll::Ready(None);
        }
        self.waiting.mark_read();
        self.receiver.poll_recv(context).map(|event| {
            let event = event?;
            self.waiting.events.fetch_sub(1, Ordering::Relaxed);
            self.waiting.bytes.fetch_sub(weight(&event), Ordering::Relaxed);
            self.ended = event.is_terminal();
            Some(event)
        })
    }
}

impl Drop for JobReceiver {
    fn drop(&mut self) {
        if !self.ended {
            self.owner.cancel(self.job);
        }
    }
}
