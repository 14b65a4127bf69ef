//! From the parts of a request to token ids. Control tokens are interpreted in trusted text only: a user who types
//! `<|im_end|>` gets the characters, not the token.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use pajamas_plugin_api::{Dtype, Error, Event, Finish, Job, Part, Request, TensorView, Usage};
use serde::Deserialize;

use crate::vocabulary::{ControlToken, Vocabulary};

/// Longest text of one request, in bytes; a longer one is refused before it is tokenised.
pub const TEXT_BYTES_MAX: usize = 64 << 20;

/// Turns parts into tokens. Made once for a model.
pub struct Tokenizer {
    vocabulary: Arc<dyn Vocabulary>,
    /// Finds the texts of control tokens; `None` when there are none.
    control: Option<AhoCorasick>,
    /// The control tokens, in the order of the automaton's patterns.
    control_tokens: Vec<ControlToken>,
    begin: Option<i32>,
    end: Option<i32>,
}

/// Parameters of `tokenize`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizeParams {
    add_special: bool,
}

/// A stretch of the joined text.
enum Fragment {
    Text(Range<usize>),
    Token(i32),
}

impl Tokenizer {
    /// A tokenizer for the model's vocabulary.
    ///
    /// # Errors
    /// The control tokens' texts cannot be searched for (more than 2³¹ bytes of them).
    pub fn new(vocabulary: Arc<dyn Vocabulary>) -> Result<Self, Error> {
        let mut control_tokens = vocabulary.control_tokens();
        control_tokens.retain(|token| !token.text.is_empty());
        let texts = control_tokens.iter().map(|token| &token.text);
        let control = (!control_tokens.is_empty())
            .then(|| AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts))
            .transpose()
            .map_err(|error| Error::bad_model(format!("control tokens of the vocabulary: {error}")))?;
        let (begin, end) = (vocabulary.begin(), vocabulary.end());
        Ok(Self { vocabulary, control, control_tokens, begin, end })
    }

    /// The model's tokens.
    #[must_use]
    pub fn vocabulary(&self) -> &dyn Vocabulary {
        &*self.vocabulary
    }

    /// Tokens of a prompt: texts are joined, so that words may cross the border of two parts; the token that begins a
    /// sequence is added where the model wants it and the prompt lacks it.
    ///
    /// # Errors
    /// A part is neither text nor tokens, a token id is outside the vocabulary, or the text is too long.
    pub fn prompt(&self, parts: &[Part]) -> Result<Vec<i32>, Error> {
        let mut tokens = self.joined(parts)?;
        if let Some(begin) = self.begin
            && tokens.first() != Some(&begin)
        {
            tokens.insert(0, begin);
        }
        Ok(tokens)
    }

    /// Tokens of the parts, and no others.
    fn joined(&self, parts: &[Part]) -> Result<Vec<i32>, Error> {
        let mut tokens = Vec::new();
        let mut text = String::new();
        let mut trusted: Vec<Range<usize>> = Vec::new();
        for part in parts {
            match part {
                Part::Text { text: piece, trusted: is_trusted } => {
                    let range = text.len()..text.len() + piece.len();
                    if range.end > TEXT_BYTES_MAX {
                        return Err(too_long());
                    }
                    text.push_str(piece);
                    match trusted.last_mut() {
                        Some(last) if *is_trusted && last.end == range.start => last.end = range.end,
                        _ if *is_trusted => trusted.push(range),
                        _ => {}
                    }
                }
                Part::Tokens(ids) => {
                    self.text(&text, &trusted, &mut tokens);
                    text.clear();
                    trusted.clear();
                    self.check(ids)?;
                    tokens.extend(ids.iter().map(|id| id.cast_signed()));
                }
                _ => return Err(Error::invalid("the prompt may hold text and token ids only")),
            }
        }
        self.text(&text, &trusted, &mut tokens);
        Ok(tokens)
    }

    fn tokenize(&self, request: &Request) -> Result<Vec<i32>, Error> {
        if !request.params::<TokenizeParams>()?.add_special {
            return self.joined(&request.parts);
        }
        let mut tokens = self.prompt(&request.parts)?;
        if self.end.is_some() && tokens.last().copied() != self.end {
            tokens.extend(self.end);
        }
        Ok(tokens)
    }

    /// Does a whole `tokenize` job: sends one tensor `tokens` of type I32.
    pub fn answer(&self, request: &Request, job: Job) {
        let tokens = match self.tokenize(request) {
            Ok(tokens) => tokens,
            Err(error) => return job.fail(&error),
        };
        let data: Vec<u8> = tokens.iter().flat_map(|token| token.to_ne_bytes()).collect();
        let shape = [i64::try_from(tokens.len()).unwrap_or(i64::MAX)];
        job.push(&Event::Tensors(vec![TensorView {
            name: "tokens",
            dtype: Dtype::I32,
            shape: &shape,
            data: &data,
        }]));
        let prompt_tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        job.done(Finish::Stop, Usage { prompt_tokens, ..Usage::default() });
    }

    /// Checks that all ids are in the vocabulary.
    ///
    /// # Errors
    /// One is not; the message names it.
    pub fn check(&self, ids: &[u32]) -> Result<(), Error> {
        let count = u32::try_from(self.vocabulary.len()).unwrap_or(u32::MAX);
        match ids.iter().find(|id| **id >= count) {
            Some(id) => Err(Error::invalid(format!(
                "token {id} does not exist, the model has {count} tokens, from 0"
            ))),
            None => Ok(()),
        }
    }

    fn text(&self, text: &str, trusted: &[Range<usize>], tokens: &mut Vec<i32>) {
        for fragment in self.fragments(text, trusted) {
            match fragment {
                Fragment::Token(token) => tokens.push(token),
                // Cut at the borders of control tokens and at white space, so always between code points.
                Fragment::Text(range) => {
                    self.vocabulary.encode(text.get(range).unwrap_or_default(), tokens);
                }
            }
        }
    }

    /// Cuts the text at the control tokens inside the trusted ranges, as the engines do when they parse them themselves.
    fn fragments(&self, text: &str, trusted: &[Range<usize>]) -> Vec<Fragment> {
        let bytes = text.as_bytes();
        let mut fragments = Vec::new();
        let mut begin = 0;
        let matches = self.control.iter().flat_map(|control| {
            trusted.iter().flat_map(move |range| {
                let base = range.start;
                let inside = bytes.get(range.clone()).unwrap_or_default();
                control
                    .find_iter(inside)
                    .map(move |found| (base + found.start()..base + found.end(), found.pattern().as_usize()))
            })
        });
        for (range, pattern) in matches {
            let Some(&ControlToken { token, strip_left, strip_right, .. }) = self.control_tokens.get(pattern)
            else {
                continue;
            };
            let mut end = range.start;
            if strip_left {
                while end > begin && bytes[end - 1].is_ascii_whitespace() {
                    end -= 1;
                }
            }
            if end > begin {
                fragments.push(Fragment::Text(begin..end));
            }
            fragments.push(Fragment::Token(token));
            begin = range.end;
            if strip_right {
                while begin < bytes.len() && bytes[begin].is_ascii_whitespace() {
                    begin += 1;
                }
            }
        }
        if begin < bytes.len() {
            fragments.push(Fragment::Text(begin..bytes.len()));
        }
        fragments
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.vocabulary.len())
            .field("control_tokens", &self.control_tokens.len())
            .finish_non_exhaustive()
    }
}

pub(crate) fn too_long() -> Error {
    Error::invalid(format!("the text is longer than {TEXT_BYTES_MAX} bytes"))
}
