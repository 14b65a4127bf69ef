//! A model: what its files say, and, once it is loaded, its pipeline at work.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pajamas_pipelines::onnx_file::OnnxFile;
use pajamas_pipelines::{Loaded, Pipeline, PipelineModel};
use pajamas_plugin_api::{Error, LoadSpec, ModelInfo, Progress, resident_bytes};

use crate::library::Library;
use crate::networks::{Headers, Sessions};
use crate::options::Options;

/// Bytes in memory of a session: percent of its files, and what every session takes beside. Measured with networks of 12
/// to 118 MB, which took 1.45 to 1.86 times their files and up to 24 MB; ONNX Runtime packs weights anew for its kernels.
const BYTES_PERCENT: u64 = 180;
const BYTES_OF_SESSION: u64 = 24 << 20;

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

/// Loads a model.
pub(crate) fn load(library: &Library, spec: &LoadSpec, progress: &Progress) -> Result<PipelineModel, Error> {
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
    Ok(PipelineModel::new(Loaded {
        thread_name: "onnx-job",
        info,
        pipeline,
        slots: options.slots,
        queue: options.queue,
        counts,
        bytes,
    }))
}
