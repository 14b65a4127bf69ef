//! `POST /v1/audio/speech`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use pajamas_plugin_api::{Finish, Part, Request, SpeakParams, Task, Usage};
use serde::{Deserialize, Serialize};

use super::encoder::Encoder;
use super::updates::{Outlet, Updates, sound_response};
use super::{cancelled, gave_up, sound_format, streams_events};
use crate::api::ApiState;
use crate::api::access::AccessRecord;
use crate::api::error::ApiError;
use crate::api::hooks;
use crate::api::json::{self, JsonBody, Present};
use crate::api::limits::SPEECH_BYTES_MAX;
use crate::api::meta;
use crate::api::params::{in_range, refuse};
use crate::api::sse::{self, Events, WriteEvents};
use crate::engine::JobEvent;
use crate::media::AudioFormat;

/// Speaks a text. The answer begins with the first sound that the plugin makes; until then a failure is told by the
/// status.
///
/// # Errors
/// When the request is not valid, the model cannot be used, or speaking fails before there was sound.
///
/// # Cancellation
/// The job is cancelled when the client goes away.
pub(in crate::api) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let mut spec = SpeechSpec::read(&body)?;
    drop(body);
    let model = meta::acquire(&state, &record, &spec.model, &Task::Speak).await?;
    let mut hooks = hooks::begin(&state, &record, &model, &spec.model, &Task::Speak).await?;
    hooks::texts(&mut hooks, vec![("input", &mut spec.input)]).await?;
    let request = Request {
        task: Task::Speak,
        params: json::params(&spec.params)?,
        parts: vec![Part::text(spec.input)],
        deadline_ms: Some(record.deadline_ms(state.limits)),
    };
    let job = model.submit(request, record.caller())?;
    let (format, payer) = (spec.format, Arc::clone(&record));
    let mut spoken = Updates::of(move |outlet| speak(job, Encoder::new(format), outlet, payer));
    let first = spoken.next().await.transpose()?;
    let spoken = stream::iter(first.map(Ok)).chain(spoken);
    if spec.events {
        return Ok(sse::response(spoken, SpeechEvents, record));
    }
    let chunks = spoken.filter_map(|spoken| {
        std::future::ready(match spoken {
            Ok(Spoken::Sound(bytes)) => Some(Ok(bytes)),
            Ok(Spoken::End(_)) => None,
            Err(error) => Some(Err(error)),
        })
    });
    Ok(sound_response(chunks, spec.format, record))
}

/// What a request asks for, valid.
#[derive(Debug)]
struct SpeechSpec {
    model: String,
    input: String,
    params: SpeakParams,
    format: AudioFormat,
    events: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpeechBody {
    model: Option<String>,
    input: Option<String>,
    voice: Option<String>,
    speed: Option<f32>,
    response_format: Option<String>,
    stream_format: Option<String>,
    instructions: Option<Present>,
}

impl SpeechSpec {
    fn read(body: &JsonBody) -> Result<Self, ApiError> {
        let body = body.read::<SpeechBody>()?;
        refuse(&[("instructions", &body.instructions, "choose a voice and a speed")])?;
        let input = body.input.ok_or_else(|| ApiError::missing("input", "the text to speak"))?;
        if input.trim().is_empty() {
            return Err(ApiError::invalid("input", "must not be empty"));
        }
        if input.len() > SPEECH_BYTES_MAX {
            let problem = format_args!("expected at most {SPEECH_BYTES_MAX} bytes, got {}", input.len());
            return Err(ApiError::invalid("input", problem));
        }
        Ok(Self {
            model: meta::model_name(body.model)?,
            input,
            params: speak_params(body.voice, body.speed)?,
            format: sound_format(body.response_format.as_deref())?,
            events: streams_events(body.stream_format.as_deref())?,
        })
    }
}

/// How to speak; which voices there are, only the plugin knows.
pub(super) fn speak_params(voice: Option<String>, speed: Option<f32>) -> Result<SpeakParams, ApiError> {
    let voice = voice.filter(|voice| !voice.is_empty());
    Ok(SpeakParams { voice, speed: in_range("speed", speed, 0.25..=4.0, 1.0)? })
}

#[derive(Debug, PartialEq)]
enum Spoken {
    /// More of the file.
    Sound(Bytes),
    /// It was the last.
    End(Usage),
}

/// Encodes the sound of a job until it ends.
async fn speak<S>(
    mut job: S,
    mut encoder: Encoder,
    outlet: Outlet<Spoken>,
    payer: Arc<AccessRecord>,
) -> Result<(), ApiError>
where
    S: Stream<Item = JobEvent> + Unpin,
{
    while let Some(event) = job.next().await {
        match event {
            JobEvent::Audio { samples, sample_rate_hz, channels } => {
                let bytes = encoder.push(samples, sample_rate_hz, channels).await?;
                if !bytes.is_empty() {
                    outlet.put(Spoken::Sound(bytes)).await;
                }
            }
            JobEvent::Done { finish: Finish::Cancelled, .. } => return Err(cancelled()),
            JobEvent::Done { usage, .. } => {
                payer.add_prompt_tokens(usage.prompt_tokens);
                let nothing = || ApiError::invalid("input", "there is nothing in it that can be spoken");
                let bytes = encoder.finish().await?.ok_or_else(nothing)?;
                outlet.put(Spoken::Sound(bytes)).await;
                outlet.put(Spoken::End(usage)).await;
                return Ok(());
            }
            JobEvent::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    Err(gave_up())
}

/// OpenAI's events.
struct SpeechEvents;

#[derive(Serialize)]
#[serde(tag = "type")]
enum SpeechEvent {
    #[serde(rename = "speech.audio.delta")]
    Delta { audio: String },
    #[serde(rename = "speech.audio.done")]
    Done { usage: SpeechUsage },
}

#[derive(Serialize)]
struct SpeechUsage {
    input_tokens: u32,
    output_tokens: u32,
    total_tokens: u32,
}

impl WriteEvents<Spoken> for SpeechEvents {
    fn update(&mut self, spoken: Spoken, events: &mut Events) {
        match spoken {
            Spoken::Sound(bytes) if bytes.is_empty() => {}
            Spoken::Sound(bytes) => events.push(&SpeechEvent::Delta { audio: BASE64_STANDARD.encode(bytes) }),
            Spoken::End(usage) => {
                let Usage { prompt_tokens: input_tokens, completion_tokens: output_tokens, .. } = usage;
                let total_tokens = input_tokens.saturating_add(output_tokens);
                events.push(&SpeechEvent::Done {
                    usage: SpeechUsage { input_tokens, output_tokens, total_tokens },
                });
            }
        }
    }

    fn end(&mut self, _events: &mut Events) {}
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::testing;

    #[test]
    fn wrong_fields_are_named() {
        let good =
            json!({"model": "m", "input": "hello", "voice": "amy", "speed": 2, "response_format": "opus"});
        let spec = SpeechSpec::read(&good.clone().into()).unwrap();
        assert_eq!(spec.params, SpeakParams { voice: Some("amy".into()), speed: 2.0 });
        assert_eq!((spec.format, spec.events), (AudioFormat::Opus, false));
        let long = "x".repeat(SPEECH_BYTES_MAX + 1);
        let table = [
            ("model", Value::Null, "missing"),
            ("input", Value::Null, "missing"),
            ("input", json!(" "), "must not be empty"),
            ("input", json!(long), "at most 65536 bytes"),
            ("voice", json!(3), "expected a string"),
            ("speed", json!(9), "from 0.25 to 4"),
            ("speed", json!("fast"), "expected a number"),
            ("response_format", json!("mp3"), "expected one of opus, flac, wav, pcm"),
            ("stream_format", json!("mp3"), "\"sse\""),
            ("instructions", json!("be nice"), "not supported"),
        ];
        for (field, value, message) in table {
            let mut body = good.clone();
            body[field] = value;
            let error = SpeechSpec::read(&body.into()).unwrap_err();
            assert_eq!(error.param(), Some(field), "{error}");
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    async fn spoken(events: Vec<JobEvent>) -> Result<Vec<Spoken>, ApiError> {
        let record = Arc::new(AccessRecord::new(tracing::Span::none(), false));
        let encoder = Encoder::new(AudioFormat::Wav);
        let updates = Updates::of(|outlet| speak(stream::iter(events), encoder, outlet, record));
        updates.collect::<Vec<_>>().await.into_iter().collect()
    }

    fn sound() -> JobEvent {
        JobEvent::Audio { samples: vec![0.0; 160], sample_rate_hz: 16_000, channels: 1 }
    }

    #[tokio::test]
    async fn sound_is_handed_on_as_it_comes_and_the_end_is_told() {
        let all = spoken(vec![sound(), sound(), testing::done(Finish::Stop, 0)]).await.unwrap();
        assert_eq!(all.len(), 4);
        assert!(matches!(&all[0], Spoken::Sound(bytes) if bytes.len() == 44 + 320));
        assert!(matches!(all[3], Spoken::End(usage) if usage.prompt_tokens == 3));
        let mut events = Events::default();
        all.into_iter().for_each(|spoken| SpeechEvents.update(spoken, &mut events));
        let types: Vec<Value> = events.values();
        let types: Vec<&str> = types.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["speech.audio.delta", "speech.audio.delta", "speech.audio.done"]);
    }

    #[tokio::test]
    async fn a_job_that_fails_or_says_nothing_is_an_error() {
        let table = [
            (vec![testing::done(Finish::Stop, 0)], "invalid_value"),
            (vec![sound(), testing::done(Finish::Cancelled, 0)], "cancelled"),
            (vec![sound(), JobEvent::Failed(crate::engine::EngineError::ShuttingDown)], "shutting_down"),
            (vec![sound()], "plugin_failed"),
        ];
        for (events, code) in table {
            assert_eq!(spoken(events).await.unwrap_err().code(), code);
        }
    }
}
