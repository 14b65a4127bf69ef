//! The end of a model: unloaded, and its memory seen to come back.

use std::sync::Arc;
use std::time::Duration;

use super::budget::{CPU, Reservation};
use super::loaded::Loaded;

/// How long a plugin may take to free a model before its memory is counted all the same.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

/// A model that was taken out of its place, to be unloaded.
#[derive(Debug)]
pub(super) struct Evicted {
    loaded: Arc<Loaded>,
    /// Given back when the model is gone.
    _reservation: Option<Reservation>,
}

/// A model that is not in memory any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unloaded {
    /// Bytes of memory that came back to the system, where it says so.
    pub returned_bytes: Option<u64>,
}

impl Evicted {
    /// For a model that nobody finds any more.
    pub(super) fn new(loaded: Arc<Loaded>, reservation: Option<Reservation>) -> Self {
        Self { loaded, _reservation: reservation }
    }

    /// Unloads the model and tells how many bytes of memory came back, where the system says so. Its worker ends with its
    /// last model, and is waited for. A worker that serves other models goes on, and should have given back what the model
    /// took: if it has kept more than half, the log says so.
    pub(super) async fn end(self) -> Option<u64> {
        let (model, expected) =
            (self.loaded.id.clone(), self.loaded.bytes.as_ref().and_then(|bytes| bytes.get(CPU).copied()));
        let worker = self.loaded.handle.worker();
        let before = worker.resident_bytes();
        let (ended, others) = match Arc::strong_count(worker) {
            1 => (Some(worker.ended()), None),
            _ => (None, Some(Arc::clone(worker))),
        };
        let mut gone = self.loaded.gone.subscribe();
        drop(self.loaded);
        // An error means that the sender is gone, and the model with it.
        while gone.changed().await.is_ok() {}
        if let Some(ended) = ended {
            // Its memory is back when the process is gone.
            ended.await;
        }
        let Some(worker) = others else { return before };
        worker.unloaded(FREE_TIMEOUT).await;
        let returned = before?.saturating_sub(worker.resident_bytes()?);
        if expected.is_some_and(|expected| returned < expected / 2) {
            tracing::warn!(model, returned, expected, "the plugin has kept memory of an unloaded model");
        }
        Some(returned)
    }
}
