//! A loaded model: its weights, and an engine for each kind of work that it can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use llama_cpp_2::model::LlamaModel;
use pajamas_generation::{
    Counters, EmbedRunner, EmbedSetup, EmbedSizes, Embedder, Engine, LmRunner, Sizes, Tokenizer,
};
use pajamas_plugin_api::{
    Error, ErrorKind, Flow, Job, LoadSpec, Model, ModelInfo, ModelStats, Progress, Request, Task,
};
use parking_lot::{Mutex, MutexGuard};

use crate::backend::devices;
use crate::embed::{GgufEmbedder, GgufTexts};
use crate::ffi::{self, Adapter, Context, ContextConfig, ModelConfig};
use crate::inspect::{ModelFile, uses_gpu};
use crate::llama_log;
use crate::options::{Options, Pooling, Switch};
use crate::stats::MemoryReading;
use crate::vocabulary::GgufVocabulary;

/// A model that llama.cpp has loaded.
#[derive(Debug)]
pub struct GgufModel {
    info: ModelInfo,
    engine: Option<Engine>,
    embedder: Option<Embedder>,
    counters: Arc<Counters>,
    bytes: BTreeMap<String, u64>,
    slots: u32,
}

impl GgufModel {
    pub(crate) fn load(spec: &LoadSpec, progress: &Progress) -> Result<Self, Error> {
        let options = Options::parse(&spec.options)?;
        let file = ModelFile::open(&spec.path)?;
        let gpu = uses_gpu(&options);
        check_memory(&file, &options, gpu)?;
        let turn = take_turn(progress)?;
        let before = MemoryReading::now();
        let model = Arc::new(load_weights(&spec.path, &options, progress)?);
        let adapters = load_adapters(&model, &options)?;
        let mut loaded = Self::start(&file, &model, &options, &adapters)?;
        loaded.bytes = MemoryReading::now().since(&before);
        drop(turn);
        if loaded.bytes.is_empty() {
            loaded.bytes = BTreeMap::from([("cpu".to_owned(), file.estimated_bytes(&options, gpu))]);
        }
        progress.report(1.0, "ready");
        Ok(loaded)
    }

    fn start(
        file: &ModelFile,
        model: &Arc<LlamaModel>,
        options: &Options,
        adapters: &[Adapter],
    ) -> Result<Self, Error> {
        let gpu = uses_gpu(options);
        let tokenizer = Arc::new(Tokenizer::new(Arc::new(GgufVocabulary::new(Arc::clone(model))))?);
        let counters = Arc::new(Counters::default());
        let mut info = file.info(options);
        let mut engine = None;
        let mut context_len = file.context(options, gpu);
        if info.tasks.contains(&Task::Generate) {
            let context = generating_context(model, options, context_len, gpu, adapters)?;
            context_len = u32::try_from(context.sequence_len_max()).unwrap_or(u32::MAX);
            let sizes = Sizes {
                slots: options.slots,
                batch: options.batch,
                prefill_chunk: options.prefill_chunk(gpu),
                queue: options.queue,
            };
            engine = Some(Engine::start("gguf", Box::new(context), &tokenizer, sizes, &counters)?);
        }
        let embed_len = file.embed_len(options);
        let config = embedding_config(file.pooling(options)?, options, embed_len, gpu);
        let own_model = Arc::clone(model);
        let start = move || {
            let runner: Box<dyn EmbedRunner> = Box::new(GgufEmbedder::start(&own_model, &config)?);
            Ok(runner)
        };
        let setup = EmbedSetup {
            start: Box::new(start),
            texts: Box::new(GgufTexts::new(Arc::clone(model))),
            tokenizer,
            sizes: EmbedSizes {
                tokens_max: embed_len as usize,
                texts_at_once: TEXTS_AT_ONCE as usize,
                jobs_max: options.slots + options.queue,
            },
            counters: Arc::clone(&counters),
        };
        let embedder = Embedder::start("gguf", setup)?;
        info.context_length = Some(if engine.is_some() { context_len } else { embed_len });
        Ok(Self {
            info,
            engine,
            embedder: Some(embedder),
            counters,
            bytes: BTreeMap::new(),
            slots: options.slots,
        })
    }
}

/// Texts that are computed in one batch at most.
const TEXTS_AT_ONCE: u32 = 32;

/// Held by the one load that is under way: what a model takes is measured as a difference, which another load beside it
/// would falsify.
static LOADING: Mutex<()> = Mutex::new(());
/// How often a load that waits for its turn looks whether it is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Waits until no other model is being loaded.
fn take_turn(progress: &Progress) -> Result<MutexGuard<'static, ()>, Error> {
    loop {
        if let Some(turn) = LOADING.try_lock_for(LOOK_AGAIN) {
            return Ok(turn);
        }
        if progress.is_cancelled() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "the load was given up while another one was under way",
            ));
        }
    }
}

impl Model for GgufModel {
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
        match (&request.task, &self.engine, &self.embedder) {
            (Task::Generate | Task::Tokenize, Some(engine), _) => engine.submit(request, job),
            (_, _, Some(embedder)) => embedder.submit(request, job),
            _ => job.fail(&Error::internal("the model has no engine for this task")),
        }
    }

    fn stats(&self) -> ModelStats {
        let busy = self.counters.busy.load(Ordering::Relaxed);
        ModelStats {
            bytes: self.bytes.clone(),
            slots_total: self.slots,
            slots_busy: busy,
            jobs_waiting: self.counters.jobs.load(Ordering::Relaxed).saturating_sub(busy),
            counters: self.counters.named(),
        }
    }
}

/// Refuses a model that cannot fit, before anything is allocated.
fn check_memory(file: &ModelFile, options: &Options, gpu: bool) -> Result<(), Error> {
    let needed = file.estimated_bytes(options, gpu);
    let too_large = |limit: u64, what: &str| {
        Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "the model needs about {needed} bytes and {what} is {limit} bytes: choose a smaller quantisation, \
                 or lower `context` or `slots`"
            ),
        )
    };
    if let Some(limit) = options.memory_limit_bytes
        && needed > limit
    {
        return Err(too_large(limit, "`memory_limit_bytes`"));
    }
    let total: u64 = devices().iter().filter_map(|device| device.memory_total_bytes).sum();
    if total > 0 && needed > total {
        return Err(too_large(total, "the memory of this machine"));
    }
    Ok(())
}

fn load_weights(path: &Path, options: &Options, progress: &Progress) -> Result<LlamaModel, Error> {
    let config = ModelConfig {
        gpu_layers: options.gpu_layers,
        main_gpu: i32::try_from(options.main_gpu).unwrap_or(i32::MAX),
        split_mode: options.split_mode.into(),
        tensor_split: options.tensor_split.clone(),
        mmap: options.mmap,
        mlock: options.mlock,
        repack: options.repack,
    };
    let mut cancelled = false;
    let mut report = |fraction: f32| {
        cancelled =
            progress.report(fraction, "loading weights") == Flow::Cancelled || progress.is_cancelled();
        !cancelled
    };
    match ffi::load_model(path, &config, &mut report) {
        Some(model) => Ok(model),
        None if cancelled => Err(Error::new(ErrorKind::Cancelled, "the load was cancelled")),
        None => {
            let reason = llama_log::take_error().unwrap_or_else(|| "no reason given".to_owned());
            Err(Error::bad_model(format!("llama.cpp cannot load {}: {reason}", path.display())))
        }
    }
}

fn load_adapters(model: &LlamaModel, options: &Options) -> Result<Vec<Adapter>, Error> {
    let load = |lora: &crate::options::Lora| {
        // llama.cpp reads the adapter with the same trust as a model.
        crate::gguf_file::GgufFile::open(&lora.path)
            .map_err(|error| Error::invalid(format!("option `lora`: {} {error}", lora.path.display())))?;
        Adapter::load(model, &lora.path, lora.scale).ok_or_else(|| {
            let reason = llama_log::take_error().unwrap_or_default();
            Error::invalid(format!("option `lora`: {} does not fit the model: {reason}", lora.path.display()))
        })
    };
    options.lora.iter().map(load).collect()
}

fn generating_context(
    model: &Arc<LlamaModel>,
    options: &Options,
    context_len: u32,
    gpu: bool,
    adapters: &[Adapter],
) -> Result<Context, Error> {
    let config = ContextConfig {
        cells: if options.kv_unified { context_len } else { context_len.saturating_mul(options.slots) },
        sequences: options.slots,
        outputs: options.slots,
        kv_unified: options.kv_unified,
        on_gpu: gpu && options.gpu_layers.is_none_or(|layers| layers > model.n_layer()),
        pooling: None,
        ..base_config(options, gpu)
    };
    let failed = || {
        let reason = llama_log::take_error().unwrap_or_else(|| "no reason given".to_owned());
        Error::new(
            ErrorKind::OutOfMemory,
            format!("llama.cpp cannot make a context of {} cells: {reason}", config.cells),
        )
    };
    let mut context = Context::new(Arc::clone(model), &config).ok_or_else(failed)?;
    if !adapters.is_empty() && !context.set_adapters(adapters) {
        return Err(Error::invalid("option `lora`: llama.cpp cannot apply the adapters"));
    }
    Ok(context)
}

fn embedding_config(pooling: Pooling, options: &Options, len: u32, gpu: bool) -> ContextConfig {
    ContextConfig {
        cells: len,
        // A text is computed in one piece, so that its pooling sees all of it.
        batch: len,
        ubatch: len,
        sequences: TEXTS_AT_ONCE,
        outputs: 0,
        kv_unified: true,
        pooling: Some(pooling.llama_type()),
        ..base_config(options, gpu)
    }
}

fn base_config(options: &Options, gpu: bool) -> ContextConfig {
    let cores = u32::try_from(physical_cores()).unwrap_or(u32::MAX);
    let threads = options.threads.unwrap_or(cores);
    let (key, value) = options.kv_types(gpu);
    ContextConfig {
        cells: 0,
        batch: options.batch,
        ubatch: options.ubatch,
        sequences: 1,
        outputs: 0,
        threads: i32::try_from(threads).unwrap_or(1),
        threads_batch: i32::try_from(options.threads_batch.unwrap_or(threads)).unwrap_or(1),
        kv_types: (key.ggml_type(), value.ggml_type()),
        flash_attention: match options.flash_attention {
            Switch::Auto => None,
            Switch::On => Some(true),
            Switch::Off => Some(false),
        },
        kv_unified: false,
        on_gpu: false,
        pooling: None,
        rope_freq_base: options.rope_freq_base.unwrap_or(0.0),
        rope_freq_scale: options.rope_freq_scale.unwrap_or(0.0),
    }
}

/// Cores that this process may use, not counting the second thread of a core: matrix kernels gain nothing from it.
fn physical_cores() -> usize {
    let usable = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let siblings = |cpu: usize| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))
            .ok()
    };
    let cores: std::collections::BTreeSet<String> = (0..1024).map_while(siblings).collect();
    if cores.is_empty() { usable } else { usable.min(cores.len()) }
}
