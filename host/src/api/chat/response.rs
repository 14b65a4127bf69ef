//! Chat answers as documents and as streams of chunks.

use serde::Serialize;

use crate::api::decoder::{CallDelta, FinishReason, Update};
use crate::api::envelope::{Document, Envelope};
use crate::api::generation::{Answer, Call, Format, UsageBody};
use crate::api::logprobs::ChatLogprobs;
use crate::api::meta::Meta;
use crate::api::params::Streaming;
use crate::api::sse::{Events, WriteEvents};

/// Writes the answers to one chat request.
pub(super) struct ChatFormat {
    envelope: Envelope,
    logprobs: bool,
    /// Which answers have begun to stream.
    begun: Vec<bool>,
    usage: UsageBody,
}

impl ChatFormat {
    /// A format for `n` answers; with `logprobs` they tell their tokens.
    pub(super) fn new(meta: Meta, streaming: Option<Streaming>, n: u32, logprobs: bool) -> Self {
        let object = if streaming.is_some() { "chat.completion.chunk" } else { "chat.completion" };
        Self {
            envelope: Envelope::new(meta, object, streaming),
            logprobs,
            begun: (0..n).map(|_| false).collect(),
            usage: UsageBody::default(),
        }
    }

    /// The first chunk of an answer tells who speaks.
    fn begin(&mut self, index: usize, events: &mut Events) {
        if let Some(begun) = self.begun.get_mut(index)
            && !*begun
        {
            *begun = true;
            let delta = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
            self.envelope.push(events, &[ChunkChoice { index, delta, logprobs: None, finish_reason: None }]);
        }
    }
}

impl WriteEvents<Update> for ChatFormat {
    fn update(&mut self, update: Update, events: &mut Events) {
        let index = update.index;
        self.begin(index, events);
        if !update.text.is_empty() || !update.calls.is_empty() || !update.tokens.is_empty() {
            let says_something = !update.text.is_empty() || update.calls.is_empty();
            let delta = Delta {
                role: None,
                content: says_something.then_some(&*update.text),
                tool_calls: update.calls.iter().map(CallChunk::new).collect(),
            };
            let logprobs = self.logprobs.then(|| ChatLogprobs::new(&update.tokens));
            self.envelope.push(events, &[ChunkChoice { index, delta, logprobs, finish_reason: None }]);
        }
        if let Some(end) = update.end {
            self.usage.add(index, self.begun.len(), end.usage);
            let choice = ChunkChoice {
                index,
                delta: Delta::default(),
                logprobs: None,
                finish_reason: Some(end.reason),
            };
            self.envelope.push(events, &[choice]);
        }
    }

    fn end(&mut self, events: &mut Events) {
        self.envelope.push_usage(events, self.usage);
    }
}

impl Format for ChatFormat {
    type Document = Document<Choice>;

    fn document(self, answers: Vec<Answer>) -> Document<Choice> {
        let usage = UsageBody::sum(&answers, self.begun.len());
        let choices = answers.into_iter().enumerate().map(|(index, answer)| Choice {
            index,
            logprobs: self.logprobs.then(|| ChatLogprobs::new(&answer.tokens)),
            finish_reason: answer.reason,
            message: Message {
                role: "assistant",
                content: (!answer.text.is_empty() || answer.calls.is_empty()).then_some(answer.text),
                refusal: None,
                tool_calls: answer.calls.into_iter().map(CallBody::new).collect(),
            },
        });
        self.envelope.document(choices.collect(), usage)
    }
}

#[derive(Debug, Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<FinishReason>,
}

#[derive(Debug, Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallChunk<'a>>,
}

#[derive(Debug, Serialize)]
struct CallChunk<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionChunk<'a>,
}

#[derive(Debug, Serialize)]
struct FunctionChunk<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> CallChunk<'a> {
    fn new(delta: &'a CallDelta) -> Self {
        let start = delta.start.as_ref();
        Self {
            index: delta.index,
            id: start.map(|(id, _)| &**id),
            kind: start.map(|_| "function"),
            function: FunctionChunk { name: start.map(|(_, name)| &**name), arguments: &delta.arguments },
        }
    }
}

/// One answer in a document.
#[derive(Debug, Serialize)]
pub(super) struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<FinishReason>,
}

#[derive(Debug, Serialize)]
struct Message {
    role: &'static str,
    content: Option<String>,
    /// Refusals are not told apart here.
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallBody>,
}

#[derive(Debug, Serialize)]
struct CallBody {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionBody,
}

#[derive(Debug, Serialize)]
struct FunctionBody {
    name: String,
    arguments: String,
}

impl CallBody {
    fn new(call: Call) -> Self {
        let function = FunctionBody { name: call.name, arguments: call.arguments };
        Self { id: call.id, kind: "function", function }
    }
}

#[cfg(test)]
mod tests;
