//! A model: what its files say, and its loading.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cudarc::driver::CudaContext;
use pajamas_decoder::{DecoderFolder, DecoderModel, DecoderOptions, DecoderParts, Served};
use pajamas_pipelines::onnx_file::OnnxFile;
use pajamas_pipelines::{BatchCounts, Kind, Loaded, NetworkFiles, Networks, Pipeline, PipelineModel};
use pajamas_plugin_api::{Error, ErrorKind, LoadSpec, ModelInfo, Progress};
use parking_lot::Mutex;

use crate::cache::EngineCache;
use crate::ffi::cuda::{self, Gpu, driver_error};
use crate::library::Library;
use crate::networks::{Headers, NetworkFile, Sessions};
use crate::options::Options;
use crate::plan::Plan;
use crate::profile::{DecoderSizes, decoder_profiles};

/// Bytes on the GPU of a network: percent of its files, for weights and kernels, and the working memory of a detector of 640
/// pixels and 16 pictures. Not measured on a GPU.
const BYTES_PERCENT: u64 = 150;
const BYTES_OF_RUNS: u64 = 512 << 20;

/// What a model's files say, without loading it. For an engine that was built elsewhere that takes its GPU.
pub(crate) fn inspect(plugin_dir: &Path, path: &Path) -> Result<ModelInfo, Error> {
    let options = Options::default();
    if Plan::is_named_like_one(path) {
        let silent = Progress::new(Arc::new(Silent));
        let spec = LoadSpec { path: path.to_owned(), options: serde_json::Map::new(), cache_dir: None };
        Plan::open(path)?;
        let cold = Options { warm_up: false, ..options.clone() };
        let opened =
            open(plugin_dir, &spec, &cold, &silent, |sessions| open_pipeline(path, &cold, sessions))?;
        return Ok(pipeline_info(opened.made.as_ref(), &opened.files, path, &options));
    }
    if is_decoder(path, &options)? {
        let folder = DecoderFolder::open(path, &options.pipeline, NetworkFiles::ONNX)?;
        let file = OnnxFile::open(folder.network())?;
        let mut info = engine_info(&[NetworkFile::of_onnx(&file)], path, &options);
        folder.describe(&file.header(), &DecoderOptions::default(), options.slots, &mut info)?;
        return Ok(info);
    }
    let headers = Headers::default();
    let pipeline = open_pipeline(path, &options, &headers)?;
    Ok(pipeline_info(pipeline.as_ref(), &headers.opened.into_inner(), path, &options))
}

fn is_decoder(path: &Path, options: &Options) -> Result<bool, Error> {
    let kind = pajamas_pipelines::kind(path, &options.pipeline, NetworkFiles::ONNX)?;
    Ok(kind == Some(Kind::Generate))
}

/// Opens a model's pipeline, unless it is one that this plugin does not offer.
fn open_pipeline<N: Networks>(
    path: &Path,
    options: &Options,
    networks: &N,
) -> Result<Box<dyn Pipeline>, Error> {
    let mut pipeline_options = options.pipeline.clone();
    match pajamas_pipelines::kind(path, &options.pipeline, networks.files())? {
        Some(Kind::Piper) => {
            return Err(Error::unsupported(format!(
                "{} is a voice, which this plugin does not offer; the plugin onnx does",
                path.display()
            )));
        }
        // The library cannot build an engine from Silero's detector of speech, which is not needed but for long silence.
        Some(Kind::Whisper) => {
            pipeline_options.entry("vad").or_insert_with(|| false.into());
        }
        _ => {}
    }
    pajamas_pipelines::open(path, &pipeline_options, networks)
}

fn pipeline_info(
    pipeline: &dyn Pipeline,
    files: &[NetworkFile],
    path: &Path,
    options: &Options,
) -> ModelInfo {
    let mut info = engine_info(files, path, options);
    pipeline.describe(&mut info);
    info
}

/// What the files of a model's networks say, whatever it is for.
fn engine_info(files: &[NetworkFile], path: &Path, options: &Options) -> ModelInfo {
    let bytes = files.iter().map(|file| file.bytes / 100 * BYTES_PERCENT + BYTES_OF_RUNS).sum();
    let format = if Plan::is_named_like_one(path) { "tensorrt" } else { "onnx" };
    let largest = files.iter().max_by_key(|file| file.parameters);
    ModelInfo {
        format: format.to_owned(),
        parameters: files.iter().map(|file| file.parameters).sum(),
        quantization: largest.and_then(|file| file.weight_type.map(str::to_owned)),
        estimated_bytes: BTreeMap::from([(options.device_id(), bytes)]),
        slots: Some(options.slots),
        ..ModelInfo::default()
    }
}

/// What [`open`] makes.
struct Opened<T> {
    made: T,
    counts: Arc<BatchCounts>,
    files: Vec<NetworkFile>,
    /// What the load added to the GPU's memory, if the driver tells.
    measured_bytes: Option<u64>,
}

/// Makes something of a model's networks on the GPU of `options`.
fn open<T>(
    plugin_dir: &Path,
    spec: &LoadSpec,
    options: &Options,
    progress: &Progress,
    make: impl FnOnce(&Sessions<'_>) -> Result<T, Error>,
) -> Result<Opened<T>, Error> {
    if !spec.path.exists() {
        let message = format!("there is no file or folder {}", spec.path.display());
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let gpu: Gpu = cuda::find(options.device)?;
    let library = Library::load(plugin_dir)?;
    let ordinal = usize::try_from(gpu.index).unwrap_or(usize::MAX);
    let cuda = CudaContext::new(ordinal).map_err(|error| driver_error("use the GPU", error))?;
    let free_bytes = || cuda.mem_get_info().ok().map(|(free, _)| free as u64);
    let before = free_bytes();
    let bytes_max = u64::from(options.cache_max_mb) << 20;
    let sessions = Sessions {
        library,
        gpu: &gpu,
        cuda: &cuda,
        options,
        cache: spec.cache_dir.as_deref().map(|folder| EngineCache::new(folder, bytes_max)),
        progress,
        counts: Arc::default(),
        opened: Mutex::default(),
    };
    let made = make(&sessions)?;
    let (counts, files) = (sessions.counts, sessions.opened.into_inner());
    let measured_bytes = before.zip(free_bytes()).map(|(before, after)| before.saturating_sub(after));
    Ok(Opened { made, counts, files, measured_bytes })
}

impl<T> Opened<T> {
    /// Bytes by device. Others use the GPU too, so the difference may be anything; the weights are there in any case.
    fn bytes(&self, info: &ModelInfo, options: &Options) -> BTreeMap<String, u64> {
        let least = self.files.iter().map(|file| file.bytes).sum();
        match self.measured_bytes {
            Some(bytes) => BTreeMap::from([(options.device_id(), bytes.max(least))]),
            None => info.estimated_bytes.clone(),
        }
    }
}

/// Loads a model.
pub(crate) fn load(plugin_dir: &Path, spec: &LoadSpec, progress: &Progress) -> Result<Served, Error> {
    let options = Options::parse(&spec.options)?;
    let served = if is_decoder(&spec.path, &options)? {
        Served::Decoder(load_decoder(plugin_dir, spec, options, progress)?)
    } else {
        Served::Pipeline(load_pipeline(plugin_dir, spec, &options, progress)?)
    };
    progress.report(1.0, "ready");
    Ok(served)
}

fn load_pipeline(
    plugin_dir: &Path,
    spec: &LoadSpec,
    options: &Options,
    progress: &Progress,
) -> Result<PipelineModel, Error> {
    let opened =
        open(plugin_dir, spec, options, progress, |sessions| open_pipeline(&spec.path, options, sessions))?;
    let info = pipeline_info(opened.made.as_ref(), &opened.files, &spec.path, options);
    let bytes = opened.bytes(&info, options);
    Ok(PipelineModel::new(Loaded {
        thread_name: "tensorrt-job",
        info,
        pipeline: opened.made.into(),
        slots: options.slots,
        queue: options.queue,
        counts: opened.counts,
        bytes,
    }))
}

fn load_decoder(
    plugin_dir: &Path,
    spec: &LoadSpec,
    mut options: Options,
    progress: &Progress,
) -> Result<DecoderModel, Error> {
    let decoder_options = DecoderOptions::parse(&options.pipeline, options.slots)?;
    let folder = DecoderFolder::open(&spec.path, &options.pipeline, NetworkFiles::ONNX)?;
    let header = OnnxFile::open(folder.network())?;
    let rows = if header.has_dynamic_ranges { 1 } else { options.batch_max.min(options.slots) };
    let sizes =
        DecoderSizes { rows, sequence: decoder_options.batch, context: folder.context(&decoder_options) };
    for (name, profile) in decoder_profiles(&header.inputs, sizes) {
        options.profiles.entry(name).or_insert(profile);
    }
    let opened = open(plugin_dir, spec, &options, progress, |sessions| sessions.open(folder.network()))?;
    let info = engine_info(&opened.files, &spec.path, &options);
    let bytes = opened.bytes(&info, &options);
    DecoderModel::start(DecoderParts {
        thread_name: "tensorrt",
        folder,
        network: opened.made,
        options: decoder_options,
        slots: options.slots,
        queue: options.queue,
        rows_max: usize::try_from(rows).unwrap_or(1),
        info,
        bytes,
    })
}

/// For a look at an engine, whose progress nobody asked for.
struct Silent;

impl pajamas_plugin_api::EventSink for Silent {
    fn push(&self, _: &pajamas_plugin_api::Event<'_>) -> pajamas_plugin_api::Flow {
        pajamas_plugin_api::Flow::Continue
    }

    fn cancelled(&self) -> bool {
        false
    }
}
