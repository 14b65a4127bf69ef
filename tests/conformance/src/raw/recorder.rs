//! A sink that remembers everything and tolerates everything.
#![expect(unsafe_code, reason = "functions that the plugin calls")]

use std::ffi::c_void;
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pajamas_plugin_api::abi::convert::with_event;
use pajamas_plugin_api::abi::{PJ_CANCELLED, PJ_OK, PjEvent, PjSink};
use pajamas_plugin_api::{Dtype, ErrorKind, Event, Finish, Usage};

use super::block::{Block, Shape};

/// Most events that are kept of one job or call; then the sink answers that the job is cancelled, and only counts.
pub(crate) const EVENTS_MAX: usize = 50_000;

/// An event, owned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Token { token: u32, text: Vec<u8>, logprob: f32, top: Vec<f32> },
    Segment(String),
    Audio { samples: usize, sample_rate_hz: u32, channels: u32 },
    Detections(String),
    Vector { index: u32, values: Vec<f32> },
    Tensors(Vec<(String, Dtype, Vec<i64>)>),
    Progress(f32),
    Usage(Usage),
    Result { index: u32, json: String },
    Done(Finish, Usage),
    Error(ErrorKind, String),
    Other(u32),
    Malformed(String),
}

impl Seen {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Token { token, text, logprob, top } => Self::Token {
                token: *token,
                text: text.to_vec(),
                logprob: *logprob,
                top: top.iter().map(|t| t.logprob).collect(),
            },
            Event::Segment { json } => Self::Segment((*json).to_owned()),
            Event::Audio { samples, sample_rate_hz, channels } => {
                Self::Audio { samples: samples.len(), sample_rate_hz: *sample_rate_hz, channels: *channels }
            }
            Event::Detections { json } => Self::Detections((*json).to_owned()),
            Event::Vector { index, values } => Self::Vector { index: *index, values: values.to_vec() },
            Event::Tensors(tensors) => Self::Tensors(
                tensors.iter().map(|t| (t.name.to_owned(), t.dtype, t.shape.to_vec())).collect(),
            ),
            Event::Progress { fraction, .. } => Self::Progress(*fraction),
            Event::Usage(usage) => Self::Usage(*usage),
            Event::Result { index, json } => Self::Result { index: *index, json: (*json).to_owned() },
            Event::Done { finish, usage } => Self::Done(*finish, *usage),
            Event::Error { kind, message } => Self::Error(*kind, (*message).to_owned()),
            Event::Other { kind } => Self::Other(*kind),
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Done(..) | Self::Error(..))
    }
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<Seen>,
    has_ended: bool,
    dropped: u64,
    overlapping: bool,
    late: u64,
}

/// What arrived at one sink, and what the sink answers.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    log: Mutex<Log>,
    arrived: Condvar,
    /// Pushes in progress.
    inside: AtomicU32,
    /// `push` answers that the job is cancelled.
    pub(crate) refuses_events: AtomicBool,
    /// `cancelled` answers yes.
    pub(crate) is_cancelled: AtomicBool,
    /// The sink is no longer valid for the plugin; what arrives is a fault.
    pub(crate) is_closed: AtomicBool,
}

impl Recorder {
    /// The sink of this recorder for the plugin. The recorder itself is never freed: a plugin may push too late, and
    /// the case must be able to say so.
    pub(crate) fn sink(self: &Arc<Self>, shape: Shape) -> Block {
        let sink = PjSink {
            struct_size: size_of::<PjSink>() as u32,
            reserved: 0,
            ctx: Arc::into_raw(Arc::clone(self)).cast_mut().cast::<c_void>(),
            push: Some(push),
            cancelled: Some(cancelled),
        };
        let size = if shape == Shape::Smaller { offset_of!(PjSink, cancelled) } else { size_of::<PjSink>() };
        Block::new(&[sink], size, shape)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All events so far.
    pub(crate) fn events(&self) -> Vec<Seen> {
        self.log().events.clone()
    }

    /// Events beyond [`EVENTS_MAX`].
    pub(crate) fn dropped(&self) -> u64 {
        self.log().dropped
    }

    /// Whether two pushes ran at the same time.
    pub(crate) fn has_overlap(&self) -> bool {
        self.log().overlapping
    }

    /// Events that began after the sink was closed.
    pub(crate) fn late(&self) -> u64 {
        self.log().late
    }

    /// Waits for a first event; `false` when the time is over.
    pub(crate) fn wait_for_event(&self, limit: Duration) -> bool {
        self.wait_for(limit, |log| !log.events.is_empty())
    }

    /// Waits for a terminal event; `false` when the time is over.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        self.wait_for(limit, |log| log.has_ended)
    }

    fn wait_for(&self, limit: Duration, has_come: impl Fn(&Log) -> bool) -> bool {
        let ends_at = Instant::now() + limit;
        let mut log = self.log();
        while !has_come(&log) {
            let Some(rest) = ends_at.checked_duration_since(Instant::now()) else { return false };
            log = self.arrived.wait_timeout(log, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn record(&self, event: Seen) -> i32 {
        let mut log = self.log();
        log.has_ended |= event.is_terminal();
        if self.is_closed.load(Ordering::Acquire) {
            log.late += 1;
        } else if log.events.len() < EVENTS_MAX || event.is_terminal() {
            log.events.push(event);
        } else {
            log.dropped += 1;
        }
        let is_full = log.events.len() >= EVENTS_MAX;
        drop(log);
        self.arrived.notify_all();
        let refuses = is_full || self.refuses_events.load(Ordering::Relaxed);
        if refuses { PJ_CANCELLED } else { PJ_OK }
    }
}

unsafe extern "C" fn push(ctx: *mut c_void, event: *const PjEvent) -> i32 {
    // SAFETY: `ctx` is a recorder that is never freed.
    let recorder = unsafe { &*ctx.cast::<Recorder>() };
    if recorder.inside.fetch_add(1, Ordering::AcqRel) > 0 {
        recorder.log().overlapping = true;
    }
    // SAFETY: SPEC E-1: the event and its pointers are valid for the call.
    let event = unsafe { with_event(event, Seen::of) };
    let answer = recorder.record(event.unwrap_or_else(|malformed| Seen::Malformed(malformed.to_string())));
    recorder.inside.fetch_sub(1, Ordering::AcqRel);
    answer
}

unsafe extern "C" fn cancelled(ctx: *mut c_void) -> u8 {
    // SAFETY: as in `push`.
    let recorder = unsafe { &*ctx.cast::<Recorder>() };
    u8::from(recorder.is_cancelled.load(Ordering::Relaxed))
}
