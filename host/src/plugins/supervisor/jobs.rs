//! The jobs of a worker and the queues between it and those who read their events.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Error, ErrorKind};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::super::protocol::{JobId, ModelId, WireEvent};
use super::super::wire::{Received, event_from_wire};
use super::{JobOwner, Shared};
use crate::engine::{EngineError, JobEvent, WorkerFailure};
use crate::metrics::METRICS;

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
    model: ModelId,
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
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    jobs: HashMap<JobId, JobQueue>,
    /// Models that have jobs.
    busy: HashMap<ModelId, Activity>,
    /// Jobs that were given up and have not ended in the plugin.
    stopping: HashMap<JobId, Instant>,
}

/// What a model does.
#[derive(Debug)]
struct Activity {
    jobs: usize,
    /// The last event of any of its jobs, or the first job's beginning.
    alive_at: Instant,
}

impl Table {
    fn insert(&mut self, job: JobId, queue: JobQueue) {
        let idle = || Activity { jobs: 0, alive_at: Instant::now() };
        self.busy.entry(queue.model).or_insert_with(idle).jobs += 1;
        self.jobs.insert(job, queue);
    }

    fn remove(&mut self, job: JobId) -> Option<JobQueue> {
        let queue = self.jobs.remove(&job)?;
        if let Entry::Occupied(mut activity) = self.busy.entry(queue.model) {
            activity.get_mut().jobs -= 1;
            if activity.get().jobs == 0 {
                activity.remove();
            }
        }
        Some(queue)
    }
}

impl JobTable {
    pub(super) fn open(&self, job: JobId, model: ModelId, owner: Weak<Shared>) -> JobReceiver {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting::new());
        self.table.lock().insert(job, JobQueue { model, sender, waiting: Arc::clone(&waiting) });
        JobReceiver { job, owner, receiver, waiting, ended: false }
    }

    /// Gives a job up; its end in the plugin is still awaited, to measure it. Returns whether it was there.
    pub(super) fn give_up(&self, job: JobId) -> bool {
        let mut table = self.table.lock();
        let was_there = table.remove(job).is_some();
        if was_there {
            METRICS.cancelled();
            table.stopping.insert(job, Instant::now());
        }
        was_there
    }

    /// The longest time for which a model with jobs has sent no event of any of them.
    pub(super) fn longest_silence(&self) -> Option<Duration> {
        self.table.lock().busy.values().map(|activity| activity.alive_at.elapsed()).max()
    }

    /// Ends the jobs whose events nobody has asked for, and returns them for cancellation.
    pub(super) fn give_up_stalled(&self, timeout: Duration) -> Vec<JobId> {
        let limit_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut table = self.table.lock();
        let stalled: Vec<JobId> = table
            .jobs
            .iter()
            .filter(|(_, queue)| queue.waiting.stalled_ms() > limit_ms)
            .map(|(job, _)| *job)
            .collect();
        for job in &stalled {
            if let Some(queue) = table.remove(*job) {
                let message = format!("the answer was not read for {limit_ms} ms, and was given up");
                let error = EngineError::Plugin(Error::new(ErrorKind::Deadline, message));
                let _ = queue.sender.send(JobEvent::Failed(error));
            }
        }
        stalled
    }

    pub(super) fn deliver(&self, job: JobId, event: WireEvent, attachments: &mut Received) -> Delivery {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        // Events of a job that was cancelled are expected for a while.
        let Some(queue) = table.jobs.get(&job) else {
            if event.is_terminal()
                && let Some(since) = table.stopping.remove(&job)
            {
                METRICS.stopped(since.elapsed());
            }
            return Delivery::Fine;
        };
        if let Some(activity) = table.busy.get_mut(&queue.model) {
            activity.alive_at = Instant::now();
        }
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
            table.remove(job);
        }
        delivered
    }

    /// Ends all jobs, because the worker has ended.
    pub(super) fn fail_all(&self, failure: &Arc<WorkerFailure>) {
        let table = std::mem::take(&mut *self.table.lock());
        for queue in table.jobs.into_values() {
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
