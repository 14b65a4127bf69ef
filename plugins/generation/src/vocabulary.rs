//! What this crate has to know of a model's tokens.

use pajamas_plugin_api::Error;
use toktrie::TokEnv;

/// A model's tokens. All calls are quick but [`trie`](Self::trie), and may come from several threads at once.
pub trait Vocabulary: Send + Sync {
    /// Number of tokens; ids are below it. The logits of a row have this length.
    fn len(&self) -> usize;

    /// Whether there are no tokens.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the tokens of a text to `tokens`, which has what comes before it. No part of the text becomes a control token,
    /// and nothing is put around it but the space that some vocabularies put before a text.
    fn encode(&self, text: &str, tokens: &mut Vec<i32>);

    /// The tokens that are written by templates, not by users. Asked once.
    fn control_tokens(&self) -> Vec<ControlToken>;

    /// The token that begins every sequence, if the model wants one.
    fn begin(&self) -> Option<i32>;

    /// The token that ends a whole text, if the model wants one there (for embeddings; a generated text ends itself).
    fn end(&self) -> Option<i32>;

    /// Whether a stream ends with this token.
    fn is_end(&self, token: u32) -> bool;

    /// Appends the text of a token, which may end inside a code point. Control tokens have none unless `control`.
    fn piece_into(&self, token: u32, control: bool, buffer: &mut Vec<u8>);

    /// The vocabulary as a trie, for grammars. Takes about 0.1 s for 50 000 tokens; asked once, when first needed.
    ///
    /// # Errors
    /// The vocabulary cannot be used for grammars.
    fn trie(&self) -> Result<TokEnv, Error>;
}

/// A token that only a template can write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlToken {
    /// Its id.
    pub token: i32,
    /// How it is written; not empty.
    pub text: String,
    /// It swallows white space before it.
    pub strip_left: bool,
    /// It swallows white space after it.
    pub strip_right: bool,
}
