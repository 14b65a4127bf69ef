//! A loaded model: one thread that speaks, and the requests that wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use pajamas_pipelines::SpeakRequest;
use pajamas_plugin_api::{
    Error, ErrorKind, Event, Finish, Flow, Job, Model, ModelInfo, ModelStats, Request, Usage, thread,
};

use crate::synthesizer::Synthesizer;

/// Requests that may wait; one more is refused as overloaded.
const QUEUE: usize = 256;

/// The system's voices, ready to speak. espeak-ng has one state for the process, and one thread waits for the voices of
/// macOS, so that there is one slot.
#[derive(Debug)]
pub struct SystemVoice {
    info: ModelInfo,
    /// `None` while it is dropped: this is how the thread learns of its end.
    queue: Option<SyncSender<Waiting>>,
    thread: Option<JoinHandle<()>>,
    occupancy: Arc<Occupancy>,
}

#[derive(Debug, Default)]
struct Occupancy {
    waiting: AtomicU32,
    busy: AtomicU32,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    job: Job,
    arrived: Instant,
}

impl SystemVoice {
    pub(crate) fn start(synthesizer: Synthesizer, voice: String, info: ModelInfo) -> Result<Self, Error> {
        let (queue, requests) = sync_channel(QUEUE);
        let occupancy = Arc::new(Occupancy::default());
        let speaker = Speaker { synthesizer, voice, occupancy: Arc::clone(&occupancy) };
        let thread = thread::spawn("speaker", move || speaker.serve(&requests), |_| {})?;
        Ok(Self { info, queue: Some(queue), thread: Some(thread), occupancy })
    }
}

impl Model for SystemVoice {
    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request, job: Job) {
        let Some(queue) = &self.queue else { return };
        self.occupancy.waiting.fetch_add(1, Ordering::Relaxed);
        let refused = match queue.try_send(Waiting { request, job, arrived: Instant::now() }) {
            Ok(()) => return,
            Err(TrySendError::Full(waiting)) => {
                (waiting.job, Error::new(ErrorKind::Overloaded, format!("{QUEUE} requests wait already")))
            }
            Err(TrySendError::Disconnected(waiting)) => {
                (waiting.job, Error::internal("the thread that speaks has ended; load the model again"))
            }
        };
        self.occupancy.waiting.fetch_sub(1, Ordering::Relaxed);
        refused.0.fail(&refused.1);
    }

    fn stats(&self) -> ModelStats {
        ModelStats {
            // The library's memory belongs to the process; a voice adds a dictionary of at most a few MB to it.
            bytes: BTreeMap::from([("cpu".to_owned(), resident_bytes())]),
            slots_total: 1,
            slots_busy: self.occupancy.busy.load(Ordering::Relaxed),
            jobs_waiting: self.occupancy.waiting.load(Ordering::Relaxed),
            counters: BTreeMap::new(),
        }
    }
}

impl Drop for SystemVoice {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic was logged where it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread needs.
struct Speaker {
    synthesizer: Synthesizer,
    voice: String,
    occupancy: Arc<Occupancy>,
}

impl Speaker {
    fn serve(&self, requests: &Receiver<Waiting>) {
        for Waiting { request, job, arrived } in requests {
            self.occupancy.busy.store(1, Ordering::Relaxed);
            self.occupancy.waiting.fetch_sub(1, Ordering::Relaxed);
            let result = self.speak(&request, &job, arrived);
            self.occupancy.busy.store(0, Ordering::Relaxed);
            match result {
                Ok(finish) => job.done(finish, Usage::default()),
                Err(error) => job.fail(&error),
            }
        }
    }

    fn speak(&self, request: &Request, job: &Job, arrived: Instant) -> Result<Finish, Error> {
        let speech = SpeakRequest::new(request, arrived)?;
        speech.check_deadline()?;
        let voice = speech.voice.as_deref().unwrap_or(&self.voice);
        let (mut has_sound, mut cancelled, mut late) = (false, false, None);
        let mut push = |samples: &[f32], sample_rate_hz: u32| {
            cancelled = job.is_cancelled()
                || (!samples.is_empty()
                    && job.push(&Event::Audio { samples, sample_rate_hz, channels: 1 }) == Flow::Cancelled);
            has_sound |= !samples.is_empty();
            late = speech.check_deadline().err();
            !cancelled && late.is_none()
        };
        self.synthesizer.speak(voice, speech.speed, &speech.text, &mut push)?;
        match late {
            _ if cancelled => Ok(Finish::Cancelled),
            Some(error) => Err(error),
            None if has_sound => Ok(Finish::Stop),
            None => Err(Error::invalid("the text has nothing in it that can be spoken")),
        }
    }
}

/// Resident memory of this process, where the system tells it cheaply; else 0.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
