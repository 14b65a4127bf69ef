//! A job as the rest of the host sees it: a stream of owned events that ends with exactly one terminal event.

use bytes::Bytes;
use pajamas_plugin_api::{Dtype, Finish, Usage};
use serde::{Deserialize, Serialize};

use super::error::EngineError;

/// One alternative of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Token id.
    pub token: u32,
    /// Natural logarithm of the probability.
    pub logprob: f32,
    /// The token's bytes; may end inside a code point.
    pub text: Bytes,
}

/// A named output tensor in host memory, contiguous and row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputTensor {
    /// Name of the output.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<i64>,
    /// The elements in native byte order.
    pub data: Bytes,
}

/// One event of a job.
#[derive(Clone, Debug)]
pub enum JobEvent {
    /// A generated token.
    Token {
        /// The token with its log-probability (0 unless asked for) and its bytes (may be empty).
        token: TokenLogprob,
        /// The most probable alternatives, best first; empty unless asked for.
        top: Vec<TokenLogprob>,
    },
    /// A transcribed segment: JSON.
    Segment(String),
    /// A chunk of sound: interleaved samples in -1..1.
    Audio {
        /// Interleaved samples.
        samples: Vec<f32>,
        /// Frames per second.
        sample_rate_hz: u32,
        /// Interleaved channels.
        channels: u32,
    },
    /// Detected objects: JSON.
    Detections(String),
    /// A vector for input `index`.
    Vector {
        /// Number of the input, from 0.
        index: u32,
        /// The components.
        values: Vec<f32>,
    },
    /// Named tensors.
    Tensors(Vec<OutputTensor>),
    /// Progress of the job.
    Progress {
        /// 0 to 1.
        fraction: f32,
        /// What is being done.
        text: String,
    },
    /// Running token counts.
    Usage(Usage),
    /// A JSON answer for input `index`.
    Result {
        /// Number of the input, from 0.
        index: u32,
        /// The JSON document.
        json: String,
    },
    /// Terminal: the job succeeded.
    Done {
        /// Why it ended.
        finish: Finish,
        /// Final counts.
        usage: Usage,
    },
    /// Terminal: the job failed.
    Failed(EngineError),
}

impl JobEvent {
    /// Whether nothing follows this event.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed(_))
    }
}
