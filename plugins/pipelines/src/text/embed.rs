//! The task `embed`, with an encoder of texts.

use std::sync::Arc;

use pajamas_plugin_api::{EmbedParams, Error, Event, Finish, Flow, Job, ModelInfo, Request, Task, Usage};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::encoder::{Encoded, Encoder};
use super::length::{self, Lengths};
use super::pooling::{self, Pooling};
use super::tokens::{Limit, Sequence, Tokens};
use crate::files::Folder;
use crate::open::Kind;
use crate::options;
use crate::pipeline::{Networks, Pipeline};
use crate::runner::{TensorRunner, TensorSpec};
use crate::tensors;

/// Options of the pipeline.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// How the tokens' vectors become one; default: what the folder's pooling module says, else the mean.
    pooling: Option<Pooling>,
    /// Longest text in tokens; default: what the model was made for.
    context: Option<usize>,
}

/// Vectors of texts, from whatever network makes them.
pub(crate) struct TextVectors<R: TensorRunner> {
    pub(crate) tokens: Tokens,
    pub(crate) encoder: Encoder<R>,
    /// `None` if the network makes one vector by itself.
    pub(crate) pooling: Option<Pooling>,
    /// In tokens.
    pub(crate) context: usize,
}

impl<R: TensorRunner> TextVectors<R> {
    /// Does an `embed` request.
    ///
    /// # Errors
    /// An input is no text, or too long, or the engine failed.
    pub(crate) fn embed(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        let params: EmbedParams = request.params()?;
        let limit = Limit { tokens_max: self.context, truncate: params.truncate };
        let sequences = self.tokens.sequences(request, limit)?;
        let mut usage = Usage::default();
        for batch in self.encoder.batches(&sequences) {
            if job.is_cancelled() {
                return Ok((Finish::Cancelled, usage));
            }
            let members: Vec<&Sequence> = batch.iter().map(|index| &sequences[*index]).collect();
            let encoded = self.encoder.run(&members)?;
            for (row, (index, sequence)) in batch.iter().zip(members).enumerate() {
                let mut values = self.vector(&encoded, row, sequence);
                if params.normalize {
                    pooling::normalize(&mut values);
                }
                usage.prompt_tokens += sequence.ids.len() as u32;
                if job.push(&Event::Vector { index: *index as u32, values: &values }) == Flow::Cancelled {
                    return Ok((Finish::Cancelled, usage));
                }
            }
        }
        Ok((Finish::Stop, usage))
    }

    fn vector(&self, encoded: &Encoded, row: usize, sequence: &Sequence) -> Vec<f32> {
        match self.pooling {
            Some(pooling) => pooling.pool(encoded.sequence(row), sequence.ids.len(), encoded.width),
            None => encoded.sequence(row).to_vec(),
        }
    }
}

/// A model of the folder layout of `sentence-transformers`.
pub(crate) struct TextEmbed<R: TensorRunner> {
    vectors: TextVectors<R>,
    embedding_length: Option<u32>,
}

impl<R: TensorRunner> TextEmbed<R> {
    /// The model in `folder`.
    ///
    /// # Errors
    /// A file is missing or not what it should be, the network is no encoder of texts, or an option is wrong.
    pub(crate) fn open<N: Networks<Runner = R>>(
        folder: &Folder,
        options: &Map<String, Json>,
        networks: &N,
    ) -> Result<Self, Error> {
        let options: Options = options::parse(Kind::TextEmbed, options)?;
        let lengths = Lengths::read(folder)?;
        let tokens = Tokens::open(folder)?;
        let network = Arc::new(networks.open(&folder.only_network()?)?);
        network.rows_are_independent();
        let output = output(network.outputs(), options.pooling.is_some())?;
        let is_pooled = output.shape.len() == 2;
        let pooling = match options.pooling {
            Some(_) if is_pooled => {
                return Err(Error::invalid(format!(
                    "option `pooling`: the network's output is one vector already: {}",
                    tensors::list(network.outputs())
                )));
            }
            Some(pooling) => Some(pooling),
            None if is_pooled => None,
            None => Some(Pooling::of_folder(folder)?),
        };
        let width = output.shape.last().copied().flatten().or(lengths.hidden_size());
        let name = output.name.clone();
        let encoder = Encoder::new(network, &name, tokens.pad, Vec::new(), Kind::TextEmbed)?;
        let context = lengths.context(options.context, encoder.fixed_len())?;
        Ok(Self {
            vectors: TextVectors { tokens, encoder, pooling, context },
            embedding_length: width.and_then(|width| u32::try_from(width).ok()),
        })
    }
}

/// The output with the vectors: one for each text if the export has it and no pooling is asked for, else one for each
/// token. The names are those of `optimum` and `sentence-transformers`.
fn output(outputs: &[TensorSpec], wants_tokens: bool) -> Result<&TensorSpec, Error> {
    let named = |name: &str| outputs.iter().find(|output| output.name == name);
    let pooled = if wants_tokens { None } else { named("sentence_embedding") };
    pooled
        .or_else(|| named("last_hidden_state"))
        .or_else(|| named("token_embeddings"))
        .or_else(|| outputs.iter().find(|output| output.shape.len() == 3))
        .or_else(|| outputs.iter().find(|output| output.shape.len() == 2))
        .ok_or_else(|| {
            Error::bad_model(format!(
                "the text-embed pipeline needs a network with the output last_hidden_state [batch, tokens, width] or \
                 sentence_embedding [batch, width], and this one has {}",
                tensors::list(outputs)
            ))
        })
}

impl<R: TensorRunner> Pipeline for TextEmbed<R> {
    fn describe(&self, info: &mut ModelInfo) {
        tensors::describe(self.vectors.encoder.network(), info);
        info.context_length = length::to_u32(self.vectors.context);
        info.embedding_length = self.embedding_length;
        info.vocab_size = Some(self.vectors.tokens.vocab_size());
    }

    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        match request.task {
            Task::Embed => self.vectors.embed(request, job),
            Task::Tokenize => self.vectors.tokens.tokenize(request, job),
            Task::Infer => tensors::infer(self.vectors.encoder.network(), request, job),
            ref other => Err(tensors::unsupported(other, Kind::TextEmbed)),
        }
    }
}
