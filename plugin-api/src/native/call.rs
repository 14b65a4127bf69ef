//! Calls that answer before they return: `init`, `probe`, `inspect`, `load`, `stats`.

use std::sync::{Arc, Mutex, PoisonError};

use super::sink::SinkHandle;
use super::{event_error, is_ok, status_error};
use crate::abi::PjSink;
use crate::error::Error;
use crate::event::{Event, EventSink, Flow};

/// Collects the answer of one call and passes progress on.
struct Collector {
    progress: Option<Arc<dyn EventSink>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    result: Option<String>,
    error: Option<Error>,
}

impl EventSink for Collector {
    fn push(&self, event: &Event<'_>) -> Flow {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Result { json, .. } => seen.result = Some((*json).to_owned()),
            Event::Error { .. } => seen.error = event_error(event),
            Event::Progress { .. } => {
                drop(seen);
                return self.progress.as_ref().map_or(Flow::Continue, |sink| sink.push(event));
            }
            _ => {}
        }
        if self.cancelled() { Flow::Cancelled } else { Flow::Continue }
    }

    fn cancelled(&self) -> bool {
        self.progress.as_ref().is_some_and(|sink| sink.cancelled())
    }
}

/// One call in progress.
pub(super) struct Call {
    collector: Arc<Collector>,
    handle: SinkHandle,
}

impl Call {
    pub(super) fn new(progress: Option<Arc<dyn EventSink>>) -> Self {
        let collector = Arc::new(Collector { progress, seen: Mutex::default() });
        let handle = SinkHandle::register(Arc::<Collector>::clone(&collector));
        Self { collector, handle }
    }

    pub(super) fn sink(&self) -> *const PjSink {
        self.handle.raw()
    }

    fn seen(&self) -> Seen {
        std::mem::take(&mut *self.collector.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The outcome of a call that has no answer.
    pub(super) fn finish(&self, entry: &str, status: i32) -> Result<(), Error> {
        if is_ok(status) {
            return Ok(());
        }
        Err(self.seen().error.unwrap_or_else(|| status_error(entry, status)))
    }

    /// The outcome of a call that answers with JSON.
    pub(super) fn answer<T: serde::de::DeserializeOwned>(
        &self,
        entry: &str,
        status: i32,
    ) -> Result<T, Error> {
        let seen = self.seen();
        if !is_ok(status) {
            return Err(seen.error.unwrap_or_else(|| status_error(entry, status)));
        }
        let json = seen.result.ok_or_else(|| {
            // A malformed RESULT arrives as an error, which says more than its absence.
            let absent = || Error::internal(format!("the plugin's {entry} succeeded without a RESULT event"));
            seen.error.unwrap_or_else(absent)
        })?;
        serde_json::from_str(&json).map_err(|e| {
            Error::internal(format!("the plugin's {entry} answered with JSON of another schema: {e}"))
        })
    }
}
