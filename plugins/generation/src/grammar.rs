//! Constrained decoding with llguidance: JSON objects, JSON schemas and Lark grammars.

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use pajamas_plugin_api::{Error, Grammar};

use crate::vocabulary::Vocabulary;

/// Largest grammar or schema that is compiled, in bytes of its text; a larger one is refused.
const GRAMMAR_BYTES_MAX: usize = 1 << 20;

/// White space that JSON may have between its tokens. Bounded, because a small model can otherwise go on with blanks
/// until its token limit.
const JSON_WHITESPACE: &str = r"[ \t\n]{0,20}";

/// Compiles grammars for one model. Holds the vocabulary as a trie, so it is made once, when first needed.
pub(crate) struct GrammarCompiler {
    factory: ParserFactory,
}

impl GrammarCompiler {
    /// Builds the trie; takes about 0.1 s for 50 000 tokens.
    ///
    /// # Errors
    /// The vocabulary cannot be used for grammars.
    pub(crate) fn new(vocabulary: &dyn Vocabulary) -> Result<Self, Error> {
        let mut factory = ParserFactory::new_simple(&vocabulary.trie()?).map_err(|error| {
            Error::unsupported(format!("this model's vocabulary allows no grammars: {error}"))
        })?;
        factory.quiet();
        // Errors go to clients: without the whole grammar in them.
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    /// Compiles a grammar. llguidance's limits of size and work apply.
    ///
    /// # Errors
    /// The grammar is wrong, too large, or uses a feature that is not supported; the message says which.
    pub(crate) fn compile(&self, grammar: &Grammar) -> Result<GrammarState, Error> {
        let (name, grammar) = match grammar {
            Grammar::JsonObject => ("json_object", json(serde_json::json!({"type": "object"}))),
            Grammar::JsonSchema { schema } => {
                if schema.to_string().len() > GRAMMAR_BYTES_MAX {
                    return Err(too_large("JSON schema"));
                }
                ("JSON schema", json(schema.clone()))
            }
            Grammar::Lark { text } if text.len() > GRAMMAR_BYTES_MAX => return Err(too_large("grammar")),
            Grammar::Lark { text } => ("grammar", TopLevelGrammar::from_lark(text.clone())),
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(Error::invalid(format!("{name}: {error}"))),
            None => Ok(GrammarState { matcher }),
        }
    }
}

fn too_large(what: &str) -> Error {
    Error::invalid(format!("the {what} is larger than {GRAMMAR_BYTES_MAX} bytes"))
}

fn json(mut schema: serde_json::Value) -> TopLevelGrammar {
    if let Some(object) = schema.as_object_mut() {
        object
            .entry("x-guidance")
            .or_insert_with(|| serde_json::json!({"whitespace_pattern": JSON_WHITESPACE}));
    }
    TopLevelGrammar::from_json_schema(schema)
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

/// Where one stream stands in its grammar.
pub(crate) struct GrammarState {
    matcher: Matcher,
}

impl GrammarState {
    /// Bans every token that the grammar does not allow next. An end-of-text token is allowed where the grammar may end.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<(), String> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| error.to_string())?;
        let allowed = mask.as_slice();
        for (index, chunk) in logits.chunks_mut(u32::BITS as usize).enumerate() {
            let bits = allowed.get(index).copied().unwrap_or(0);
            if bits == u32::MAX {
                continue;
            }
            for (bit, logit) in chunk.iter_mut().enumerate() {
                if bits >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    /// Advances by one token.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), String> {
        if self.matcher.is_stopped() {
            return Err("the grammar has already ended".to_owned());
        }
        self.matcher.consume_token(token).map_err(|error| error.to_string())
    }

    /// Whether the grammar allows nothing more.
    pub(crate) fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}

impl std::fmt::Debug for GrammarState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarState").field("complete", &self.is_complete()).finish_non_exhaustive()
    }
}
