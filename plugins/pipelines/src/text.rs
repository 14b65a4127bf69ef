//! Pipelines that read texts.

mod encoder;
mod length;
mod pooling;
mod tokens;

pub(crate) mod embed;
pub(crate) mod rerank;

pub(crate) use embed::TextVectors;
pub(crate) use encoder::Encoder;
pub(crate) use pooling::normalize;
pub(crate) use tokens::Tokens;
