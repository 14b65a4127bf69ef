//! A loaded decoder as a model of the plugin contract.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pajamas_generation::{Counters, Engine, Sizes, Tokenizer};
use pajamas_pipelines::{Header, TensorRunner};
use pajamas_plugin_api::{Error, Job, Model, ModelInfo, ModelStats, Request, Task};

use crate::folder::DecoderFolder;
use crate::options::DecoderOptions;
use crate::probe::may_pad;
use crate::runner::{DecoderRunner, Limits};

/// What an engine gives for a model.
#[derive(Debug)]
pub struct DecoderParts<R> {
    /// Names the threads.
    pub thread_name: &'static str,
    /// The decoder's files.
    pub folder: DecoderFolder,
    /// Its network.
    pub network: R,
    /// Options of generation.
    pub options: DecoderOptions,
    /// Requests that are computed at the same time.
    pub slots: u32,
    /// Requests that may wait.
    pub queue: u32,
    /// Most sequences of one run; 1 where one row's result depends on the others.
    pub rows_max: usize,
    /// What the engine knows: format, parameters, quantisation, and by device its estimate of the network's bytes.
    pub info: ModelInfo,
    /// Bytes of the network in memory by device, as measured at the load. The cells count on the first.
    pub bytes: BTreeMap<String, u64>,
}

/// A decoder that generates text.
#[derive(Debug)]
pub struct DecoderModel {
    info: ModelInfo,
    engine: Engine,
    counters: Arc<Counters>,
    bytes: BTreeMap<String, u64>,
    cell_bytes: Arc<AtomicU64>,
    slots: u32,
}

impl DecoderModel {
    /// Starts the threads of a model. Tries first whether its sequences may be padded to run together.
    ///
    /// # Errors
    /// The network is no decoder with a cache, the tokenizer is damaged or does not fit it, or the system refuses a thread.
    pub fn start<R: TensorRunner>(parts: DecoderParts<R>) -> Result<Self, Error> {
        let DecoderParts { folder, network, options, slots, mut info, .. } = parts;
        let layout = folder.layout(&Header::of(&network))?;
        let vocabulary = folder.vocabulary(&layout)?;
        let context = folder.context(&options);
        folder.tell(&layout, &vocabulary, u64::from(context) * u64::from(slots), &mut info);
        info.context_length = Some(context);
        let (network, may_pad) =
            if parts.rows_max > 1 { may_pad(network, &layout) } else { (network, false) };
        if !may_pad {
            tracing::info!("{}: each sequence is computed alone", folder.network().display());
        }
        let limits = Limits {
            sequences: slots as usize,
            context_len: context as usize,
            rows_max: if may_pad { parts.rows_max } else { 1 },
        };
        let runner = DecoderRunner::new(network, layout, limits);
        let cell_bytes = runner.cell_bytes();
        let tokenizer = Arc::new(Tokenizer::new(Arc::new(vocabulary))?);
        let counters = Arc::new(Counters::default());
        let sizes = Sizes {
            slots,
            batch: options.batch,
            prefill_chunk: options.prefill_chunk.min(options.batch),
            queue: parts.queue,
        };
        let engine = Engine::start(parts.thread_name, Box::new(runner), &tokenizer, sizes, &counters)?;
        Ok(Self { info, engine, counters, bytes: parts.bytes, cell_bytes, slots })
    }
}

impl Model for DecoderModel {
    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request, job: Job) {
        match &request.task {
            Task::Generate | Task::Tokenize => self.engine.submit(request, job),
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
        let mut bytes = self.bytes.clone();
        if let Some(first) = bytes.values_mut().next() {
            *first += self.cell_bytes.load(Ordering::Relaxed);
        }
        ModelStats {
            bytes,
            slots_total: self.slots,
            slots_busy: busy,
            jobs_waiting: self.counters.jobs.load(Ordering::Relaxed).saturating_sub(busy),
            counters: self.counters.named(),
        }
    }
}
