//! Texts into token ids, with the `tokenizer.json` of a model, and the task `tokenize`.

use pajamas_plugin_api::{Dtype, Error, Event, Finish, Job, Part, Request, TensorView, Usage};
use serde::Deserialize;
use tokenizers::{Encoding, Tokenizer};

use crate::files::{self, Folder};

/// The file of the tokenizer.
const FILE: &str = "tokenizer.json";

/// The tokenizer of an encoder.
///
/// Texts never become control tokens, because encoders have no template whose texts could be trusted: `[SEP]` in a text
/// is five letters.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    /// What begins and ends a sequence.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    /// Fills the places of a batch that a shorter sequence leaves.
    pub(crate) pad: u32,
}

/// What an encoder reads: token ids, and for each the number of the text that it is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub(crate) ids: Vec<u32>,
    pub(crate) types: Vec<u32>,
}

/// How long a sequence may be, and what happens beyond.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// In tokens, those that begin and end the sequence included.
    pub(crate) tokens_max: usize,
    /// Cut what is longer instead of refusing it.
    pub(crate) truncate: bool,
}

/// Parameters of `tokenize`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizeParams {
    add_special: bool,
}

impl Tokens {
    /// The tokenizer of `folder`.
    ///
    /// # Errors
    /// `tokenizer.json` is missing or no tokenizer.
    pub(crate) fn open(folder: &Folder) -> Result<Self, Error> {
        let file = folder.path().join(FILE);
        let bytes = files::read_bounded(&file)?;
        let bad = |reason: &dyn std::fmt::Display| Error::bad_model(format!("{}: {reason}", file.display()));
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| bad(&error))?;
        let pad = match tokenizer.get_padding() {
            Some(padding) => padding.pad_id,
            None => ["[PAD]", "<pad>"].iter().find_map(|token| tokenizer.token_to_id(token)).unwrap_or(0),
        };
        // Files carry the settings of whoever saved them last; the limit and the batch are decided elsewhere.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| bad(&error))?;
        tokenizer.set_encode_special_tokens(true);
        let mut tokens = Self { tokenizer, prefix: Vec::new(), suffix: Vec::new(), pad };
        (tokens.prefix, tokens.suffix) = tokens.frame()?;
        Ok(tokens)
    }

    /// What the tokenizer puts around a text.
    fn frame(&self) -> Result<(Vec<u32>, Vec<u32>), Error> {
        let bare = self.encode("a", false)?;
        let framed = self.encode("a", true)?;
        let (bare, framed) = (bare.get_ids(), framed.get_ids());
        let position =
            framed.windows(bare.len().max(1)).position(|window| window == bare).ok_or_else(|| {
                Error::bad_model(format!("{FILE}: the tokens around a text change the text's own tokens"))
            })?;
        Ok((framed[..position].to_vec(), framed[position + bare.len()..].to_vec()))
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Encoding, Error> {
        let encoding = self.tokenizer.encode_fast(text, add_special);
        encoding.map_err(|error| Error::invalid(format!("a text cannot be tokenized: {error}")))
    }

    /// The sequence of a text without words.
    pub(crate) fn empty(&self) -> Vec<u32> {
        [self.prefix.as_slice(), &self.suffix].concat()
    }

    /// Number of different tokens.
    pub(crate) fn vocab_size(&self) -> u32 {
        u32::try_from(self.tokenizer.get_vocab_size(true)).unwrap_or(u32::MAX)
    }

    /// The sequences of a request whose parts are inputs of their own. Token ids get the tokens that begin and end a
    /// sequence where they lack them.
    ///
    /// # Errors
    /// There is no part, one is neither text nor token ids of the vocabulary, or one is beyond the limit.
    pub(crate) fn sequences(&self, request: &Request, limit: Limit) -> Result<Vec<Sequence>, Error> {
        if request.parts.is_empty() {
            return Err(Error::invalid(format!("{} needs a text, and none was sent", request.task)));
        }
        let sequence = |(index, part): (usize, &Part)| {
            let ids = match part {
                Part::Text { text, .. } => self.encode(text, false)?.get_ids().to_vec(),
                Part::Tokens(ids) => self.bare(ids)?,
                _ => {
                    return Err(Error::invalid(format!(
                        "{} takes texts and token ids, and part {index} is another thing",
                        request.task
                    )));
                }
            };
            self.framed(ids, index, limit)
        };
        request.parts.iter().enumerate().map(sequence).collect()
    }

    /// Token ids without what begins and ends a sequence, if they have both.
    fn bare(&self, ids: &[u32]) -> Result<Vec<u32>, Error> {
        let vocab_size = self.vocab_size();
        if let Some(unknown) = ids.iter().find(|id| **id >= vocab_size) {
            return Err(Error::invalid(format!(
                "there is no token {unknown}; the vocabulary has {vocab_size}"
            )));
        }
        let bare =
            ids.strip_prefix(self.prefix.as_slice()).and_then(|ids| ids.strip_suffix(self.suffix.as_slice()));
        Ok(bare.unwrap_or(ids).to_vec())
    }

    fn framed(&self, mut ids: Vec<u32>, index: usize, limit: Limit) -> Result<Sequence, Error> {
        let frame = self.prefix.len() + self.suffix.len();
        let len = ids.len() + frame;
        if len > limit.tokens_max {
            if !limit.truncate {
                return Err(Error::invalid(format!(
                    "input {index} has {len} tokens and this model takes {}; set `truncate` to cut it",
                    limit.tokens_max
                )));
            }
            ids.truncate(limit.tokens_max.saturating_sub(frame));
        }
        let ids = [self.prefix.as_slice(), &ids, &self.suffix].concat();
        if ids.is_empty() {
            return Err(Error::invalid(format!("input {index} has no tokens")));
        }
        Ok(Sequence { types: vec![0; ids.len()], ids })
    }

    /// The sequence of two texts, as a cross-encoder reads them.
    ///
    /// # Errors
    /// A text cannot be tokenized.
    pub(crate) fn pair(&self, first: &str, second: &str) -> Result<Sequence, Error> {
        let encoding = self.tokenizer.encode_fast((first, second), true);
        let encoding =
            encoding.map_err(|error| Error::invalid(format!("a text cannot be tokenized: {error}")))?;
        Ok(Sequence { ids: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec() })
    }

    /// Does a `tokenize` request.
    ///
    /// # Errors
    /// A part is no text.
    pub(crate) fn tokenize(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        let params: TokenizeParams = request.params()?;
        let text: String = request.texts().collect();
        if request.texts().count() != request.parts.len() || request.parts.is_empty() {
            return Err(Error::invalid("tokenize takes texts"));
        }
        let encoding = self.encode(&text, params.add_special)?;
        let ids = encoding.get_ids();
        job.push(&Event::Tensors(vec![TensorView {
            name: "tokens",
            dtype: Dtype::U32,
            shape: &[ids.len() as i64],
            data: bytemuck::cast_slice(ids),
        }]));
        Ok((Finish::Stop, Usage::default()))
    }
}
