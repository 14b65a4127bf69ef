//! What the files beside a network's weights say about its texts, as `transformers` writes them: which tokens there are,
//! which of them end a text, and how a conversation becomes one.

mod files;
mod vocabulary;

pub use files::{Ids, TextFiles, read_bounded, read_json, read_text};
pub use vocabulary::CheckpointVocabulary;
