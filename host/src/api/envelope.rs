//! What surrounds the choices of an answer, in one document or in a chunk of a stream.

use serde::Serialize;

use super::generation::UsageBody;
use super::meta::Meta;
use super::params::Streaming;
use super::sse::Events;

/// The surroundings of one answer.
#[derive(Debug)]
pub(super) struct Envelope {
    meta: Meta,
    object: &'static str,
    include_usage: bool,
}

impl Envelope {
    /// For documents or chunks that say they are an `object`.
    pub(super) fn new(meta: Meta, object: &'static str, streaming: Option<Streaming>) -> Self {
        let include_usage = streaming.is_some_and(|streaming| streaming.include_usage);
        Self { meta, object, include_usage }
    }

    /// Writes a chunk with these choices.
    pub(super) fn push<C: Serialize>(&self, events: &mut Events, choices: &[C]) {
        events.push(&self.chunk(choices, None));
    }

    /// Writes the chunk without choices that tells the usage, if the client asked for one.
    pub(super) fn push_usage(&self, events: &mut Events, usage: UsageBody) {
        if self.include_usage {
            events.push(&self.chunk::<()>(&[], Some(usage)));
        }
    }

    fn chunk<'a, C>(&'a self, choices: &'a [C], usage: Option<UsageBody>) -> Chunk<'a, C> {
        Chunk {
            id: &self.meta.id,
            object: self.object,
            created: self.meta.created,
            model: &self.meta.model,
            system_fingerprint: &self.meta.fingerprint,
            choices,
            usage: self.include_usage.then_some(usage),
        }
    }

    /// The document with these choices.
    pub(super) fn document<C>(self, choices: Vec<C>, usage: UsageBody) -> Document<C> {
        Document {
            id: self.meta.id,
            object: self.object,
            created: self.meta.created,
            model: self.meta.model,
            system_fingerprint: self.meta.fingerprint.to_string(),
            choices,
            usage,
        }
    }
}

#[derive(Debug, Serialize)]
struct Chunk<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [C],
    /// Absent unless asked for; then null in every chunk but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageBody>>,
}

/// All answers of a request.
#[derive(Debug, Serialize)]
pub(super) struct Document<C> {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<C>,
    usage: UsageBody,
}
