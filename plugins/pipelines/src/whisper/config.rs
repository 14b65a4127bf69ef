//! What the model's folder says about the network: `config.json` and `generation_config.json`, as Hugging Face writes
//! them for `WhisperForConditionalGeneration`.

use pajamas_plugin_api::{Error, ErrorKind};
use serde::Deserialize;

use super::mel::WINDOW_FRAMES;
use crate::files::Folder;

/// Frames that the encoder's convolutions make one position of.
pub(super) const FRAMES_PER_POSITION: usize = 2;
/// Size of the vocabulary from which on a checkpoint of OpenAI's knows more than English (`is_multilingual` in
/// openai/whisper, `model.py`).
const MULTILINGUAL_VOCABULARY: usize = 51_865;

/// The numbers that the pipeline needs, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelConfig {
    /// Rows of the mel spectrogram: 80 or 128.
    pub(super) mels: usize,
    /// Longest sequence of the decoder, prompt included.
    pub(super) context: usize,
    /// Layers of the decoder.
    pub(super) layers: usize,
    /// Columns of the logits.
    pub(super) vocabulary: usize,
    /// Whether it knows languages other than English, and translates.
    pub(super) is_multilingual: bool,
    /// Tokens that are never generated, beside the control tokens.
    pub(super) suppressed: Vec<u32>,
    /// Tokens that do not come first; `None`: a space and the end of the text.
    pub(super) suppressed_first: Option<Vec<u32>>,
    /// Layer and head of the cross-attentions that follow the sound.
    pub(super) alignment_heads: Vec<(usize, usize)>,
}

#[derive(Deserialize)]
struct ConfigFile {
    model_type: String,
    num_mel_bins: usize,
    max_source_positions: usize,
    max_target_positions: usize,
    decoder_layers: usize,
    decoder_attention_heads: usize,
    vocab_size: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GenerationFile {
    is_multilingual: Option<bool>,
    suppress_tokens: Option<Vec<u32>>,
    begin_suppress_tokens: Option<Vec<u32>>,
    alignment_heads: Option<Vec<(usize, usize)>>,
}

impl ModelConfig {
    /// Reads and checks both files; `generation_config.json` may be missing.
    pub(super) fn read(folder: &Folder) -> Result<Self, Error> {
        let config: Option<ConfigFile> = folder.json("config.json")?;
        let config = config.ok_or_else(|| {
            let message = format!("{} has no config.json and is no Whisper model", folder.path().display());
            Error::new(ErrorKind::NotFound, message)
        })?;
        let generation: Option<GenerationFile> = folder.json("generation_config.json")?;
        Self::check(config, generation.unwrap_or_default())
            .map_err(|why| Error::bad_model(format!("{}: {why}", folder.path().display())))
    }

    fn check(config: ConfigFile, generation: GenerationFile) -> Result<Self, String> {
        let within = |name: &str, value: usize, allowed: std::ops::RangeInclusive<usize>| {
            let message = format!("config.json: `{name}` is {value}, expected a number in {allowed:?}");
            allowed.contains(&value).then_some(value).ok_or(message)
        };
        if config.model_type != "whisper" {
            return Err(format!("config.json: `model_type` is `{}`, expected `whisper`", config.model_type));
        }
        if ![80, 128].contains(&config.num_mel_bins) {
            return Err(format!(
                "config.json: `num_mel_bins` is {}, expected 80 or 128",
                config.num_mel_bins
            ));
        }
        let positions = WINDOW_FRAMES / FRAMES_PER_POSITION;
        within("max_source_positions", config.max_source_positions, positions..=positions)?;
        let layers = within("decoder_layers", config.decoder_layers, 1..=256)?;
        let heads = within("decoder_attention_heads", config.decoder_attention_heads, 1..=1024)?;
        let alignment_heads = generation.alignment_heads.unwrap_or_else(|| default_heads(layers, heads));
        if let Some((layer, head)) = alignment_heads.iter().find(|(l, h)| *l >= layers || *h >= heads) {
            return Err(format!(
                "generation_config.json: `alignment_heads` names head {head} of layer {layer}, \
                                the decoder has {layers} layers of {heads} heads"
            ));
        }
        Ok(Self {
            mels: config.num_mel_bins,
            context: within("max_target_positions", config.max_target_positions, 16..=65_536)?,
            layers,
            vocabulary: within("vocab_size", config.vocab_size, 2..=1 << 20)?,
            is_multilingual: generation
                .is_multilingual
                .unwrap_or(config.vocab_size >= MULTILINGUAL_VOCABULARY),
            suppressed: generation.suppress_tokens.unwrap_or_default(),
            suppressed_first: generation.begin_suppress_tokens,
            alignment_heads,
        })
    }
}

/// All heads of the later half of the layers, as in openai/whisper (`model.py`) where nothing better is known.
fn default_heads(layers: usize, heads: usize) -> Vec<(usize, usize)> {
    (layers / 2..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(changes: &[(&str, Value)], generation: Value) -> Result<ModelConfig, String> {
        let mut config = json!({"model_type": "whisper", "num_mel_bins": 80, "max_source_positions": 1500,
            "max_target_positions": 448, "decoder_layers": 4, "decoder_attention_heads": 2, "vocab_size": 51864});
        for (name, value) in changes {
            config[*name] = value.clone();
        }
        ModelConfig::check(
            serde_json::from_value(config).unwrap(),
            serde_json::from_value(generation).unwrap(),
        )
    }

    #[test]
    fn what_is_not_said_follows_from_the_size() {
        let english = config(&[], json!({})).unwrap();
        assert!(!english.is_multilingual);
        assert_eq!(english.alignment_heads, [(2, 0), (2, 1), (3, 0), (3, 1)]);
        assert!(config(&[("vocab_size", json!(51865))], json!({})).unwrap().is_multilingual);
        let said = config(&[], json!({"is_multilingual": true, "alignment_heads": [[1, 1]]})).unwrap();
        assert!(said.is_multilingual);
        assert_eq!(said.alignment_heads, [(1, 1)]);
    }

    #[test]
    fn impossible_numbers_are_named() {
        let cases = [
            (config(&[("model_type", json!("bert"))], json!({})), "`model_type` is `bert`"),
            (config(&[("num_mel_bins", json!(81))], json!({})), "`num_mel_bins` is 81"),
            (config(&[("max_source_positions", json!(750))], json!({})), "`max_source_positions` is 750"),
            (config(&[("decoder_layers", json!(0))], json!({})), "`decoder_layers` is 0"),
            (config(&[("vocab_size", json!(1u64 << 40))], json!({})), "`vocab_size` is"),
            (config(&[], json!({"alignment_heads": [[4, 0]]})), "names head 0 of layer 4"),
        ];
        for (config, expected) in cases {
            let message = config.unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
