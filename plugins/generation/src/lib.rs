//! The half of a text-generating plugin that no engine needs to know: which requests share a step and what of their
//! prompts is computed already, how the next token is chosen, what a grammar allows, and which tokens a text is.
//!
//! An engine implements [`LmRunner`] for the computation and [`Vocabulary`] for the model's tokens; an [`Engine`] turns
//! jobs of `generate` and `tokenize` into steps of the one, with the words of the other. An [`Embedder`] does the same
//! for `embed` and `rerank`, over an [`EmbedRunner`].
//!
//! With the feature `checkpoint`, [`checkpoint`] reads vocabularies and templates as `transformers` writes them.

mod cache;
#[cfg(feature = "checkpoint")]
pub mod checkpoint;
mod choosing;
mod counters;
mod embed;
mod engine;
mod grammar;
mod prepare;
mod queue;
mod runner;
mod sampling;
mod scheduler;
mod stream;
mod tokenizer;
mod vocabulary;

pub use counters::Counters;
pub use embed::{EmbedRunner, EmbedSetup, EmbedSizes, EmbedTexts, Embedder, StartEmbedRunner};
pub use engine::{Engine, Sizes};
pub use runner::{AbortCheck, Batch, DecodeError, LmRunner};
pub use tokenizer::{TEXT_BYTES_MAX, Tokenizer};
pub use vocabulary::{ControlToken, Vocabulary};
