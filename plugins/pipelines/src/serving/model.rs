//! A pipeline as a model of the plugin contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use pajamas_plugin_api::thread::Pool;
use pajamas_plugin_api::{Error, ErrorKind, Job, Model, ModelInfo, ModelStats, Request, Task};

use super::batcher::BatchCounts;
use super::job;
use super::slots::Slots;
use crate::pipeline::Pipeline;

/// What an engine knows of a model that it has loaded.
pub struct Loaded {
    /// Names the threads that do the jobs.
    pub thread_name: &'static str,
    /// What `info` answers.
    pub info: ModelInfo,
    /// What does the jobs.
    pub pipeline: Arc<dyn Pipeline>,
    /// Jobs that are worked on at the same time.
    pub slots: u32,
    /// Jobs that may wait for a slot; one more is refused as overloaded.
    pub queue: u32,
    /// What the batchers of its networks count.
    pub counts: Arc<BatchCounts>,
    /// Bytes in memory by device, as measured at the load.
    pub bytes: BTreeMap<String, u64>,
}

/// A loaded model: jobs wait for a slot in turn, and each is done on a thread of its own.
pub struct PipelineModel {
    loaded: Loaded,
    pool: Pool,
    slots: Arc<Slots>,
}

impl PipelineModel {
    /// Makes a model of what was loaded.
    #[must_use]
    pub fn new(loaded: Loaded) -> Self {
        Self { pool: Pool::new(loaded.thread_name), slots: Slots::new(loaded.slots, loaded.queue), loaded }
    }
}

impl Model for PipelineModel {
    fn info(&self) -> ModelInfo {
        self.loaded.info.clone()
    }

    fn submit(&self, request: Request, job: Job) {
        let tasks = &self.loaded.info.tasks;
        if !tasks.contains(&request.task) {
            let offered: Vec<&str> = tasks.iter().map(Task::name).collect();
            return job.fail(&Error::unsupported(format!(
                "this model cannot do `{}`; it offers {}",
                request.task,
                offered.join(", ")
            )));
        }
        let Some(place) = self.slots.enter() else {
            return job.fail(&Error::new(
                ErrorKind::Overloaded,
                "all slots of this model and its queue are full: try again later, or raise `slots` or `queue`",
            ));
        };
        let pipeline = Arc::clone(&self.loaded.pipeline);
        // The job reports it when no thread takes it.
        if let Err(error) = self.pool.run(move || job::work(pipeline, &request, job, place)) {
            tracing::error!("{error}");
        }
    }

    fn stats(&self) -> ModelStats {
        let (busy, waiting) = self.slots.occupancy();
        ModelStats {
            bytes: self.loaded.bytes.clone(),
            slots_total: self.loaded.slots,
            slots_busy: busy,
            jobs_waiting: waiting,
            counters: self.loaded.counts.named(),
        }
    }
}
