//! One turn of a spoken conversation: from the sound of a question to the sound of its answer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use pajamas_plugin_api::{Finish, Part, Request, Task};
use serde::Serialize;

use super::request::VoiceSpec;
use crate::api::access::AccessRecord;
use crate::api::audio::encoder::Encoder;
use crate::api::audio::transcript::Joiner;
use crate::api::audio::updates::Outlet;
use crate::api::audio::{cancelled, gave_up, transcriptions};
use crate::api::chat;
use crate::api::decoder::{Decoder, FinishReason, Update};
use crate::api::error::ApiError;
use crate::api::generation::{self, Generation, UsageBody};
use crate::api::hooks;
use crate::api::json;
use crate::api::limits::Limits;
use crate::chat::{ChatMessage, Role};
use crate::engine::{JobEvent, JobStream, LoadedModel};
use crate::hooks::HookChain;
use crate::text::SentenceSplitter;

/// What happens in a turn, as it happens.
#[derive(Debug)]
pub(super) enum Said {
    /// What the client said.
    Transcript(Heard),
    /// More of the answer's text.
    Text(String),
    /// More of the answer's sound; how long things took until then.
    Sound { bytes: Bytes, timings: Timings },
    /// It was the last.
    End(Box<Summary>),
}

/// What the client said.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) text: String,
    pub(super) language: Option<String>,
}

/// The turn in one document.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    transcript: String,
    #[serde(flatten)]
    written: Written,
    timings: Timings,
}

/// The answer's text.
#[derive(Debug, Default, Serialize)]
struct Written {
    text: String,
    finish_reason: Option<FinishReason>,
    usage: UsageBody,
}

/// How long things took, in milliseconds; `None` for what has not happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Timings {
    /// From the request to the sound decoded and the models loaded.
    load_ms: u64,
    /// Transcribing.
    stt_ms: Option<u64>,
    /// From the transcript to the first text of the answer.
    llm_first_token_ms: Option<u64>,
    /// From the request to the first sound of the answer.
    first_audio_ms: Option<u64>,
    /// From the request to the end.
    total_ms: Option<u64>,
}

impl Timings {
    /// At the end of loading.
    pub(super) fn after_loading(started: Instant) -> Self {
        Self { load_ms: ms_since(started), ..Self::default() }
    }
}

/// As in the header `Server-Timing`, <https://www.w3.org/TR/server-timing/>.
impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "load;dur={}", self.load_ms)?;
        let rest = [
            ("stt", self.stt_ms),
            ("llm-first-token", self.llm_first_token_ms),
            ("first-audio", self.first_audio_ms),
        ];
        rest.iter()
            .filter_map(|(name, ms)| ms.map(|ms| (name, ms)))
            .try_for_each(|(name, ms)| write!(f, ", {name};dur={ms}"))
    }
}

fn ms_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The hooks of the three models.
pub(super) struct TalkHooks {
    pub(super) stt: HookChain,
    pub(super) llm: HookChain,
    pub(super) tts: HookChain,
}

/// A turn, ready to run.
pub(super) struct Talk {
    /// The model that transcribes.
    pub(super) stt: LoadedModel,
    /// The model that answers.
    pub(super) llm: LoadedModel,
    /// The model that speaks.
    pub(super) tts: LoadedModel,
    pub(super) hooks: TalkHooks,
    pub(super) spec: VoiceSpec,
    pub(super) limits: Limits,
    pub(super) record: Arc<AccessRecord>,
    pub(super) started: Instant,
    pub(super) timings: Timings,
    pub(super) encoder: Encoder,
}

impl Talk {
    /// Runs the turn.
    ///
    /// # Errors
    /// There is no speech in the sound, or a model failed.
    ///
    /// # Cancellation
    /// Dropping the future cancels all jobs.
    pub(super) async fn run(mut self, question: Vec<f32>, outlet: Outlet<Said>) -> Result<(), ApiError> {
        let heard = self.listen(question).await?;
        let transcript = heard.text.clone();
        outlet.put(Said::Transcript(heard)).await;
        let mut messages = std::mem::take(&mut self.spec.history);
        messages.push(ChatMessage::new(Role::User, transcript.as_str()));
        let mut hooks = std::mem::take(&mut self.hooks.llm);
        hooks::conversation(&mut hooks, &mut messages).await?;
        let answer = self.answer(&messages, hooks)?;
        let written = self.speak_while_writing(answer, &outlet).await?;
        let rest = self.encoder.finish().await?;
        let nothing =
            || ApiError::server("plugin_failed", "the model's answer has no word in it that can be spoken");
        self.hand_on(rest.ok_or_else(nothing)?, &outlet).await;
        self.timings.total_ms = Some(ms_since(self.started));
        let timings = self.timings;
        tracing::debug!(%timings, "a spoken answer is complete");
        outlet.put(Said::End(Box::new(Summary { transcript, written, timings }))).await;
        Ok(())
    }

    async fn listen(&mut self, question: Vec<f32>) -> Result<Heard, ApiError> {
        let began = Instant::now();
        let params = &self.spec.transcribe;
        let job = transcriptions::submit(&self.stt, params, question, self.deadline_ms(), &self.record)?;
        let hooks = std::mem::take(&mut self.hooks.stt);
        let heard = hooks::segments(transcriptions::heard(job), hooks, 0.0);
        let segments = transcriptions::collect(heard).await?;
        self.timings.stt_ms = Some(ms_since(began));
        let mut joiner = Joiner::default();
        let text: String = segments.iter().map(|segment| joiner.next(&segment.text)).collect();
        if text.is_empty() {
            return Err(ApiError::invalid("file", "no speech was heard in it"));
        }
        Ok(Heard { text, language: segments.into_iter().find_map(|segment| segment.language) })
    }

    fn answer(
        &self,
        messages: &[ChatMessage],
        hooks: HookChain,
    ) -> Result<BoxStream<'static, Result<Update, ApiError>>, ApiError> {
        let parts = chat::prompt(&self.llm, messages)?;
        let limits = Limits { deadline_ms: self.deadline_ms(), ..self.limits };
        let jobs = generation::submit(&self.llm, &self.spec.generate, vec![parts], limits, &self.record)?;
        let decoder = || Decoder::new(self.spec.generate.stops.clone(), None, false);
        let jobs = jobs.into_iter().map(|job| (job, decoder())).collect();
        Ok(hooks::answers(Generation::new(jobs, Arc::clone(&self.record)), hooks))
    }

    /// Takes the answer's text as it comes, and speaks its sentences one after the other meanwhile.
    async fn speak_while_writing<S>(
        &mut self,
        mut answer: S,
        outlet: &Outlet<Said>,
    ) -> Result<Written, ApiError>
    where
        S: Stream<Item = Result<Update, ApiError>> + Unpin,
    {
        let began = Instant::now();
        let mut splitter = Some(SentenceSplitter::new());
        let mut sentences = VecDeque::new();
        let mut speaking = None;
        let mut written = Written::default();
        loop {
            if speaking.is_none() {
                speaking = match sentences.pop_front() {
                    Some(sentence) => Some(self.say(sentence).await?),
                    None => None,
                };
            }
            if speaking.is_none() && splitter.is_none() {
                return Ok(written);
            }
            tokio::select! {
                // Sound first: somebody waits for it.
                biased;
                event = next(&mut speaking), if speaking.is_some() => {
                    if self.sound(event, outlet).await? {
                        speaking = None;
                    }
                }
                update = answer.next(), if splitter.is_some() => {
                    let update = update.ok_or_else(gave_up)??;
                    self.timings.llm_first_token_ms.get_or_insert_with(|| ms_since(began));
                    sentences.extend(splitter.as_mut().map(|s| s.push(&update.text)).unwrap_or_default());
                    if let Some(end) = update.end {
                        sentences.extend(splitter.take().and_then(SentenceSplitter::finish));
                        written.usage.add(0, 1, end.usage);
                        written.finish_reason = Some(end.reason);
                    }
                    sentences.retain(|sentence| sentence.contains(char::is_alphanumeric));
                    written.text += &update.text;
                    if !update.text.is_empty() {
                        outlet.put(Said::Text(update.text)).await;
                    }
                }
            }
        }
    }

    async fn say(&mut self, mut sentence: String) -> Result<JobStream, ApiError> {
        hooks::texts(&mut self.hooks.tts, vec![("input", &mut sentence)]).await?;
        let request = Request {
            task: Task::Speak,
            params: json::params(&self.spec.speak)?,
            parts: vec![Part::text(sentence)],
            deadline_ms: Some(self.deadline_ms()),
        };
        Ok(self.tts.submit(request, self.record.caller())?)
    }

    /// Takes an event of a sentence that is being spoken. Returns whether it was the last one.
    async fn sound(&mut self, event: Option<JobEvent>, outlet: &Outlet<Said>) -> Result<bool, ApiError> {
        match event.ok_or_else(gave_up)? {
            JobEvent::Audio { samples, sample_rate_hz, channels } => {
                let bytes = self.encoder.push(samples, sample_rate_hz, channels).await?;
                self.hand_on(bytes, outlet).await;
                Ok(false)
            }
            JobEvent::Done { finish: Finish::Cancelled, .. } => Err(cancelled()),
            JobEvent::Done { .. } => Ok(true),
            JobEvent::Failed(error) => Err(error.into()),
            _ => Ok(false),
        }
    }

    async fn hand_on(&mut self, bytes: Bytes, outlet: &Outlet<Said>) {
        if !bytes.is_empty() {
            self.timings.first_audio_ms.get_or_insert_with(|| ms_since(self.started));
            outlet.put(Said::Sound { bytes, timings: self.timings }).await;
        }
    }

    /// What is left of the time that the whole turn may take.
    fn deadline_ms(&self) -> u64 {
        self.record.deadline_ms(self.limits).saturating_sub(ms_since(self.started)).max(1)
    }
}

async fn next(job: &mut Option<JobStream>) -> Option<JobEvent> {
    job.as_mut()?.next().await
}
