//! A model in a worker, as the engine holds it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pajamas_plugin_api::{Error, ErrorKind, ModelInfo, ModelStats, Request};

use super::super::protocol::{ModelId, ToWorker};
use super::super::transport::SendError;
use super::super::wire::{Attachments, request_to_wire};
use super::{CallError, JobReceiver, Worker};
use crate::engine::EngineError;

/// A model that is loaded in a worker; dropping it unloads it, and the worker ends with its last model.
#[derive(Debug)]
pub struct ModelHandle {
    pub(super) worker: Arc<Worker>,
    pub(super) model: ModelId,
    pub(super) info: Arc<ModelInfo>,
}

impl ModelHandle {
    /// Metadata as loaded.
    #[must_use]
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// The worker that holds the model.
    #[must_use]
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// Starts a job; its events arrive at the receiver. Never waits.
    ///
    /// # Errors
    /// The worker has ended or its connection is congested, or the request is too large for it.
    pub fn submit(&self, request: &Request) -> Result<JobReceiver, EngineError> {
        let shared = &self.worker.shared;
        let mut attachments = Attachments::default();
        let request = request_to_wire(request, &mut attachments).map_err(|e| {
            EngineError::Plugin(Error::invalid(format!("the request cannot be sent to the worker: {e}")))
        })?;
        let job = shared.next_job.fetch_add(1, Ordering::Relaxed);
        let receiver = shared.jobs.open(job, self.model, Arc::downgrade(shared));
        let message = ToWorker::Submit { job, model: self.model, request };
        match shared.send_with(&message, attachments) {
            Ok(()) => Ok(receiver),
            Err(SendError::Full) => Err(EngineError::Plugin(Error::new(
                ErrorKind::Overloaded,
                "the connection to the worker is congested: try again later",
            ))),
            Err(SendError::Closed) => {
                let failure = shared.ended.borrow().clone();
                Err(EngineError::Worker(failure.unwrap_or_else(|| shared.unexplained())))
            }
        }
    }

    /// Measured memory and occupancy; `None` when the plugin does not measure.
    ///
    /// # Errors
    /// See [`CallError`]. A measurement beyond `timeout` ends the worker.
    pub async fn stats(&self, timeout: Duration) -> Result<Option<ModelStats>, CallError> {
        let model = self.model;
        self.worker.call("stats", timeout, |call| ToWorker::Stats { call, model }).await
    }
}

impl Drop for ModelHandle {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        shared.unloading.send_modify(|count| *count += 1);
        // Fails only when the worker has ended, and the model with it.
        let _ = shared.send(&ToWorker::Unload { model: self.model });
    }
}
