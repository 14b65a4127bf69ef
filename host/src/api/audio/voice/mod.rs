//! `POST /v1/audio/chat`: somebody says something, and hears the answer.
//!
//! Three models in a row, overlapped: what was said is transcribed, a model for text answers, and its first sentence is
//! spoken while it still writes the next.

mod request;
mod talk;

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt as _, stream};
use pajamas_plugin_api::Task;
use serde::Serialize;

use self::request::VoiceSpec;
use self::talk::{Heard, Said, Summary, Talk, TalkHooks, Timings};
use super::updates::{Updates, sound_response};
use super::{decode, encoder};
use crate::api::ApiState;
use crate::api::access::AccessRecord;
use crate::api::error::ApiError;
use crate::api::hooks;
use crate::api::meta;
use crate::api::multipart::Form;
use crate::api::sse::{self, Events, WriteEvents};

/// Answers speech with speech. As events, the answer begins with the transcript; as sound, with the first sound: until
/// then a failure is told by the status.
///
/// # Errors
/// When the request is not valid, the sound cannot be read or has no speech in it, a model cannot be used, or one of them
/// fails before the answer began.
///
/// # Cancellation
/// All jobs are cancelled when the client goes away.
pub(in crate::api) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    form: Form,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let mut spec = VoiceSpec::read(&form)?;
    drop(form);
    // The log names the model that answers.
    record.set_model(&spec.generate.model);
    let sound = decode(&state, std::mem::take(&mut spec.file)).await?;
    let acquire = |name, task| meta::acquire(&state, &record, name, task);
    let (stt, llm, tts) = tokio::try_join!(
        acquire(&spec.transcription_model, &Task::Transcribe),
        acquire(&spec.generate.model, &Task::Generate),
        acquire(&spec.speech_model, &Task::Speak),
    )?;
    let begin = |model, name, task| hooks::begin(&state, &record, model, name, task);
    let mut hooks = TalkHooks {
        stt: begin(&stt, &spec.transcription_model, &Task::Transcribe).await?,
        llm: begin(&llm, &spec.generate.model, &Task::Generate).await?,
        tts: begin(&tts, &spec.speech_model, &Task::Speak).await?,
    };
    let (sound, _) = hooks::sound(&mut hooks.stt, sound).await?;
    let (format, events) = (spec.format, spec.events);
    let talk = Talk {
        stt,
        llm,
        tts,
        hooks,
        spec,
        limits: state.limits,
        record: Arc::clone(&record),
        started,
        timings: Timings::after_loading(started),
        encoder: encoder::Encoder::new(format),
    };
    let mut said = Updates::of(|outlet| talk.run(sound.samples, outlet));
    if events {
        let first = said.next().await.transpose()?;
        let said = stream::iter(first.map(Ok)).chain(said);
        return Ok(sse::response(said, VoiceEvents, record));
    }
    let mut timings = None;
    let first = loop {
        match said.next().await.transpose()? {
            Some(Said::Sound { bytes, timings: so_far }) => {
                timings = Some(so_far);
                break Some(Ok(bytes));
            }
            Some(_) => {}
            None => break None,
        }
    };
    let rest = said.filter_map(|said| {
        std::future::ready(match said {
            Ok(Said::Sound { bytes, .. }) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    });
    let mut response = sound_response(stream::iter(first).chain(rest), format, record);
    let timings = timings.and_then(|timings| HeaderValue::try_from(timings.to_string()).ok());
    if let Some(timings) = timings {
        response.headers_mut().insert("server-timing", timings);
    }
    Ok(response)
}

/// The events of a spoken answer; the names are those of OpenAI's interfaces where these have such events.
struct VoiceEvents;

#[derive(Serialize)]
#[serde(tag = "type")]
enum VoiceEvent {
    #[serde(rename = "transcript.text.done")]
    Transcript { text: String, language: Option<String> },
    #[serde(rename = "response.text.delta")]
    Text { delta: String },
    #[serde(rename = "response.audio.delta")]
    Sound { delta: String },
    #[serde(rename = "response.done")]
    Done(Box<Summary>),
}

impl WriteEvents<Said> for VoiceEvents {
    fn update(&mut self, said: Said, events: &mut Events) {
        events.push(&match said {
            Said::Transcript(Heard { text, language }) => VoiceEvent::Transcript { text, language },
            Said::Text(delta) => VoiceEvent::Text { delta },
            Said::Sound { bytes, .. } if bytes.is_empty() => return,
            Said::Sound { bytes, .. } => VoiceEvent::Sound { delta: BASE64_STANDARD.encode(bytes) },
            Said::End(summary) => VoiceEvent::Done(summary),
        });
    }

    fn end(&mut self, _events: &mut Events) {}
}
