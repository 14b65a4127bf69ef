//! Embeddings and scores: a context of its own that computes several texts at once.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use pajamas_generation::{AbortCheck, Batch, DecodeError, EmbedRunner, EmbedTexts, LmRunner};
use pajamas_plugin_api::{Error, ErrorKind, Request};

use crate::ffi::{Context, ContextConfig};
use crate::llama_log;
use crate::rerank::PairFormat;

/// A context for embeddings.
#[derive(Debug)]
pub(crate) struct GgufEmbedder {
    context: Context,
    batch: Batch,
}

impl GgufEmbedder {
    /// Makes the context.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn start(model: &Arc<LlamaModel>, config: &ContextConfig) -> Result<Self, Error> {
        let context = Context::new(Arc::clone(model), config).ok_or_else(|| {
            let reason = llama_log::take_error().unwrap_or_default();
            Error::new(ErrorKind::OutOfMemory, format!("cannot make a context for embeddings: {reason}"))
        })?;
        Ok(Self { context, batch: Batch::default() })
    }
}

impl EmbedRunner for GgufEmbedder {
    fn embed(&mut self, texts: &[&[i32]], abort: AbortCheck<'_>) -> Result<Vec<Vec<f32>>, DecodeError> {
        self.batch.clear();
        for (sequence, tokens) in texts.iter().enumerate() {
            for (position, &token) in tokens.iter().enumerate() {
                self.batch.push(token, position, sequence, true);
            }
        }
        let result = self.context.decode(&mut self.batch, abort);
        let missing = || DecodeError::Failed("llama.cpp returned no embedding".to_owned());
        let vectors = (0..texts.len()).map(|sequence| {
            let vector = self.context.embedding(sequence).map(<[f32]>::to_vec);
            self.context.remove(sequence, 0);
            vector.ok_or_else(missing)
        });
        let vectors = vectors.collect();
        result.and(vectors)
    }
}

/// The tokens of texts and of pairs of texts, as the model wants them.
#[derive(Debug)]
pub(crate) struct GgufTexts {
    model: Arc<LlamaModel>,
    pairs: PairFormat,
}

impl GgufTexts {
    /// For this model.
    pub(crate) fn new(model: Arc<LlamaModel>) -> Self {
        Self { pairs: PairFormat::of(&model), model }
    }
}

impl EmbedTexts for GgufTexts {
    fn whole(&self, text: &str) -> Vec<i32> {
        let tokens = self.model.vocab().tokenize(text.as_bytes(), true, false);
        tokens.into_iter().map(|token| token.0).collect()
    }

    fn pairs(&self, request: &Request, len_max: usize) -> Result<Vec<Vec<i32>>, Error> {
        self.pairs.texts(&self.model, request, len_max)
    }
}
