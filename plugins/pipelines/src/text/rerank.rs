//! The task `rerank`, with a cross-encoder.

use std::sync::Arc;

use pajamas_plugin_api::{Error, Event, Finish, Flow, Job, ModelInfo, Request, Task, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::encoder::Encoder;
use super::length::{self, Lengths};
use super::tokens::{Sequence, Tokens};
use crate::files::Folder;
use crate::open::Kind;
use crate::options;
use crate::pipeline::{Networks, Pipeline};
use crate::runner::TensorRunner;
use crate::tensors;

/// Options of the pipeline.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Longest pair of query and document in tokens; default: what the model was made for.
    context: Option<usize>,
}

/// A network with one number for a pair of texts.
pub(crate) struct Rerank<R: TensorRunner> {
    tokens: Tokens,
    encoder: Encoder<R>,
    context: usize,
}

impl<R: TensorRunner> Rerank<R> {
    /// The model in `folder`.
    ///
    /// # Errors
    /// A file is missing or not what it should be, the network gives no score, or an option is wrong.
    pub(crate) fn open<N: Networks<Runner = R>>(
        folder: &Folder,
        options: &Map<String, Json>,
        networks: &N,
    ) -> Result<Self, Error> {
        let options: Options = options::parse(Kind::Rerank, options)?;
        let lengths = Lengths::read(folder)?;
        let tokens = Tokens::open(folder)?;
        let network = Arc::new(networks.open(&folder.only_network()?)?);
        network.rows_are_independent();
        let is_score = |shape: &[Option<usize>]| matches!(shape, [_, Some(1) | None]);
        let Some(output) = network.outputs().iter().find(|output| is_score(&output.shape)) else {
            return Err(Error::bad_model(format!(
                "the rerank pipeline needs a network with one score for a pair, logits [batch, 1], and this one has {}",
                tensors::list(network.outputs())
            )));
        };
        let name = output.name.clone();
        let encoder = Encoder::new(network, &name, tokens.pad, Vec::new(), Kind::Rerank)?;
        let context = lengths.context(options.context, encoder.fixed_len())?;
        Ok(Self { tokens, encoder, context })
    }

    fn rerank(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        let sequences = self.pairs(request)?;
        let mut usage = Usage::default();
        for batch in self.encoder.batches(&sequences) {
            if job.is_cancelled() {
                return Ok((Finish::Cancelled, usage));
            }
            let members: Vec<&Sequence> = batch.iter().map(|index| &sequences[*index]).collect();
            let encoded = self.encoder.run(&members)?;
            for (row, (index, sequence)) in batch.iter().zip(members).enumerate() {
                let &[logit] = encoded.sequence(row) else {
                    return Err(Error::bad_model(format!(
                        "the network returned {} scores for a pair",
                        encoded.width
                    )));
                };
                usage.prompt_tokens += sequence.ids.len() as u32;
                let json = serde_json::to_string(&Scored { index: *index, score: sigmoid(logit) })
                    .map_err(|error| Error::internal(format!("a score cannot be written: {error}")))?;
                if job.push(&Event::Result { index: *index as u32, json: &json }) == Flow::Cancelled {
                    return Ok((Finish::Cancelled, usage));
                }
            }
        }
        Ok((Finish::Stop, usage))
    }

    fn pairs(&self, request: &Request) -> Result<Vec<Sequence>, Error> {
        let texts: Vec<&str> = request.texts().collect();
        let [query, documents @ ..] = texts.as_slice() else {
            return Err(Error::invalid("the first part must be the query, as text"));
        };
        if documents.is_empty() || texts.len() != request.parts.len() {
            return Err(Error::invalid("the parts after the query must be the documents, as text"));
        }
        let pair = |(index, document): (usize, &&str)| {
            let pair = self.tokens.pair(query, document)?;
            if pair.ids.len() > self.context {
                return Err(Error::invalid(format!(
                    "query and document {index} have {} tokens together and this model takes {}",
                    pair.ids.len(),
                    self.context
                )));
            }
            Ok(pair)
        };
        documents.iter().enumerate().map(pair).collect()
    }
}

/// 0 to 1, as the `CrossEncoder` of `sentence-transformers` makes of one logit.
fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// The schema `rerank_result`.
#[derive(Debug, Serialize)]
struct Scored {
    index: usize,
    score: f32,
}

impl<R: TensorRunner> Pipeline for Rerank<R> {
    fn describe(&self, info: &mut ModelInfo) {
        tensors::describe(self.encoder.network(), info);
        info.context_length = length::to_u32(self.context);
        info.vocab_size = Some(self.tokens.vocab_size());
    }

    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        match request.task {
            Task::Rerank => self.rerank(request, job),
            Task::Tokenize => self.tokens.tokenize(request, job),
            Task::Infer => tensors::infer(self.encoder.network(), request, job),
            ref other => Err(tensors::unsupported(other, Kind::Rerank)),
        }
    }
}
