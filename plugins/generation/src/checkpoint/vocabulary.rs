//! The tokens of a checkpoint, from `tokenizer.json`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use pajamas_plugin_api::Error;
use tokenizers::Tokenizer;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::files::{self, TextFiles};
use crate::vocabulary::{ControlToken, Vocabulary};

/// The file of the tokenizer.
const FILE: &str = "tokenizer.json";

/// The vocabulary of a checkpoint.
pub struct CheckpointVocabulary {
    tokenizer: Tokenizer,
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
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| bad(&error))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| bad(&error))?;
        tokenizer.set_encode_special_tokens(true);
        let text = String::from_utf8_lossy(&bytes);
        let spelling = spelling(&text);
        let pieces = pieces(&tokenizer, spelling, len).map_err(|error| bad(&error))?;
        let (begin, end) = frame(&tokenizer).map_err(|error| bad(&error))?;
        let named = texts.eos_token.as_deref().and_then(|text| tokenizer.token_to_id(text));
        let ends = texts.ends.iter().copied().chain(named).collect();
        Ok(Self { tokenizer, pieces, begin, end, ends })
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
        match self.tokenizer.encode_fast(text, false) {
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

/// Told by the decoder, which is where tokenizers say how bytes come back.
fn spelling(text: &str) -> Spelling {
    let decoder = serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|mut file| file.get_mut("decoder").map(serde_json::Value::take));
    if decoder.is_some_and(|decoder| decoder.to_string().contains("\"ByteLevel\"")) {
        Spelling::ByteLevel
    } else {
        Spelling::Metaspace
    }
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
}
