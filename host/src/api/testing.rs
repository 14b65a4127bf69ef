//! What the tests of answers share.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use pajamas_plugin_api::{Finish, Usage};

use super::access::AccessRecord;
use super::decoder::Decoder;
use super::error::ApiError;
use super::generation::{Format, Generation};
use super::meta::Meta;
use crate::engine::{JobEvent, TokenLogprob};
use crate::hooks::HookChain;
use crate::text::StopMatcher;

/// The head of answers, without chance and time.
pub(super) fn meta() -> Meta {
    Meta { id: "id".into(), created: 7, model: "m".into(), fingerprint: "pajamas-p-1.0.0".into() }
}

/// A token of this text.
pub(super) fn token(text: &str) -> JobEvent {
    let alternative = TokenLogprob { token: 2, logprob: -1.5, text: Bytes::from_static(b"x") };
    let token = TokenLogprob { token: 1, logprob: -0.5, text: Bytes::copy_from_slice(text.as_bytes()) };
    JobEvent::Token { token, top: vec![alternative] }
}

/// The end of a job with a prompt of three tokens, one of them cached.
pub(super) fn done(finish: Finish, completion_tokens: u32) -> JobEvent {
    JobEvent::Done { finish, usage: Usage { prompt_tokens: 3, cached_tokens: 1, completion_tokens } }
}

/// A decoder for plain text.
pub(super) fn plain(logprobs: bool) -> Decoder {
    Decoder::new(StopMatcher::new::<&str>(&[]).unwrap(), None, logprobs)
}

/// The body of the answer to jobs with these events, or the error before it began.
pub(super) fn respond<F>(
    jobs: Vec<(Vec<JobEvent>, Decoder)>,
    stream: bool,
    format: F,
) -> Result<String, ApiError>
where
    F: Format + Unpin + Send + 'static,
{
    let record = Arc::new(AccessRecord::new(tracing::Span::none(), false));
    let jobs = jobs.into_iter().map(|(events, decoder)| (stream::iter(events), decoder)).collect();
    let response = Generation::new(jobs, record)
        .respond(stream, format, HookChain::default())
        .now_or_never()
        .unwrap()?;
    Ok(text(response))
}

/// The data of each event of a stream.
pub(super) fn events(stream: &str) -> Vec<&str> {
    stream.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect()
}

/// The body of a response that needs no waiting.
pub(super) fn text(response: Response) -> String {
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).now_or_never().unwrap().unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}
