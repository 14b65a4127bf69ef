//! The options of a decoder, beside those of its engine.

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest sequence when none is asked for, if the model was trained for it.
const CONTEXT_DEFAULT: u32 = 4096;

/// Options of text generation. Every field has a default; an unknown field is an error that names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoderOptions {
    /// Longest sequence (prompt and output) of one request, in tokens. Default: the smaller of 4096 and what the model
    /// was trained for.
    pub context: Option<u32>,
    /// Most tokens of one step, all requests together. A step's prompt has logits for each of its tokens.
    pub batch: u32,
    /// While several requests run, a step begins no further prompt after so many tokens of prompts, and reads no more of
    /// one prompt.
    pub prefill_chunk: u32,
}

impl Default for DecoderOptions {
    fn default() -> Self {
        Self { context: None, batch: 256, prefill_chunk: 64 }
    }
}

impl DecoderOptions {
    /// Reads the options that an engine left for the pipeline; `pipeline` and `variant` are for who finds the network.
    ///
    /// # Errors
    /// An option is unknown, of a wrong type or out of range, or `batch` is less than `slots`; the message names it.
    pub fn parse(map: &Map<String, Value>, slots: u32) -> Result<Self, Error> {
        let own = map.iter().filter(|(name, _)| !matches!(name.as_str(), "pipeline" | "variant"));
        let own: Map<String, Value> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
        let options: Self = options::parse_for(" of the generate pipeline", &own)?;
        options::check_ranges([
            ("context", options.context, 1..=1 << 24),
            ("batch", Some(options.batch), 1..=1 << 16),
            ("prefill_chunk", Some(options.prefill_chunk), 1..=1 << 16),
        ])?;
        if options.batch < slots {
            return Err(Error::invalid(format!(
                "option `batch` is {}, expected at least `slots`, which is {slots}",
                options.batch
            )));
        }
        Ok(options)
    }

    /// The longest sequence of a model that was trained for `trained` tokens.
    #[must_use]
    pub fn context(&self, trained: u32) -> u32 {
        self.context.unwrap_or_else(|| trained.min(CONTEXT_DEFAULT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_by_name() {
        let parse = |text: &str| DecoderOptions::parse(&serde_json::from_str(text).unwrap(), 8);
        assert_eq!(parse("{}").unwrap(), DecoderOptions::default());
        assert_eq!(
            parse(r#"{"pipeline": "generate", "variant": "fp16"}"#).unwrap(),
            DecoderOptions::default()
        );
        assert_eq!(parse(r#"{"context": 100}"#).unwrap().context(50), 100);
        assert_eq!([10_000, 50].map(|trained| DecoderOptions::default().context(trained)), [4096, 50]);
        for (text, expected) in [
            (r#"{"pooling": "mean"}"#, "`pooling`"),
            (r#"{"context": "long"}"#, "option `context` of the generate pipeline: invalid type"),
            (r#"{"prefill_chunk": 0}"#, "option `prefill_chunk` is 0, expected 1 to 65536"),
            (r#"{"batch": 7}"#, "option `batch` is 7, expected at least `slots`, which is 8"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
