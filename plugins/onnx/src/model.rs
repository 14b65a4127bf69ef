//! A model: what its files say, and, once it is loaded, its pipeline at work.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pajamas_decoder::{DecoderFolder, DecoderModel, DecoderOptions, DecoderParts, Served};
use pajamas_pipelines::onnx_file::OnnxFile;
use pajamas_pipelines::{Kind, Loaded, NetworkFiles, Networks, Pipeline, PipelineModel};
use pajamas_plugin_api::{Error, LoadSpec, ModelInfo, Progress, resident_bytes};

use crate::library::Library;
use crate::networks::{Headers, Sessions};
use crate::options::Options;

/// Bytes in memory of a session: percent of its files, and what every session takes beside. Measured with networks of 12
/// to 118 MB, which took 1.45 to 1.86 times their files and up to 24 MB; ONNX Runtime packs weights anew for its kernels.
const BYTES_PERCENT: u64 = 180;
const BYTES_OF_SESSION: u64 = 24 << 20;
/// Bytes in memory of a weight that the file has in 16 bits: they become 32 when it is loaded.
const BYTES_OF_HALF: u64 = 4;

/// What a model's files say, without loading it.
pub(crate) fn inspect(path: &Path) -> Result<ModelInfo, Error> {
    let options = Options::default();
    if kind_of(path, &options)? == Some(Kind::Generate) {
        let folder = DecoderFolder::open(path, &options.pipeline, NetworkFiles::ONNX)?;
        let file = OnnxFile::open(folder.network())?;
        let header = file.header();
        let mut info = engine_info(&[file], &options);
        folder.describe(&header, &DecoderOptions::default(), options.slots, &mut info)?;
        return Ok(info);
    }
    let headers = Headers::default();
    let pipeline = pajamas_pipelines::open(path, &options.pipeline, &headers)?;
    Ok(pipeline_info(pipeline.as_ref(), &headers.into_opened(), &options))
}

fn kind_of(path: &Path, options: &Options) -> Result<Option<Kind>, Error> {
    pajamas_pipelines::kind(path, &options.pipeline, NetworkFiles::ONNX)
}

fn pipeline_info(pipeline: &dyn Pipeline, files: &[OnnxFile], options: &Options) -> ModelInfo {
    let mut info = engine_info(files, options);
    pipeline.describe(&mut info);
    info
}

/// What the files of a model's networks say, whatever it is for.
fn engine_info(files: &[OnnxFile], options: &Options) -> ModelInfo {
    let bytes = |file: &OnnxFile| match file.weight_type {
        Some("F16") => file.parameters * BYTES_OF_HALF + BYTES_OF_SESSION,
        _ => file.bytes / 100 * BYTES_PERCENT + BYTES_OF_SESSION,
    };
    ModelInfo {
        format: "onnx".to_owned(),
        parameters: Some(files.iter().map(|file| file.parameters).sum()),
        quantization: files
            .iter()
            .max_by_key(|file| file.parameters)
            .and_then(|file| file.weight_type.map(str::to_owned)),
        estimated_bytes: BTreeMap::from([("cpu".to_owned(), files.iter().map(bytes).sum())]),
        slots: Some(options.slots),
        ..ModelInfo::default()
    }
}

/// Loads a model.
pub(crate) fn load(library: &Library, spec: &LoadSpec, progress: &Progress) -> Result<Served, Error> {
    let mut options = Options::parse(&spec.options)?;
    let kind = kind_of(&spec.path, &options)?;
    options.spin_us = Some(options.spin_us(kind == Some(Kind::Piper)));
    let before = resident_bytes();
    let sessions = Sessions::new(library, &options, progress);
    let served = if kind == Some(Kind::Generate) {
        Served::Decoder(load_decoder(spec, &options, sessions, before)?)
    } else {
        Served::Pipeline(load_pipeline(spec, &options, sessions, before)?)
    };
    progress.report(1.0, "ready");
    Ok(served)
}

fn load_pipeline(
    spec: &LoadSpec,
    options: &Options,
    sessions: Sessions<'_>,
    before: Option<u64>,
) -> Result<PipelineModel, Error> {
    let pipeline: Arc<dyn Pipeline> =
        pajamas_pipelines::open(&spec.path, &options.pipeline, &sessions)?.into();
    let (counts, files) = sessions.into_parts();
    let info = pipeline_info(pipeline.as_ref(), &files, options);
    let bytes = bytes_since(before, &files, &info);
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

fn load_decoder(
    spec: &LoadSpec,
    options: &Options,
    sessions: Sessions<'_>,
    before: Option<u64>,
) -> Result<DecoderModel, Error> {
    let decoder_options = DecoderOptions::parse(&options.pipeline, options.slots)?;
    let folder = DecoderFolder::open(&spec.path, &options.pipeline, NetworkFiles::ONNX)?;
    let network = sessions.open(folder.network())?;
    let (_, files) = sessions.into_parts();
    let info = engine_info(&files, options);
    let has_dynamic_ranges = files.iter().any(|file| file.has_dynamic_ranges);
    let rows_max = if has_dynamic_ranges { 1 } else { options.batch_max.unwrap_or(options.slots) };
    DecoderModel::start(DecoderParts {
        thread_name: "onnx",
        folder,
        network,
        options: decoder_options,
        slots: options.slots,
        queue: options.queue,
        rows_max: usize::try_from(rows_max).unwrap_or(usize::MAX),
        bytes: bytes_since(before, &files, &info),
        info,
    })
}

/// What a load added to the memory of the process, if the system tells, but at least the size of the files: memory that an
/// unloaded model left to the process is used again and does not show.
fn bytes_since(before: Option<u64>, files: &[OnnxFile], info: &ModelInfo) -> BTreeMap<String, u64> {
    let measured = before.zip(resident_bytes()).map(|(before, after)| after.saturating_sub(before));
    match measured {
        Some(bytes) => {
            let least = files.iter().map(|file| file.bytes).sum();
            BTreeMap::from([("cpu".to_owned(), bytes.max(least))])
        }
        None => info.estimated_bytes.clone(),
    }
}
