//! What `transcribe` sends: segments of a transcript, as in the schema `transcribe_result`.

use serde::{Deserialize, Serialize};

/// A stretch of speech, sent as the JSON of a `SEGMENT` event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Where it begins, in seconds from the beginning of the sound.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// What is said; spaces at its ends mean nothing.
    pub text: String,
    /// The language, as ISO 639-1 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Mean of the natural logarithms of the tokens' probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avg_logprob: Option<f64>,
    /// Probability that nobody speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_speech_probability: Option<f64>,
    /// Tokens of the text, as the model has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// Length of the text in relation to its length compressed: the greater, the more it repeats itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression_ratio: Option<f64>,
    /// The temperature at which it was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Where the window begins in which it was heard, in steps of 10 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seek: Option<u64>,
    /// The words, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

/// One word of a segment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Where it begins, in seconds from the beginning of the sound.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// How sure the model is of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}
