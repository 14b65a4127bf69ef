//! `POST /v1/completions`, OpenAI's legacy interface: the prompt goes to the model as it is.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use pajamas_plugin_api::Task;
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::access::AccessRecord;
use super::decoder::{Decoder, FinishReason, Update};
use super::envelope::{Document, Envelope};
use super::error::ApiError;
use super::generation::{self, Answer, Format, Generation, UsageBody};
use super::hooks;
use super::json::{JsonBody, Present};
use super::limits::{CHOICES_MAX, COMPLETION_TOKENS_DEFAULT, TOP_LOGPROBS_MAX};
use super::logprobs::CompletionLogprobs;
use super::meta::{self, Meta};
use super::params::{GenerateOptions, GenerateSpec, in_range, refuse};
use super::prompts::{Prompt, Prompts};
use super::sse::{Events, WriteEvents};

/// Completes one or more prompts.
///
/// Control tokens in a prompt are control tokens: whoever uses this route writes the whole prompt, template included,
/// as for other servers.
///
/// # Errors
/// When the request is not valid, the model cannot be used, or generation fails before anything was sent.
///
/// # Cancellation
/// The jobs are cancelled when the client goes away, also before the first token.
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let mut spec = CompletionSpec::read(&body)?;
    drop(body);
    let model = meta::acquire(&state, &record, &spec.generate.model, &Task::Generate).await?;
    let mut hooks = hooks::begin(&state, &record, &model, &spec.generate.model, &Task::Generate).await?;
    hooks::refuse_logprobs(&hooks, spec.generate.params.top_logprobs.is_some())?;
    hooks::prompts(&mut hooks, "prompt", &mut spec.prompts).await?;
    let meta = Meta::new("cmpl-", spec.generate.model.clone(), &model);
    let format = CompletionFormat::new(meta, &spec);
    let streams = spec.generate.stream.is_some();
    let prompts = spec.prompts.into_iter().map(|prompt| vec![prompt.into_part(true)]).collect();
    let jobs = generation::submit(&model, &spec.generate, prompts, state.limits, &record)?;
    let decoder = || Decoder::new(spec.generate.stops.clone(), None, format.logprobs);
    let jobs = jobs.into_iter().map(|job| (job, decoder())).collect();
    Generation::new(jobs, record).respond(streams, format, hooks).await
}

/// What a request asks for, valid.
#[derive(Debug)]
struct CompletionSpec {
    generate: GenerateSpec,
    prompts: Vec<Prompt>,
    /// Whether the text begins with the prompt.
    echo: bool,
}

/// The fields that only legacy completions have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionBody {
    prompt: Option<Prompts>,
    echo: Option<bool>,
    logprobs: Option<u32>,
    best_of: Option<u32>,
    suffix: Option<Present>,
}

impl CompletionSpec {
    fn read(body: &JsonBody) -> Result<Self, ApiError> {
        let mut generate = body.read::<GenerateOptions>()?.check(Some(COMPLETION_TOKENS_DEFAULT))?;
        let body = body.read::<CompletionBody>()?;
        refuse(&[("suffix", &body.suffix, "leave it out")])?;
        if body.best_of.is_some_and(|best_of| best_of != generate.n) {
            return Err(ApiError::unsupported("best_of", "leave it out or set it to the value of n"));
        }
        if body.logprobs.is_some() {
            generate.params.top_logprobs =
                Some(in_range("logprobs", body.logprobs, 0..=TOP_LOGPROBS_MAX, 0)?);
        }
        let prompts = Prompts::check(body.prompt, "prompt", CHOICES_MAX)?;
        if prompts.len() * generate.n as usize > CHOICES_MAX {
            let problem = format_args!("at most {CHOICES_MAX} answers to all prompts together are allowed");
            return Err(ApiError::invalid("n", problem));
        }
        let echo = body.echo.unwrap_or(false);
        if echo && body.logprobs.is_some() {
            return Err(ApiError::unsupported(
                "echo",
                "the tokens of a prompt have no logprobs here: leave one out",
            ));
        }
        if echo && prompts.iter().any(|prompt| matches!(prompt, Prompt::Tokens(_))) {
            return Err(ApiError::unsupported("echo", "only prompts that are text can be repeated"));
        }
        Ok(Self { generate, prompts, echo })
    }
}

/// Writes the answers to one request.
struct CompletionFormat {
    envelope: Envelope,
    logprobs: bool,
    answers_per_prompt: usize,
    /// By answer: the prompt, until it was repeated.
    echoes: Vec<Option<String>>,
    usage: UsageBody,
}

impl CompletionFormat {
    fn new(meta: Meta, spec: &CompletionSpec) -> Self {
        let answers_per_prompt = spec.generate.n as usize;
        let echo = |prompt: &Prompt| match prompt {
            Prompt::Text(text) if spec.echo => Some(text.clone()),
            _ => None,
        };
        let echoes =
            spec.prompts.iter().flat_map(|prompt| std::iter::repeat_n(echo(prompt), answers_per_prompt));
        Self {
            envelope: Envelope::new(meta, "text_completion", spec.generate.stream),
            logprobs: spec.generate.params.top_logprobs.is_some(),
            answers_per_prompt,
            echoes: echoes.collect(),
            usage: UsageBody::default(),
        }
    }

    /// The prompt the first time that answer `index` is written, when it is to be repeated.
    fn echo(&mut self, index: usize) -> String {
        self.echoes.get_mut(index).and_then(Option::take).unwrap_or_default()
    }
}

impl WriteEvents<Update> for CompletionFormat {
    fn update(&mut self, update: Update, events: &mut Events) {
        let index = update.index;
        let text = self.echo(index) + &update.text;
        if !text.is_empty() || !update.tokens.is_empty() {
            let logprobs = self.logprobs.then(|| CompletionLogprobs::new(&update.tokens));
            self.envelope.push(events, &[Choice { index, text, logprobs, finish_reason: None }]);
        }
        if let Some(end) = update.end {
            self.usage.add(index, self.answers_per_prompt, end.usage);
            let choice =
                Choice { index, text: String::new(), logprobs: None, finish_reason: Some(end.reason) };
            self.envelope.push(events, &[choice]);
        }
    }

    fn end(&mut self, events: &mut Events) {
        self.envelope.push_usage(events, self.usage);
    }
}

impl Format for CompletionFormat {
    type Document = Document<Choice>;

    fn document(mut self, answers: Vec<Answer>) -> Document<Choice> {
        let usage = UsageBody::sum(&answers, self.answers_per_prompt);
        let choices = answers.into_iter().enumerate().map(|(index, answer)| Choice {
            index,
            text: self.echo(index) + &answer.text,
            logprobs: self.logprobs.then(|| CompletionLogprobs::new(&answer.tokens)),
            finish_reason: answer.reason,
        });
        let choices = choices.collect();
        self.envelope.document(choices, usage)
    }
}

#[derive(Debug, Serialize)]
struct Choice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<FinishReason>,
}

#[cfg(test)]
mod tests;
