//! From the parts of a request to token ids. Control tokens are interpreted in trusted text only: a user who types
//! `<|im_end|>` gets the characters, not the token.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token_type::LlamaTokenAttr;
use llama_cpp_2::vocab::LlamaVocab;
use pajamas_plugin_api::{Dtype, Error, Event, Finish, Job, Part, Request, TensorView, Usage};
use serde::Deserialize;

/// Longest text of one request, in bytes; a longer one is refused before it is tokenised.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Turns parts into tokens. Made once for a model.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    model: Arc<LlamaModel>,
    /// Finds the texts of control tokens; `None` when there are none.
    control: Option<AhoCorasick>,
    /// The control tokens, in the order of the automaton's patterns.
    control_tokens: Vec<ControlToken>,
    bos: Option<i32>,
    /// What ends a sequence: its own token, or, in BERT's vocabularies, the separator.
    end: Option<i32>,
}

/// Parameters of `tokenize`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizeParams {
    add_special: bool,
}

#[derive(Clone, Copy, Debug)]
struct ControlToken {
    token: i32,
    /// The token swallows white space before it.
    strip_left: bool,
    /// The token swallows white space after it.
    strip_right: bool,
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
    pub(crate) fn new(model: Arc<LlamaModel>) -> Result<Self, Error> {
        let vocab = model.vocab();
        let mut texts = Vec::new();
        let mut control_tokens = Vec::new();
        for token in vocab.tokens() {
            let attributes = vocab.attr(token).0;
            let text = vocab.text(token).map(|text| text.to_bytes().to_vec()).unwrap_or_default();
            if attributes.intersects(LlamaTokenAttr::Control | LlamaTokenAttr::Unknown) && !text.is_empty() {
                texts.push(text);
                control_tokens.push(ControlToken {
                    token: token.0,
                    strip_left: attributes.contains(LlamaTokenAttr::LStrip),
                    strip_right: attributes.contains(LlamaTokenAttr::RStrip),
                });
            }
        }
        let control = (!texts.is_empty())
            .then(|| AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts))
            .transpose()
            .map_err(|error| Error::bad_model(format!("control tokens of the vocabulary: {error}")))?;
        let (bos, end) = (first_token(&vocab), last_token(&vocab));
        Ok(Self { model, control, control_tokens, bos, end })
    }

    /// Tokens of a prompt: texts are joined, so that words may cross the border of two parts; the token that begins a
    /// sequence is added where the model wants it and the prompt lacks it.
    ///
    /// # Errors
    /// A part is neither text nor tokens, a token id is outside the vocabulary, or the text is too long.
    pub(crate) fn prompt(&self, parts: &[Part]) -> Result<Vec<i32>, Error> {
        let mut tokens = self.joined(parts)?;
        if let Some(bos) = self.bos
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
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

    /// Tokens of a text to embed, with the special tokens that the model wants around it.
    ///
    /// # Errors
    /// The text is too long.
    pub(crate) fn whole_text(&self, text: &str) -> Result<Vec<i32>, Error> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(too_long());
        }
        Ok(self
            .model
            .vocab()
            .tokenize(text.as_bytes(), true, false)
            .into_iter()
            .map(|token| token.0)
            .collect())
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
    pub(crate) fn answer(&self, request: &Request, job: Job) {
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
    pub(crate) fn check(&self, ids: &[u32]) -> Result<(), Error> {
        let count = self.model.n_vocab().cast_unsigned();
        match ids.iter().find(|id| **id >= count) {
            Some(id) => Err(Error::invalid(format!(
                "token {id} does not exist, the model has {count} tokens, from 0"
            ))),
            None => Ok(()),
        }
    }

    /// Appends the text of a token, which may end inside a code point. Control tokens have none unless `control`.
    pub(crate) fn piece_into(&self, token: u32, control: bool, buffer: &mut Vec<u8>) {
        self.model.vocab().token_to_piece_into(LlamaToken::new(token.cast_signed()), buffer, control, None);
    }

    /// Whether a stream ends with this token.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.model.vocab().is_eog(LlamaToken::new(token.cast_signed()))
    }

    fn text(&self, text: &str, trusted: &[Range<usize>], tokens: &mut Vec<i32>) {
        let vocab = self.model.vocab();
        for fragment in self.fragments(text, trusted) {
            match fragment {
                Fragment::Token(token) => tokens.push(token),
                Fragment::Text(range) => {
                    let bytes = text.as_bytes().get(range).unwrap_or_default();
                    tokens.extend(vocab.tokenize(bytes, false, false).into_iter().map(|token| token.0));
                }
            }
        }
    }

    /// Cuts the text at the control tokens inside the trusted ranges, as llama.cpp does when it parses them itself.
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
            let Some(&ControlToken { token, strip_left, strip_right }) = self.control_tokens.get(pattern)
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

/// The token that begins a sequence, if the vocabulary wants one.
pub(crate) fn first_token(vocab: &LlamaVocab<'_>) -> Option<i32> {
    (vocab.should_add_bos() && vocab.bos().0 >= 0).then(|| vocab.bos().0)
}

/// The token that ends a sequence, if the vocabulary wants one. BERT's vocabularies have no end but a separator, which
/// ends a text and a pair: `[CLS] text [SEP]`.
pub(crate) fn last_token(vocab: &LlamaVocab<'_>) -> Option<i32> {
    let (eos, separator) = (vocab.eos().0, vocab.sep().0);
    let end = if eos >= 0 { eos } else { separator };
    let is_wanted = vocab.should_add_eos() || vocab.should_add_sep();
    (is_wanted && end >= 0).then_some(end)
}

fn too_long() -> Error {
    Error::invalid(format!("the text is longer than {TEXT_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use llama_cpp_2::llama_backend::LlamaBackend;
    use llama_cpp_2::model::params::LlamaModelParams;

    use super::*;

    /// SmolLM2's vocabulary, or `None` when the model is not on this machine.
    fn tokenizer() -> Option<Tokenizer> {
        let dir = std::env::var_os("PAJAMAS_TEST_MODELS").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/pajamas-host/models"),
            PathBuf::from,
        );
        let path = dir.join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
        if !path.exists() {
            println!("skipped: {} is not there, `cargo xtask models` fetches it", path.display());
            return None;
        }
        let llama = LlamaBackend::init().unwrap();
        let params = LlamaModelParams::default().with_vocab_only(true);
        let model = LlamaModel::load_from_file(&llama, path, &params).unwrap();
        Some(Tokenizer::new(Arc::new(model)).unwrap())
    }

    fn trusted(text: &str) -> Part {
        Part::Text { text: text.to_owned(), trusted: true }
    }

    #[test]
    fn control_tokens_count_in_trusted_text_only() {
        let Some(tokenizer) = tokenizer() else { return };
        let whole = |text: &str, special: bool| -> Vec<i32> {
            tokenizer
                .model
                .vocab()
                .tokenize(text.as_bytes(), false, special)
                .into_iter()
                .map(|token| token.0)
                .collect()
        };
        // A prompt that holds no trick is what llama.cpp makes of it, wherever its parts begin.
        let question = "What's a café?\n\n  Two  spaces, 数字 123 and 🦙.";
        let (before, after) = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n");
        let parts = [trusted(before), Part::text(question), trusted(after)];
        assert_eq!(tokenizer.prompt(&parts).unwrap(), whole(&format!("{before}{question}{after}"), true));
        // A trick in untrusted text is text, also when it begins in trusted text.
        let end = whole("<|im_end|>", true);
        assert_eq!(end.len(), 1);
        for parts in [
            vec![Part::text("<|im_end|>")],
            vec![trusted("<|im_"), Part::text("end|>")],
            vec![Part::text("<|im_"), trusted("end|>")],
            vec![Part::text("<|im_end"), Part::text("|>")],
        ] {
            let tokens = tokenizer.prompt(&parts).unwrap();
            assert!(!tokens.contains(&end[0]), "{parts:?}: {tokens:?}");
            assert_eq!(tokens, whole("<|im_end|>", false));
        }
        // Two trusted parts are one text, and token ids stay as they are.
        assert_eq!(tokenizer.prompt(&[trusted("<|im_"), trusted("end|>")]).unwrap(), end);
        let mixed = [Part::text("a"), Part::Tokens(vec![2, 1]), trusted("<|im_end|>")];
        assert_eq!(tokenizer.prompt(&mixed).unwrap(), [whole("a", false), vec![2, 1], end].concat());
        assert!(tokenizer.prompt(&[]).unwrap().is_empty());
        assert!(tokenizer.is_end(2) && !tokenizer.is_end(whole("a", false)[0].cast_unsigned()));
    }
}
