//! The answers of one request: one job each, merged as their events come, written as one document or as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, SelectAll};
use futures_util::{Stream, StreamExt};
use pajamas_plugin_api::{GenerateParams, Part, Request, Task, Usage};
use serde::Serialize;

use super::access::AccessRecord;
use super::decoder::{Decoder, FinishReason, Update};
use super::error::ApiError;
use super::hooks;
use super::json;
use super::limits::Limits;
use super::logprobs::TokenInfo;
use super::params::GenerateSpec;
use super::sse::{self, WriteEvents};
use crate::engine::{JobEvent, JobStream, LoadedModel};
use crate::hooks::HookChain;

/// How one kind of answer is written.
pub(super) trait Format: WriteEvents<Update> {
    /// The answer as one document.
    type Document: Serialize;
    /// Makes that document of complete answers.
    fn document(self, answers: Vec<Answer>) -> Self::Document;
}

/// All updates of all answers, in the order in which they come; those of one answer keep their order. The first
/// failure ends it.
///
/// # Cancellation
/// Dropping it drops, and thereby cancels, the jobs that still run.
pub(super) struct Generation<S> {
    answers: SelectAll<AnswerStream<S>>,
    count: usize,
    record: Arc<AccessRecord>,
}

/// One complete answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// The text.
    pub(super) text: String,
    /// The tool calls.
    pub(super) calls: Vec<Call>,
    /// The tokens; empty unless asked for.
    pub(super) tokens: Vec<TokenInfo>,
    /// Why it ended.
    pub(super) reason: Option<FinishReason>,
    /// What it cost.
    pub(super) usage: Usage,
}

/// One complete tool call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Its identifier.
    pub(super) id: String,
    /// The function.
    pub(super) name: String,
    /// The arguments as JSON text.
    pub(super) arguments: String,
}

/// The updates of one answer.
struct AnswerStream<S> {
    index: usize,
    /// Dropped, and thereby cancelled, as soon as the answer is complete.
    job: Option<S>,
    decoder: Decoder,
}

/// OpenAI's `usage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct UsageBody {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u64,
}

/// Submits `spec.n` jobs for each prompt. The seed of the i-th answer to a prompt is the request's plus i, so that the
/// answers differ and each can be had again.
///
/// # Errors
/// When the model takes no more jobs; those submitted before are cancelled.
pub(super) fn submit(
    model: &LoadedModel,
    spec: &GenerateSpec,
    prompts: Vec<Vec<Part>>,
    limits: Limits,
    record: &AccessRecord,
) -> Result<Vec<JobStream>, ApiError> {
    let mut jobs = Vec::with_capacity(prompts.len() * spec.n as usize);
    for parts in prompts {
        for answer in 0..spec.n {
            let params =
                GenerateParams { seed: spec.params.seed.wrapping_add(answer.into()), ..spec.params.clone() };
            let params = json::params(&params)?;
            let deadline_ms = Some(record.deadline_ms(limits));
            let request = Request { task: Task::Generate, params, parts: parts.clone(), deadline_ms };
            jobs.push(model.submit(request, record.caller())?);
        }
    }
    Ok(jobs)
}

impl<S: Stream<Item = JobEvent> + Unpin + Send + 'static> Generation<S> {
    /// Answers that come from these jobs, numbered in this order.
    pub(super) fn new(jobs: Vec<(S, Decoder)>, record: Arc<AccessRecord>) -> Self {
        let count = jobs.len();
        let answers = jobs.into_iter().enumerate();
        let answers = answers.map(|(index, (job, decoder))| AnswerStream { index, job: Some(job), decoder });
        Self { answers: stream::select_all(answers), count, record }
    }

    /// Writes the answers in `format`.
    ///
    /// A stream begins when its first update is there: until then a failure is still told by the status.
    ///
    /// # Errors
    /// When a job fails; for a stream, only before it began.
    ///
    /// # Cancellation
    /// All jobs are cancelled when the future or the body of the response is dropped.
    pub(super) async fn respond<F>(
        self,
        stream: bool,
        format: F,
        hooks: HookChain,
    ) -> Result<Response, ApiError>
    where
        F: Format + Unpin + Send + 'static,
    {
        let (count, record) = (self.count, Arc::clone(&self.record));
        let mut updates = hooks::answers(self, hooks);
        if !stream {
            return Ok(Json(format.document(collect(updates, count).await?)).into_response());
        }
        let first = updates.next().await.transpose()?;
        Ok(sse::response(stream::iter(first.map(Ok)).chain(updates), format, record))
    }
}

impl<S: Stream<Item = JobEvent> + Unpin> Generation<S> {
    /// Ends an answer, and returns what it has cost so far.
    pub(super) fn stop(&mut self, index: usize) -> Usage {
        let answer = self.answers.iter_mut().find(|answer| answer.index == index);
        answer.map(AnswerStream::stop).unwrap_or_default()
    }
}

/// The answers when they are complete.
async fn collect(
    mut updates: impl Stream<Item = Result<Update, ApiError>> + Unpin,
    count: usize,
) -> Result<Vec<Answer>, ApiError> {
    let mut answers: Vec<Answer> = std::iter::repeat_with(Answer::default).take(count).collect();
    while let Some(update) = updates.next().await.transpose()? {
        if let Some(answer) = answers.get_mut(update.index) {
            answer.add(update);
        }
    }
    Ok(answers)
}

impl<S> AnswerStream<S> {
    fn stop(&mut self) -> Usage {
        self.job = None;
        self.decoder.usage()
    }
}

impl<S: Stream<Item = JobEvent> + Unpin> Stream for Generation<S> {
    type Item = Result<Update, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let update = ready!(self.answers.poll_next_unpin(cx));
        match &update {
            Some(Ok(update)) => {
                self.record.add_completion_tokens(update.token_count);
                if let Some(end) = update.end {
                    self.record.add_prompt_tokens(end.usage.prompt_tokens);
                }
            }
            Some(Err(_)) => self.answers.clear(),
            None => {}
        }
        Poll::Ready(update)
    }
}

impl<S: Stream<Item = JobEvent> + Unpin> Stream for AnswerStream<S> {
    type Item = Result<Update, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let this = &mut *self;
            let Some(job) = &mut this.job else { return Poll::Ready(None) };
            let update = match ready!(job.poll_next_unpin(cx)) {
                Some(event) => this.decoder.event(event),
                None => Err(ApiError::server(
                    "plugin_failed",
                    "the plugin gave up on this request without a reason",
                )),
            };
            let Some(mut update) = update.transpose() else { continue };
            match &mut update {
                Ok(update) => {
                    update.index = this.index;
                    if update.end.is_some() {
                        this.job = None;
                    }
                }
                Err(_) => this.job = None,
            }
            return Poll::Ready(Some(update));
        }
    }
}

impl Answer {
    fn add(&mut self, update: Update) {
        self.text += &update.text;
        self.tokens.extend(update.tokens);
        for delta in update.calls {
            if let Some((id, name)) = delta.start {
                self.calls.push(Call { id, name, arguments: String::new() });
            }
            if let Some(call) = self.calls.get_mut(delta.index) {
                call.arguments += &delta.arguments;
            }
        }
        if let Some(end) = update.end {
            self.reason = Some(end.reason);
            self.usage = end.usage;
        }
    }
}

impl UsageBody {
    /// Adds what answer `index` cost. A prompt with `answers_per_prompt` answers counts once, as it does for OpenAI.
    pub(super) fn add(&mut self, index: usize, answers_per_prompt: usize, usage: Usage) {
        if index.is_multiple_of(answers_per_prompt) {
            self.prompt_tokens += u64::from(usage.prompt_tokens);
            self.prompt_tokens_details.cached_tokens += u64::from(usage.cached_tokens);
        }
        self.completion_tokens += u64::from(usage.completion_tokens);
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }

    /// The sum over complete answers.
    pub(super) fn sum(answers: &[Answer], answers_per_prompt: usize) -> Self {
        let mut sum = Self::default();
        answers
            .iter()
            .enumerate()
            .for_each(|(index, answer)| sum.add(index, answers_per_prompt, answer.usage));
        sum
    }
}

#[cfg(test)]
mod tests;
