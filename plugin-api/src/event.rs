//! Events: what a plugin tells the host about a job, as safe Rust values.

use crate::error::ErrorKind;
use crate::tensor::TensorView;

/// Answer to a pushed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// The job is cancelled: stop soon and send the terminal event.
    Cancelled,
}

/// Why a job ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended by itself.
    #[default]
    Stop,
    /// `max_tokens` or the end of the context was reached.
    Length,
    /// The job was cancelled.
    Cancelled,
}

/// Token counts of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the prompt whose computation was reused.
    pub cached_tokens: u32,
    /// Tokens generated, those of `resume` included.
    pub completion_tokens: u32,
}

/// One alternative of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopLogprob<'a> {
    /// Token id.
    pub token: u32,
    /// Natural logarithm of the probability.
    pub logprob: f32,
    /// The token's bytes; may end inside a code point.
    pub text: &'a [u8],
}

/// One event. Borrowed: the receiver copies what it keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// A generated token.
    Token {
        /// Token id.
        token: u32,
        /// The token's bytes; may end inside a code point, may be empty.
        text: &'a [u8],
        /// Natural logarithm of the probability, 0 unless asked for.
        logprob: f32,
        /// The most probable alternatives, best first; empty unless asked for.
        top: &'a [TopLogprob<'a>],
    },
    /// A transcribed segment, JSON as in the schema of `transcribe`.
    Segment {
        /// The JSON document.
        json: &'a str,
    },
    /// A chunk of sound.
    Audio {
        /// Interleaved samples in -1..1.
        samples: &'a [f32],
        /// Frames per second.
        sample_rate_hz: u32,
        /// Interleaved channels.
        channels: u32,
    },
    /// Detected objects of one picture, JSON as in the schema of `detect`.
    Detections {
        /// The JSON document.
        json: &'a str,
    },
    /// A vector for one of the inputs.
    Vector {
        /// Number of the input, from 0.
        index: u32,
        /// The components.
        values: &'a [f32],
    },
    /// Named tensors.
    Tensors(Vec<TensorView<'a>>),
    /// Progress of a long call.
    Progress {
        /// 0 to 1.
        fraction: f32,
        /// What is being done.
        text: &'a str,
    },
    /// Running token counts.
    Usage(Usage),
    /// A JSON answer.
    Result {
        /// Number of the input, from 0.
        index: u32,
        /// The JSON document.
        json: &'a str,
    },
    /// Terminal: the job succeeded.
    Done {
        /// Why it ended.
        finish: Finish,
        /// Final counts.
        usage: Usage,
    },
    /// Terminal: the job failed.
    Error {
        /// What kind of failure.
        kind: ErrorKind,
        /// Message for the user.
        message: &'a str,
    },
    /// A kind of a newer minor version; receivers ignore it.
    Other {
        /// The unknown kind.
        kind: u32,
    },
}

impl Event<'_> {
    /// Whether nothing may follow this event.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Error { .. })
    }
}

/// Receives the events of one job or call, on whatever thread the plugin pushes from; never blocks.
pub trait EventSink: Send + Sync {
    /// Takes one event, copying what it keeps.
    fn push(&self, event: &Event<'_>) -> Flow;
    /// Whether the job or call is cancelled.
    fn cancelled(&self) -> bool;
}
