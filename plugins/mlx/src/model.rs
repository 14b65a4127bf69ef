//! A loaded checkpoint: its network, and an engine for each kind of work that it can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mlx_rs::transforms::eval;
use pajamas_generation::checkpoint::CheckpointVocabulary;
use pajamas_generation::{
    Counters, EmbedRunner, EmbedSetup, EmbedSizes, EmbedTexts, Embedder, Engine, Sizes, Tokenizer, Vocabulary,
};
use pajamas_plugin_api::{
    Error, ErrorKind, Flow, Job, LoadSpec, Model, ModelInfo, ModelStats, Progress, Request, Task,
};

use crate::device;
use crate::files::Checkpoint;
use crate::network::{Network, failed};
use crate::options::Options;
use crate::runner::{MlxEmbedder, MlxRunner};
use crate::streams;
use crate::weights::Weights;

/// Longest text that is embedded, in tokens, if the model was trained for it.
const EMBED_LEN_DEFAULT: u32 = 2048;
/// Arrays that are read from the disk between two reports of progress.
const ARRAYS_AT_ONCE: usize = 16;

/// A model that MLX has loaded.
#[derive(Debug)]
pub struct MlxModel {
    info: ModelInfo,
    engine: Engine,
    embedder: Embedder,
    counters: Arc<Counters>,
    device: String,
    weight_bytes: u64,
    cell_bytes: Arc<AtomicU64>,
    slots: u32,
}

/// What `inspect` answers.
///
/// # Errors
/// The folder is no checkpoint that this plugin can load; the message says which file is wrong.
pub(crate) fn inspect(path: &Path, options: &Options) -> Result<ModelInfo, Error> {
    let checkpoint = Checkpoint::open(path)?;
    let vocabulary = open_vocabulary(&checkpoint)?;
    Ok(info(&checkpoint, &vocabulary, options))
}

fn open_vocabulary(checkpoint: &Checkpoint) -> Result<CheckpointVocabulary, Error> {
    let len = usize::try_from(checkpoint.config.vocab_size).unwrap_or(0);
    CheckpointVocabulary::open(&checkpoint.folder, len, &checkpoint.texts)
}

fn info(checkpoint: &Checkpoint, vocabulary: &CheckpointVocabulary, options: &Options) -> ModelInfo {
    let config = &checkpoint.config;
    let text = |id: Option<i32>| id.and_then(|id| vocabulary.text(id.cast_unsigned()));
    let cells = u64::from(options.context(config.context_len)) * u64::from(options.slots);
    let float32 = options.compute.is_float32(device::id(options.device) != "cpu");
    let estimate = if float32 {
        4 * checkpoint.parameters + 2 * cells * config.kv_bytes_per_token()
    } else {
        checkpoint.weight_bytes + cells * config.kv_bytes_per_token()
    };
    ModelInfo {
        format: "mlx".to_owned(),
        architecture: config.model_type.clone(),
        tasks: vec![Task::Generate, Task::Embed, Task::Tokenize],
        parameters: Some(checkpoint.parameters),
        quantization: config.quantization().map(|q| format!("{}-bit, groups of {}", q.bits, q.group_size)),
        context_length: Some(config.context_len),
        embedding_length: u32::try_from(config.hidden).ok(),
        vocab_size: u32::try_from(config.vocab_size).ok(),
        chat_template: checkpoint.texts.chat_template.clone(),
        bos_token: checkpoint.texts.bos_token.clone().or_else(|| text(vocabulary.begin())),
        eos_token: checkpoint.texts.eos_token.clone(),
        control_tokens: vocabulary.control_tokens().into_iter().map(|token| token.text).collect(),
        estimated_bytes: BTreeMap::from([(device::id(options.device), estimate)]),
        slots: Some(options.slots),
        ..ModelInfo::default()
    }
}

impl MlxModel {
    pub(crate) fn load(spec: &LoadSpec, progress: &Progress) -> Result<Self, Error> {
        let options = Options::parse(&spec.options)?;
        let place = device::choose(options.device)?;
        let checkpoint = Checkpoint::open(&spec.path)?;
        let vocabulary = open_vocabulary(&checkpoint)?;
        let mut info = info(&checkpoint, &vocabulary, &options);
        let float32 = options.compute.is_float32(place.is_gpu());
        let network = streams::run(place, || read_network(&checkpoint, float32, progress))?;
        let weight_bytes = network.arrays().iter().map(|array| array.nbytes() as u64).sum();

        let tokenizer = Arc::new(Tokenizer::new(Arc::new(vocabulary))?);
        let counters = Arc::new(Counters::default());
        let context_len = options.context(checkpoint.config.context_len);
        let runner = MlxRunner::new(network.clone(), options.slots as usize, context_len as usize, place);
        let cell_bytes = runner.cell_bytes();
        let sizes = Sizes {
            slots: options.slots,
            batch: options.batch,
            prefill_chunk: options.prefill_chunk(place.is_gpu()),
            queue: options.queue,
        };
        let engine = Engine::start("mlx", Box::new(runner), &tokenizer, sizes, &counters)?;
        let embed_len = options.context.unwrap_or(EMBED_LEN_DEFAULT).min(checkpoint.config.context_len);
        let start = move || {
            let runner: Box<dyn EmbedRunner> = Box::new(MlxEmbedder::new(network.clone(), place));
            Ok(runner)
        };
        let embedder = Embedder::start(
            "mlx",
            EmbedSetup {
                start: Box::new(start),
                texts: Box::new(WholeTexts(Arc::clone(&tokenizer))),
                tokenizer,
                sizes: EmbedSizes {
                    tokens_max: embed_len as usize,
                    texts_at_once: 1,
                    jobs_max: options.slots + options.queue,
                },
                counters: Arc::clone(&counters),
            },
        )?;
        info.context_length = Some(context_len);
        progress.report(1.0, "ready");
        Ok(Self {
            info,
            engine,
            embedder,
            counters,
            device: device::id(options.device),
            weight_bytes,
            cell_bytes,
            slots: options.slots,
        })
    }
}

/// Builds the network and reads its weights.
fn read_network(checkpoint: &Checkpoint, float32: bool, progress: &Progress) -> Result<Network, Error> {
    let mut weights = Weights::open(&checkpoint.weights, &checkpoint.config, float32)?;
    let network = Network::build(&checkpoint.config, &mut weights)?;
    let arrays = network.arrays();
    let mut read = 0;
    for some in arrays.chunks(ARRAYS_AT_ONCE) {
        eval(some.iter().copied()).map_err(failed)?;
        read += some.len();
        let fraction = 0.95 * read as f32 / arrays.len() as f32;
        if progress.report(fraction, "loading weights") == Flow::Cancelled || progress.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the load was cancelled"));
        }
    }
    drop(arrays);
    Ok(network)
}

/// Texts to embed get the tokens that begin and end a text; there is no model for pairs here.
#[derive(Debug)]
struct WholeTexts(Arc<Tokenizer>);

impl EmbedTexts for WholeTexts {
    fn whole(&self, text: &str) -> Vec<i32> {
        let vocabulary = self.0.vocabulary();
        let mut tokens = Vec::new();
        vocabulary.encode(text, &mut tokens);
        vocabulary.begin().into_iter().chain(tokens).chain(vocabulary.end()).collect()
    }

    fn pairs(&self, _: &Request, _: usize) -> Result<Vec<Vec<i32>>, Error> {
        Err(Error::unsupported("this model cannot do `rerank`"))
    }
}

impl Model for MlxModel {
    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request, job: Job) {
        match &request.task {
            Task::Generate | Task::Tokenize => self.engine.submit(request, job),
            Task::Embed => self.embedder.submit(request, job),
            other => {
                let offered: Vec<&str> = self.info.tasks.iter().map(Task::name).collect();
                job.fail(&Error::unsupported(format!(
                    "this model cannot do `{other}`; it offers {}",
                    offered.join(", ")
                )));
            }
        }
    }

    fn stats(&self) -> ModelStats {
        let busy = self.counters.busy.load(Ordering::Relaxed);
        let bytes = self.weight_bytes + self.cell_bytes.load(Ordering::Relaxed);
        ModelStats {
            bytes: BTreeMap::from([(self.device.clone(), bytes)]),
            slots_total: self.slots,
            slots_busy: busy,
            jobs_waiting: self.counters.jobs.load(Ordering::Relaxed).saturating_sub(busy),
            counters: self.counters.named(),
        }
    }
}
