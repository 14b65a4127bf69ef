//! The model's tokens: text, control tokens, languages and times.

use pajamas_plugin_api::Error;
use tokenizers::Tokenizer;

use super::config::ModelConfig;
use crate::files::{Folder, read_bounded};

/// Times from 0 to 30 s in steps of 0.02 s.
const TIMESTAMPS: usize = 1501;

/// Ids of the control tokens. Text is below `eot`; times are from `timestamp_begin` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Specials {
    /// End of the text.
    pub(super) eot: u32,
    /// Start of a transcript.
    pub(super) sot: u32,
    /// Task: English text whatever is spoken.
    pub(super) translate: u32,
    /// Task: text in the language that is spoken.
    pub(super) transcribe: u32,
    /// Start of a pure language model's text; not used, never generated.
    pub(super) sot_lm: u32,
    /// Start of the text that comes before.
    pub(super) sot_prev: u32,
    /// Nobody speaks.
    pub(super) no_speech: u32,
    /// A text without times follows.
    pub(super) no_timestamps: u32,
    /// The time 0.
    pub(super) timestamp_begin: u32,
}

impl Specials {
    /// Whether the token is a time.
    pub(super) fn is_timestamp(&self, token: u32) -> bool {
        token >= self.timestamp_begin
    }

    /// Whether the token is text.
    pub(super) fn is_text(&self, token: u32) -> bool {
        token < self.eot
    }
}

/// Reads and writes text as tokens.
pub(super) struct Vocabulary {
    tokenizer: Tokenizer,
    /// The control tokens.
    pub(super) specials: Specials,
    /// Codes of the languages, in the order of their tokens; empty for a model that knows English only.
    pub(super) languages: Vec<String>,
    /// Tokens that do not come first.
    pub(super) suppressed_first: Vec<u32>,
}

impl Vocabulary {
    /// Reads `tokenizer.json`.
    pub(super) fn read(folder: &Folder, config: &ModelConfig) -> Result<Self, Error> {
        let file = folder.path().join("tokenizer.json");
        let bad = |why: String| Error::bad_model(format!("{}: {why}", file.display()));
        let tokenizer = Tokenizer::from_bytes(read_bounded(&file)?).map_err(|e| bad(e.to_string()))?;
        let find = |names: &[&str]| {
            let id = names.iter().find_map(|name| tokenizer.token_to_id(name));
            id.ok_or_else(|| bad(format!("the token `{}` is missing", names[0])))
        };
        let no_timestamps = find(&["<|notimestamps|>"])?;
        let specials = Specials {
            eot: find(&["<|endoftext|>"])?,
            sot: find(&["<|startoftranscript|>"])?,
            translate: find(&["<|translate|>"])?,
            transcribe: find(&["<|transcribe|>"])?,
            sot_lm: find(&["<|startoflm|>"])?,
            sot_prev: find(&["<|startofprev|>"])?,
            // Older checkpoints have the second name.
            no_speech: find(&["<|nospeech|>", "<|nocaptions|>"])?,
            no_timestamps,
            // Not every tokenizer.json lists the times; they follow.
            timestamp_begin: no_timestamps + 1,
        };
        let last = specials.timestamp_begin as usize + TIMESTAMPS - 1;
        let ids = [specials.sot, specials.translate, specials.transcribe, specials.sot_lm, specials.sot_prev];
        let is_ordered =
            ids.iter().chain([&specials.no_speech]).all(|id| (specials.eot..no_timestamps).contains(id));
        if last >= config.vocabulary || !is_ordered {
            let vocabulary = config.vocabulary;
            return Err(bad(format!("its control tokens do not fit a Whisper model of {vocabulary} tokens")));
        }
        let languages = if config.is_multilingual { languages(&tokenizer, specials) } else { Vec::new() };
        let space = find(&["Ġ"])?;
        let suppressed_first = config.suppressed_first.clone().unwrap_or_else(|| vec![space, specials.eot]);
        Ok(Self { tokenizer, specials, languages, suppressed_first })
    }

    /// The tokens of a text that comes before the sound's (`initial_prompt` of openai/whisper). Control tokens in it are
    /// dropped: the text is a stranger's.
    pub(super) fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode(format!(" {}", text.trim()), false);
        let encoding =
            encoding.map_err(|e| Error::invalid(format!("prompt cannot be read as tokens: {e}")))?;
        Ok(encoding.get_ids().iter().copied().filter(|id| self.specials.is_text(*id)).collect())
    }

    /// The text of tokens; other than text tokens are left out. Bytes that are not UTF-8 become U+FFFD.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        let text: Vec<u32> = tokens.iter().copied().filter(|token| self.specials.is_text(*token)).collect();
        let text = self.tokenizer.decode(&text, false);
        text.map_err(|e| Error::internal(format!("tokens cannot be read as text: {e}")))
    }

    /// The tokens that begin a transcript: what is spoken and what is wanted.
    pub(super) fn start_sequence(&self, language: usize, translate: bool) -> Vec<u32> {
        let Specials { sot, transcribe, translate: to_english, .. } = self.specials;
        if self.languages.is_empty() {
            return vec![sot];
        }
        vec![sot, sot + 1 + language as u32, if translate { to_english } else { transcribe }]
    }
}

/// The languages have the tokens between the start of a transcript and the first task (`tokenizer.py` of
/// openai/whisper).
fn languages(tokenizer: &Tokenizer, specials: Specials) -> Vec<String> {
    let tokens = specials.sot + 1..specials.translate.min(specials.transcribe);
    let names = tokens.map_while(|id| tokenizer.id_to_token(id));
    names.map_while(|name| Some(name.strip_prefix("<|")?.strip_suffix("|>")?.to_owned())).collect()
}
