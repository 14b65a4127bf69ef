//! A model: what its files say, and, once it is loaded, its pipeline at work.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pajamas_pipelines::Pipeline;
use pajamas_plugin_api::thread::Pool;
use pajamas_plugin_api::{
    Error, ErrorKind, Job, LoadSpec, Model, ModelInfo, ModelStats, Progress, Request, Task, resident_bytes,
};

use crate::batcher::BatchCounts;
use crate::job;
use crate::library::Library;
use crate::networks::{Headers, Sessions};
use crate::onnx_file::OnnxFile;
use crate::options::Options;
use crate::slots::Slots;

/// Bytes in memory of a session: percent of its files, and what every session takes beside. Measured with networks of 12
/// to 118 MB, which took 1.45 to 1.86 times their files and up to 24 MB; ONNX Runtime packs weights anew for its kernels.
const BYTES_PERCENT: u64 = 180;
const BYTES_OF_SESSION: u64 = 24 << 20;

/// A model that ONNX Runtime has loaded.
pub struct OnnxModel {
    info: ModelInfo,
    pipeline: Arc<dyn Pipeline>,
    pool: Pool,
    slots: Arc<Slots>,
    slots_total: u32,
    counts: Arc<BatchCounts>,
    bytes: BTreeMap<String, u64>,
}

/// What a model's files say, without loading it.
pub(crate) fn inspect(path: &Path) -> Result<ModelInfo, Error> {
    let options = Options::default();
    let headers = Headers::default();
    let pipeline = pajamas_pipelines::open(path, &options.pipeline, &headers)?;
    Ok(info(pipeline.as_ref(), &headers.into_opened(), &options))
}

fn info(pipeline: &dyn Pipeline, files: &[OnnxFile], options: &Options) -> ModelInfo {
    let bytes = files.iter().map(|file| file.bytes / 100 * BYTES_PERCENT + BYTES_OF_SESSION).sum();
    let mut info = ModelInfo {
        format: "onnx".to_owned(),
        parameters: Some(files.iter().map(|file| file.parameters).sum()),
        quantization: files
            .iter()
            .max_by_key(|file| file.parameters)
            .and_then(|file| file.weight_type.map(str::to_owned)),
        estimated_bytes: BTreeMap::from([("cpu".to_owned(), bytes)]),
        slots: Some(options.slots),
        ..ModelInfo::default()
    };
    pipeline.describe(&mut info);
    info
}

impl OnnxModel {
    pub(crate) fn load(library: &Library, spec: &LoadSpec, progress: &Progress) -> Result<Self, Error> {
        let options = Options::parse(&spec.options)?;
        let before = resident_bytes();
        let sessions = Sessions::new(library, &options, progress);
        let pipeline: Arc<dyn Pipeline> =
            pajamas_pipelines::open(&spec.path, &options.pipeline, &sessions)?.into();
        let (counts, files) = sessions.into_parts();
        let info = info(pipeline.as_ref(), &files, &options);
        let measured = before.zip(resident_bytes()).map(|(before, after)| after.saturating_sub(before));
        let bytes = match measured {
            // Memory that an unloaded model left to the process is used again and does not show.
            Some(bytes) => {
                let least = files.iter().map(|file| file.bytes).sum();
                BTreeMap::from([("cpu".to_owned(), bytes.max(least))])
            }
            None => info.estimated_bytes.clone(),
        };
        progress.report(1.0, "ready");
        Ok(Self {
            info,
            pipeline,
            pool: Pool::new("onnx-job"),
            slots: Slots::new(options.slots, options.queue),
            slots_total: options.slots,
            counts,
            bytes,
        })
    }
}

impl Model for OnnxModel {
    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request, job: Job) {
        if !self.info.tasks.contains(&request.task) {
            let offered: Vec<&str> = self.info.tasks.iter().map(Task::name).collect();
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
        let pipeline = Arc::clone(&self.pipeline);
        // The job reports it when no thread takes it.
        if let Err(error) = self.pool.run(move || job::work(pipeline, &request, job, place)) {
            tracing::error!("{error}");
        }
    }

    fn stats(&self) -> ModelStats {
        let (busy, waiting) = self.slots.occupancy();
        ModelStats {
            bytes: self.bytes.clone(),
            slots_total: self.slots_total,
            slots_busy: busy,
            jobs_waiting: waiting,
            counters: self.counts.named(),
        }
    }
}
