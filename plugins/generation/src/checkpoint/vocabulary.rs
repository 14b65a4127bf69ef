//! The tokens of a checkpoint, from `tokenizer.json`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use pajamas_plugin_api::Error;
use serde_json::Value;
use tokenizers::Tokenizer;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::files::{self, TextFiles};
use crate::vocabulary::{ControlToken, Vocabulary};

/// The file of the tokenizer.
const FILE: &str = "tokenizer.json";

/// The vocabulary of a checkpoint.
pub struct CheckpointVocabulary {
    tokenizer: Tokenizer,
    /// For a text after other tokens, where only the first text gets a space before it.
    inner: Option<Tokenizer>,
    /// The bytes of each token, as they are written.
    pieces: Vec<Piece>,
    begin: Option<i32>,
    end: Option<i32>,
    ends: BTreeSet<u32>,
}

#[derive(Clone, Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    is_control: bool,
    strip_left: bool,
    strip_right: bool,
}

/// How the texts of tokens stand for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each byte is a printable character (GPT-2).
    ByteLevel,
    /// `▁` is a space and `<0x0A>` a byte (SentencePiece).
    Metaspace,
}

impl CheckpointVocabulary {
    /// The vocabulary of the checkpoint in `folder`, whose logits have `len` columns. A stream ends with any token that
    /// `texts` name for it.
    ///
    /// # Errors
    /// `tokenizer.json` is missing, no tokenizer, or has tokens beyond the logits.
    pub fn open(folder: &Path, len: usize, texts: &TextFiles) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let bytes = files::read_bounded(&path)?;
        let bad = |reason: &dyn std::fmt::Display| Error::bad_model(format!("{}: {reason}", path.display()));
        let tokenizer = plain_tokenizer(&bytes).map_err(|error| bad(&error))?;
        let file: Value = serde_json::from_slice(&bytes).map_err(|error| bad(&error))?;
        let spelling = spelling(&file);
        let inner = without_first_space(file)
            .map(|file| plain_tokenizer(file.to_string().as_bytes()))
            .transpose()
            .map_err(|error| bad(&error))?;
        let pieces = pieces(&tokenizer, spelling, len).map_err(|error| bad(&error))?;
        let (begin, end) = frame(&tokenizer).map_err(|error| bad(&error))?;
        let named = texts.eos_token.as_deref().and_then(|text| tokenizer.token_to_id(text));
        let ends = texts.ends.iter().copied().chain(named).collect();
        Ok(Self { tokenizer, inner, pieces, begin, end, ends })
    }

    /// The text of a token, if it is one.
    #[must_use]
    pub fn text(&self, token: u32) -> Option<String> {
        let piece = self.pieces.get(token as usize)?;
        String::from_utf8(piece.bytes.clone()).ok()
    }
}

impl Vocabulary for CheckpointVocabulary {
    fn len(&self) -> usize {
        self.pieces.len()
    }

    fn encode(&self, text: &str, tokens: &mut Vec<i32>) {
        let tokenizer = self.inner.as_ref().filter(|_| !tokens.is_empty()).unwrap_or(&self.tokenizer);
        match tokenizer.encode_fast(text, false) {
            Ok(encoding) => tokens.extend(encoding.get_ids().iter().map(|id| id.cast_signed())),
            // Only tokenizers with pieces that do not fit together get here.
            Err(error) => tracing::warn!("a text of {} bytes cannot be tokenized: {error}", text.len()),
        }
    }

    fn control_tokens(&self) -> Vec<ControlToken> {
        let control = (0i32..).zip(&self.pieces).filter(|(_, piece)| piece.is_control);
        let token = |(token, piece): (i32, &Piece)| {
            let text = String::from_utf8(piece.bytes.clone()).ok()?;
            let Piece { strip_left, strip_right, .. } = *piece;
            Some(ControlToken { token, text, strip_left, strip_right })
        };
        control.filter_map(token).collect()
    }

    fn begin(&self) -> Option<i32> {
        self.begin
    }

    fn end(&self) -> Option<i32> {
        self.end
    }

    fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    fn piece_into(&self, token: u32, control: bool, buffer: &mut Vec<u8>) {
        if let Some(piece) = self.pieces.get(token as usize)
            && (control || !piece.is_control)
        {
            buffer.extend_from_slice(&piece.bytes);
        }
    }

    fn trie(&self) -> Result<TokEnv, Error> {
        let Some(end) = self.ends.first() else {
            return Err(Error::unsupported(
                "this model's files name no token that ends a text (`eos_token_id`), without which no grammar can end",
            ));
        };
        let word = |piece: &Piece| {
            if piece.is_control {
                [&[TokTrie::SPECIAL_TOKEN_MARKER], piece.bytes.as_slice()].concat()
            } else {
                piece.bytes.clone()
            }
        };
        let words: Vec<Vec<u8>> = self.pieces.iter().map(word).collect();
        let info = TokRxInfo::new(u32::try_from(words.len()).unwrap_or(u32::MAX), *end);
        Ok(Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words))))
    }
}

impl std::fmt::Debug for CheckpointVocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointVocabulary").field("tokens", &self.pieces.len()).finish_non_exhaustive()
    }
}

/// What the tokenizer puts before and after a text, where that is one token each.
fn frame(tokenizer: &Tokenizer) -> tokenizers::Result<(Option<i32>, Option<i32>)> {
    let bare = tokenizer.encode_fast("a", false)?;
    let framed = tokenizer.encode_fast("a", true)?;
    let (bare, framed) = (bare.get_ids(), framed.get_ids());
    let position = framed.windows(bare.len().max(1)).position(|window| window == bare);
    let first = position.filter(|position| *position > 0).and_then(|_| framed.first());
    let last = position.filter(|position| position + bare.len() < framed.len()).and_then(|_| framed.last());
    Ok((first.map(|id| id.cast_signed()), last.map(|id| id.cast_signed())))
}

/// The tokenizer of a file, which leaves texts as they are and reads no special token in them.
fn plain_tokenizer(file: &[u8]) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(file)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None)?;
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

/// Told by the decoder, which is where tokenizers say how bytes come back.
fn spelling(file: &Value) -> Spelling {
    if file.get("decoder").is_some_and(|decoder| decoder.to_string().contains("\"ByteLevel\"")) {
        Spelling::ByteLevel
    } else {
        Spelling::Metaspace
    }
}

/// The file with no space before any text, if it puts one before the first text only. That scheme looks at where a text
/// lies in the prompt (`PrependScheme::First` of the tokenizers crate), which pieces that are tokenized one by one do not tell.
fn without_first_space(mut file: Value) -> Option<Value> {
    fn change(value: &mut Value) -> bool {
        match value {
            Value::Object(fields) => {
                let scheme = fields.get_mut("prepend_scheme").filter(|scheme| *scheme == "first");
                let is_here = scheme.map(|scheme| *scheme = "never".into()).is_some();
                fields.values_mut().map(change).fold(is_here, |any, changed| any | changed)
            }
            Value::Array(items) => items.iter_mut().map(change).fold(false, |any, changed| any | changed),
            _ => false,
        }
    }
    change(file.get_mut("pre_tokenizer")?).then_some(file)
}

/// The tokens by id. Ids that the file leaves out, which pad the logits, have no text and cannot be written.
fn pieces(tokenizer: &Tokenizer, spelling: Spelling, len: usize) -> Result<Vec<Piece>, String> {
    let mut pieces = vec![Piece::default(); len];
    let added = tokenizer.get_added_tokens_decoder();
    for (text, id) in tokenizer.get_vocab(true) {
        let Some(piece) = pieces.get_mut(id as usize) else {
            return Err(format!("has token {id}, but the model's `vocab_size` is {len}"));
        };
        *piece = match added.get(&id) {
            Some(token) => Piece {
                bytes: text.into_bytes(),
                is_control: token.special,
                strip_left: token.lstrip,
                strip_right: token.rstrip,
            },
            None => Piece { bytes: bytes(&text, spelling), ..Piece::default() },
        };
    }
    Ok(pieces)
}

/// The bytes that a token's text stands for.
fn bytes(text: &str, spelling: Spelling) -> Vec<u8> {
    match spelling {
        Spelling::ByteLevel => {
            let bytes: Option<Vec<u8>> = text.chars().map(byte_of_char).collect();
            bytes.unwrap_or_else(|| text.as_bytes().to_vec())
        }
        Spelling::Metaspace => {
            let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            match hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => vec![byte],
                None => text.replace('▁', " ").into_bytes(),
            }
        }
    }
}

/// GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on in their order.
fn byte_of_char(character: char) -> Option<u8> {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(character);
    if let Ok(byte) = u8::try_from(code) {
        return is_printable(byte).then_some(byte);
    }
    let index = usize::try_from(code.checked_sub(0x100)?).ok()?;
    (0..=u8::MAX).filter(|byte| !is_printable(*byte)).nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_texts_stand_for_bytes() {
        for (text, spelling, expected) in [
            ("Ġhello", Spelling::ByteLevel, &b" hello"[..]),
            ("Ċ", Spelling::ByteLevel, b"\n"),
            ("Ã©", Spelling::ByteLevel, "é".as_bytes()),
            ("ł", Spelling::ByteLevel, &[0xa0]),
            ("Ń", Spelling::ByteLevel, &[0xad]),
            // Not of the alphabet: as it is.
            ("数", Spelling::ByteLevel, "数".as_bytes()),
            ("▁the", Spelling::Metaspace, b" the"),
            ("<0x0A>", Spelling::Metaspace, b"\n"),
            ("<0xZZ>", Spelling::Metaspace, b"<0xZZ>"),
            ("<0x0A", Spelling::Metaspace, b"<0x0A"),
        ] {
            assert_eq!(bytes(text, spelling), expected, "{text}");
        }
        // The alphabet is the tokenizers crate's own.
        for byte in tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet() {
            assert!(byte_of_char(byte).is_some(), "{byte:?}");
        }
    }

    #[test]
    fn a_space_before_the_first_text_only_is_not_before_the_others() {
        let file = |scheme: &str| {
            serde_json::json!({
                "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
                "added_tokens": [{"id": 0, "content": "<s>", "special": true, "single_word": false, "lstrip": false,
                                  "rstrip": false, "normalized": false}],
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false}]},
                "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false},
                "model": {"type": "BPE", "vocab": {"<s>": 0, "▁": 1, "h": 2, "i": 3, "hi": 4, "▁hi": 5},
                          "merges": ["h i", "▁ hi"]},
            })
        };
        for (scheme, first, later) in [("first", 5, 4), ("always", 5, 5), ("never", 4, 4)] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(FILE), file(scheme).to_string()).unwrap();
            let vocabulary = CheckpointVocabulary::open(folder.path(), 6, &TextFiles::default()).unwrap();
            for (before, token) in [(vec![], first), (vec![0], later)] {
                let mut tokens = before.clone();
                vocabulary.encode("hi", &mut tokens);
                assert_eq!(tokens, [before.clone(), vec![token]].concat(), "{scheme} after {before:?}");
            }
            // As the tokenizer itself has it, where it sees the whole prompt.
            let whole = Tokenizer::from_bytes(file(scheme).to_string()).unwrap();
            let whole = whole.encode_fast("<s>hi", false).unwrap();
            assert_eq!(whole.get_ids(), [0, later.cast_unsigned()], "{scheme}");
        }
    }
}
