//! The options of a Piper voice.

use std::path::PathBuf;

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest silence between two sentences.
const SILENCE_MAX_MS: u32 = 10_000;

/// Every field has a default; an unknown field is an error that names it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    /// Variation of the sound; 0 makes the same text sound the same. Default: the voice's.
    pub(super) noise_scale: Option<f32>,
    /// Variation of the rhythm. Default: the voice's.
    pub(super) noise_w: Option<f32>,
    /// Length of each phoneme as a multiple of what the network was trained for. Default: the voice's.
    pub(super) length_scale: Option<f32>,
    /// Silence between two sentences: that of the `piper` program in C++.
    pub(super) sentence_silence_ms: u32,
    /// The library of espeak-ng. Default: the plugin's own, else the system's.
    pub(super) espeak_library: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            noise_scale: None,
            noise_w: None,
            length_scale: None,
            sentence_silence_ms: 200,
            espeak_library: None,
        }
    }
}

impl Options {
    /// Reads options and checks their ranges.
    ///
    /// # Errors
    /// An option is unknown or has a wrong value; the message names it and what is allowed.
    pub(super) fn parse(map: &Map<String, Value>) -> Result<Self, Error> {
        let options: Self = options::parse(map)?;
        options::check_ranges([
            ("noise_scale", options.noise_scale, 0.0..=2.0),
            ("noise_w", options.noise_w, 0.0..=2.0),
            ("length_scale", options.length_scale, 0.1..=10.0),
        ])?;
        let silence_ms = Some(options.sentence_silence_ms);
        options::check_ranges([("sentence_silence_ms", silence_ms, 0..=SILENCE_MAX_MS)])?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        let cases = [
            (r#"{"noise": 1}"#, "unknown field `noise`, expected one of `noise_scale`"),
            (r#"{"noise_w": "low"}"#, "option `noise_w`: invalid type: string"),
            (r#"{"noise_scale": -1}"#, "option `noise_scale` is -1, expected 0 to 2"),
            (r#"{"length_scale": 0}"#, "option `length_scale` is 0, expected 0.1 to 10"),
            (
                r#"{"sentence_silence_ms": 60000}"#,
                "option `sentence_silence_ms` is 60000, expected 0 to 10000",
            ),
        ];
        for (options, expected) in cases {
            let message = Options::parse(&serde_json::from_str(options).unwrap()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(Options::parse(&Map::new()).unwrap(), Options::default());
    }
}
