//! The options of a model, as written in `model.toml` or given at load.

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Slots when none are asked for.
pub const SLOTS_DEFAULT: u32 = 8;
/// Most slots.
pub const SLOTS_MAX: u32 = 256;
/// Longest sequence when none is asked for, if the model was trained for it.
pub const CONTEXT_DEFAULT: u32 = 4096;
/// Prompt tokens of one step on the CPU while several requests run.
const PREFILL_CHUNK_CPU: u32 = 64;

/// Options of one model. Every field has a default; an unknown field is an error that names it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Longest sequence (prompt and output) of one request, in tokens. Default: the smaller of 4096 and what the model
    /// was trained for.
    pub context: Option<u32>,
    /// Requests that are computed at the same time, 1 to 256.
    pub slots: u32,
    /// Requests that may wait for a slot; one more is refused as overloaded.
    pub queue: u32,
    /// Most tokens of one step, all requests together.
    pub batch: u32,
    /// While several requests run, a step begins no further prompt after so many tokens of prompts, and reads no more of
    /// one prompt. Default: 64 on the CPU, `batch` on a GPU.
    pub prefill_chunk: Option<u32>,
    /// Where it is computed. Default: the GPU where MLX has one.
    pub device: Device,
    /// In which numbers it is computed. Default: as stored on a GPU, `float32` on the CPU.
    pub compute: Compute,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            context: None,
            slots: SLOTS_DEFAULT,
            queue: 256,
            batch: 512,
            prefill_chunk: None,
            device: Device::Auto,
            compute: Compute::Auto,
        }
    }
}

/// Where a model is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The GPU where there is one.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU; an error where there is none.
    Gpu,
}

/// In which numbers a model is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compute {
    /// As stored on a GPU, `float32` on the CPU.
    Auto,
    /// As the checkpoint has them: half precision, or packed matrices.
    Stored,
    /// All weights become 32-bit floats when they are loaded, packed matrices too: 4 bytes a parameter. MLX's CPU kernels
    /// compute half precision and packed matrices an order of magnitude slower.
    Float32,
}

impl Compute {
    /// Whether weights are converted, on a GPU or not.
    #[must_use]
    pub fn is_float32(self, gpu: bool) -> bool {
        match self {
            Self::Auto => !gpu,
            Self::Stored => false,
            Self::Float32 => true,
        }
    }
}

impl Options {
    /// Reads the options of a load.
    ///
    /// # Errors
    /// A field is unknown, of the wrong type or out of range; the message names it.
    pub fn parse(map: &Map<String, Value>) -> Result<Self, Error> {
        let options: Self = options::parse(map)?;
        options::check_ranges([
            ("slots", Some(options.slots), 1..=SLOTS_MAX),
            ("batch", Some(options.batch), 1..=1 << 16),
            ("queue", Some(options.queue), 0..=1 << 20),
            ("context", options.context, 1..=1 << 24),
            ("prefill_chunk", options.prefill_chunk, 1..=1 << 16),
        ])?;
        if options.batch < options.slots {
            return Err(Error::invalid(format!(
                "option `batch` is {}, expected at least `slots`, which is {}",
                options.batch, options.slots
            )));
        }
        Ok(options)
    }

    /// The longest sequence of a model that was trained for `trained` tokens.
    #[must_use]
    pub fn context(&self, trained: u32) -> u32 {
        self.context.unwrap_or_else(|| trained.min(CONTEXT_DEFAULT))
    }

    /// Prompt tokens after which a step begins no further prompt.
    #[must_use]
    pub fn prefill_chunk(&self, gpu: bool) -> u32 {
        let default = if gpu { self.batch } else { PREFILL_CHUNK_CPU };
        self.prefill_chunk.unwrap_or(default).min(self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_by_name() {
        let parse =
            |text: &str| Options::parse(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap());
        assert_eq!(parse("{}").unwrap(), Options::default());
        assert_eq!(parse(r#"{"device": "cpu", "slots": 3}"#).unwrap().slots, 3);
        for (text, expected) in [
            (r#"{"slot": 3}"#, "unknown field `slot`"),
            (r#"{"slots": 0}"#, "option `slots` is 0, expected 1 to 256"),
            (r#"{"context": "long"}"#, "option `context`: invalid type"),
            (r#"{"device": "tpu"}"#, "option `device`: unknown variant `tpu`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
