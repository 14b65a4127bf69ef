//! The tasks of version 1 and their parameters. `SPEC.md` has the JSON schema of each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::tensor::Tensor;

/// What a model can do. Unknown names are kept, so that a plugin may offer a task of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Prompt in, tokens out.
    Generate,
    /// Texts in, one vector each out.
    Embed,
    /// A query and documents in, one score each out.
    Rerank,
    /// A picture in, boxes out.
    Detect,
    /// A picture in, labels out.
    Classify,
    /// A picture in, a vector out.
    EmbedImage,
    /// Sound in, timed segments out.
    Transcribe,
    /// Text in, sound out.
    Speak,
    /// Named tensors in and out.
    Infer,
    /// Text in, token ids out.
    Tokenize,
    /// A task of a newer version or of the plugin's own.
    #[serde(untagged)]
    Other(String),
}

impl Task {
    /// The task's name in the ABI, in manifests and in the API.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Generate => "generate",
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::Detect => "detect",
            Self::Classify => "classify",
            Self::EmbedImage => "embed_image",
            Self::Transcribe => "transcribe",
            Self::Speak => "speak",
            Self::Infer => "infer",
            Self::Tokenize => "tokenize",
            Self::Other(name) => name,
        }
    }

    /// The task of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "generate" => Self::Generate,
            "embed" => Self::Embed,
            "rerank" => Self::Rerank,
            "detect" => Self::Detect,
            "classify" => Self::Classify,
            "embed_image" => Self::EmbedImage,
            "transcribe" => Self::Transcribe,
            "speak" => Self::Speak,
            "infer" => Self::Infer,
            "tokenize" => Self::Tokenize,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A grammar that the output must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// A JSON value that is valid under this schema.
    JsonSchema {
        /// The schema.
        schema: serde_json::Value,
    },
    /// A grammar in llguidance's dialect of Lark.
    Lark {
        /// The grammar.
        text: String,
    },
}

/// Parameters of `generate`. The defaults are greedy-free sampling at temperature 1 without filters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateParams {
    /// Most tokens to generate, those of `resume` included; `None` means until the context is full.
    pub max_tokens: Option<u32>,
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Drop tokens less probable than this times the best one; 0 drops none.
    pub min_p: f32,
    /// Divides the logits of tokens seen in the last `repeat_last_n`; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Window of `repeat_penalty`, in tokens.
    pub repeat_last_n: u32,
    /// Subtracted per earlier occurrence in the output (OpenAI's definition).
    pub frequency_penalty: f32,
    /// Subtracted once if the token occurs in the output (OpenAI's definition).
    pub presence_penalty: f32,
    /// Key of the counter-based generator: the draw at output position i depends on (seed, i) only.
    pub seed: u64,
    /// Report the log-probability of each token, and of this many alternatives.
    pub top_logprobs: Option<u32>,
    /// Added to the logits of these tokens, -100 to 100; -100 or less bans.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The output must match this.
    pub grammar: Option<Grammar>,
    /// Go on after the end-of-text token.
    pub ignore_eos: bool,
    /// Report the texts of control tokens too, for a reader who finds tool calls by them.
    pub control_tokens: bool,
    /// Reuse the computation of a prefix seen before.
    pub cache_prompt: bool,
    /// Tokens already delivered: the job continues after them and must draw what an uninterrupted one would.
    pub resume: Vec<u32>,
}

impl Default for GenerateParams {
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
            top_logprobs: None,
            logit_bias: BTreeMap::new(),
            grammar: None,
            ignore_eos: false,
            control_tokens: false,
            cache_prompt: true,
            resume: Vec::new(),
        }
    }
}

/// Parameters of `embed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbedParams {
    /// Scale each vector to length 1.
    pub normalize: bool,
    /// Cut inputs that are longer than the context instead of refusing them.
    pub truncate: bool,
}

impl Default for EmbedParams {
    fn default() -> Self {
        Self { normalize: true, truncate: false }
    }
}

/// Parameters of `transcribe`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TranscribeParams {
    /// The language that is spoken, as ISO 639-1 has it; `None`: find out.
    pub language: Option<String>,
    /// Write English, whatever is spoken.
    pub translate: bool,
    /// Tell when each word is said.
    pub word_times: bool,
    /// Text that comes before, for names and style.
    pub prompt: Option<String>,
    /// 0 is greedy.
    pub temperature: f32,
    /// Of what is drawn at a temperature above 0.
    pub seed: u64,
}

/// Parameters of `speak`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpeakParams {
    /// Whose voice; `None`: the model's first.
    pub voice: Option<String>,
    /// How fast, as a multiple of the voice's own speed.
    pub speed: f32,
}

impl Default for SpeakParams {
    fn default() -> Self {
        Self { voice: None, speed: 1.0 }
    }
}

/// Parameters of `infer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InferParams {
    /// The outputs that are wanted, in this order; empty means all.
    pub outputs: Vec<String>,
}

/// A piece of a request's input.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Comes from the model's own template: control tokens in it are meant.
        trusted: bool,
    },
    /// Token ids.
    Tokens(Vec<u32>),
    /// A picture: RGB, 8 bits each, row by row.
    Rgb8 {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// `width * height * 3` bytes.
        data: Vec<u8>,
    },
    /// Mono sound at 16 kHz, samples in -1..1.
    Pcm(Vec<f32>),
    /// A named tensor.
    Tensor(Tensor),
    /// Bytes of a kind that the task names.
    Bytes(Vec<u8>),
}

impl Part {
    /// Untrusted text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), trusted: false }
    }
}

/// Parameters of a request: the text of a JSON object. It is read once, by whoever knows its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params(String);

impl Params {
    /// The parameters that `value` is written as.
    ///
    /// # Errors
    /// `value` cannot be written as JSON.
    pub fn new(value: &impl Serialize) -> Result<Self, Error> {
        let json = serde_json::to_string(value);
        json.map(Self).map_err(|e| Error::internal(format!("parameters cannot be written as JSON: {e}")))
    }

    /// Parameters that came as text.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn from_json(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let invalid = |why: &str| Error::invalid(format!("params_json is not a JSON object: {why}"));
        serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|e| invalid(&e.to_string()))?;
        if !text.trim_start().starts_with('{') {
            return Err(invalid("it is another kind of value"));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl Default for Params {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}

/// For an object; any other value is an error when it is read.
impl From<serde_json::Value> for Params {
    fn from(object: serde_json::Value) -> Self {
        Self(object.to_string())
    }
}

/// One request, as a model gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What to do.
    pub task: Task,
    /// The task's parameters.
    pub params: Params,
    /// The inputs, in the task's order.
    pub parts: Vec<Part>,
    /// Milliseconds from submission until the answer is useless.
    pub deadline_ms: Option<u64>,
}

impl Request {
    /// The parameters as a typed value, such as [`GenerateParams`].
    ///
    /// # Errors
    /// A parameter has a wrong type; the message names it.
    pub fn params<P: serde::de::DeserializeOwned>(&self) -> Result<P, Error> {
        serde_json::from_str(self.params.as_json())
            .map_err(|e| Error::invalid(format!("parameters of {}: {e}", self.task)))
    }

    /// The texts among the inputs, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_names_round_trip() {
        for name in ["generate", "embed_image", "infer", "my_own_task"] {
            let task = Task::from_name(name);
            assert_eq!(task.name(), name);
            let json = serde_json::to_string(&task).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<Task>(&json).unwrap(), task);
        }
    }

    #[test]
    fn wrong_parameter_type_is_named() {
        let request = Request {
            task: Task::Generate,
            params: Params::from_json(r#"{"temperature": "hot"}"#).unwrap(),
            parts: vec![],
            deadline_ms: None,
        };
        let message = request.params::<GenerateParams>().unwrap_err().to_string();
        assert!(message.starts_with("parameters of generate:"), "{message}");
    }

    #[test]
    fn parameters_are_a_json_object() {
        for text in ["", "[]", "3", "{", "{} {}", "null"] {
            let message = Params::from_json(text).unwrap_err().to_string();
            assert!(message.starts_with("params_json is not a JSON object:"), "{text}: {message}");
        }
        assert_eq!(Params::from_json(r#" {"a": 1}"#).unwrap().as_json(), r#" {"a": 1}"#);
    }
}
