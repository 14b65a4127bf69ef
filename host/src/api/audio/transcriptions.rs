//! `POST /v1/audio/transcriptions` and `POST /v1/audio/translations`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use pajamas_plugin_api::{Finish, Part, Request, Segment, Task, TranscribeParams, Usage};
use serde::Serialize;

use super::transcript::{DurationUsage, Granularities, Joiner, Transcript, TranscriptFormat};
use super::{cancelled, decode, gave_up, sound_file};
use crate::api::ApiState;
use crate::api::access::AccessRecord;
use crate::api::error::ApiError;
use crate::api::hooks;
use crate::api::json;
use crate::api::meta;
use crate::api::multipart::Form;
use crate::api::params::in_range;
use crate::api::sse::{self, Events, WriteEvents};
use crate::engine::{JobEvent, JobStream, LoadedModel};

/// Writes down what is said, in the language that is spoken.
///
/// # Errors
/// When the request is not valid, the sound cannot be read, the model cannot be used, or transcribing fails.
///
/// # Cancellation
/// The job is cancelled when the client goes away.
pub(in crate::api) async fn transcribe(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    form: Form,
) -> Result<Response, ApiError> {
    create(&state, record, TranscriptionSpec::read(&form, false)?).await
}

/// Writes down in English what is said in another language.
///
/// # Errors
/// As for [`transcribe`].
///
/// # Cancellation
/// As for [`transcribe`].
pub(in crate::api) async fn translate(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    form: Form,
) -> Result<Response, ApiError> {
    create(&state, record, TranscriptionSpec::read(&form, true)?).await
}

async fn create(
    state: &ApiState,
    record: Arc<AccessRecord>,
    spec: TranscriptionSpec,
) -> Result<Response, ApiError> {
    let sound = decode(state, spec.file).await?;
    let empty = Transcript {
        segments: Vec::new(),
        seconds: sound.seconds(),
        is_translation: spec.params.translate,
        temperature: spec.params.temperature,
    };
    let model = meta::acquire(state, &record, &spec.model, &Task::Transcribe).await?;
    let mut hooks = hooks::begin(state, &record, &model, &spec.model, &Task::Transcribe).await?;
    let (sound, starts_at_s) = hooks::sound(&mut hooks, sound).await?;
    let job = submit(&model, &spec.params, sound.samples, record.deadline_ms(state.limits), &record)?;
    let heard = hooks::segments(heard(job), hooks, starts_at_s);
    let mut heard = Box::pin(heard.inspect_ok({
        let record = Arc::clone(&record);
        move |heard| {
            if let Heard::End(usage) = heard {
                record.add_prompt_tokens(usage.prompt_tokens);
                record.add_completion_tokens(usage.completion_tokens);
            }
        }
    }));
    if spec.stream {
        let first = heard.next().await.transpose()?;
        let events =
            TranscriptEvents { joiner: Joiner::default(), text: String::new(), usage: empty.usage() };
        return Ok(sse::response(stream::iter(first.map(Ok)).chain(heard), events, record));
    }
    let segments = collect(heard).await?;
    Ok(Transcript { segments, ..empty }.respond(spec.format))
}

/// Submits sound to a model.
///
/// # Errors
/// When the model takes no more jobs.
pub(super) fn submit(
    model: &LoadedModel,
    params: &TranscribeParams,
    samples: Vec<f32>,
    deadline_ms: u64,
    record: &AccessRecord,
) -> Result<JobStream, ApiError> {
    let request = Request {
        task: Task::Transcribe,
        params: json::params(params)?,
        parts: vec![Part::Pcm(samples)],
        deadline_ms: Some(deadline_ms),
    };
    Ok(model.submit(request, record.caller())?)
}

/// What a request asks for, valid.
#[derive(Debug)]
struct TranscriptionSpec {
    model: String,
    file: Bytes,
    params: TranscribeParams,
    format: TranscriptFormat,
    stream: bool,
}

impl TranscriptionSpec {
    fn read(form: &Form, translate: bool) -> Result<Self, ApiError> {
        refuse_unsupported(form)?;
        let stream = form.parse("stream", "true or false")?.unwrap_or(false);
        let format = format(form)?;
        if stream && !matches!(format, TranscriptFormat::Json | TranscriptFormat::Text) {
            let problem = "a stream is made of events with text: leave it out, or set it to \"json\"";
            return Err(ApiError::invalid("response_format", problem));
        }
        let temperature = form.parse("temperature", "a number from 0 to 1")?;
        let params = TranscribeParams {
            language: language(form)?,
            translate,
            word_times: matches!(format, TranscriptFormat::Verbose(Granularities { words: true, .. })),
            prompt: form.text("prompt")?,
            temperature: in_range("temperature", temperature, 0.0..=1.0, 0.0)?,
            seed: 0,
        };
        Ok(Self {
            model: meta::model_name(form.text("model")?)?,
            file: sound_file(form)?,
            params,
            format,
            stream,
        })
    }
}

/// The field `language`: a code of ISO 639-1, or of 639-3 for a language that has none.
pub(super) fn language(form: &Form) -> Result<Option<String>, ApiError> {
    let Some(language) = form.text("language")? else { return Ok(None) };
    let is_code = (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_lowercase());
    if !is_code {
        return Err(ApiError::invalid("language", "expected a code of ISO 639-1, such as \"en\""));
    }
    Ok(Some(language))
}

const GRANULARITIES: &str = "timestamp_granularities[]";

fn format(form: &Form) -> Result<TranscriptFormat, ApiError> {
    let times = form.texts(GRANULARITIES)?;
    let format = match form.text("response_format")?.as_deref() {
        None | Some("json") => TranscriptFormat::Json,
        Some("text") => TranscriptFormat::Text,
        Some("srt") => TranscriptFormat::Srt,
        Some("vtt") => TranscriptFormat::Vtt,
        Some("verbose_json") => {
            let has = |name: &str| times.iter().any(|time| time == name);
            if let Some(other) = times.iter().find(|time| !matches!(time.as_str(), "segment" | "word")) {
                let problem = format_args!("expected \"segment\" or \"word\", got {other:?}");
                return Err(ApiError::invalid(GRANULARITIES, problem));
            }
            let granularities =
                Granularities { segments: times.is_empty() || has("segment"), words: has("word") };
            return Ok(TranscriptFormat::Verbose(granularities));
        }
        Some(_) => {
            let problem = "expected \"json\", \"text\", \"srt\", \"vtt\" or \"verbose_json\"";
            return Err(ApiError::invalid("response_format", problem));
        }
    };
    if !times.is_empty() {
        return Err(ApiError::invalid(GRANULARITIES, "needs \"verbose_json\" as response_format"));
    }
    Ok(format)
}

/// Options of OpenAI's API that have no meaning here, each with what to do instead.
fn refuse_unsupported(form: &Form) -> Result<(), ApiError> {
    let options = [
        ("include[]", "log-probabilities are in the segments of \"verbose_json\""),
        ("chunking_strategy", "leave it out: the model divides the sound"),
        ("known_speaker_names[]", "speakers are not told apart"),
        ("known_speaker_references[]", "speakers are not told apart"),
    ];
    match options.iter().find(|(name, _)| form.files(&[*name]).next().is_some()) {
        Some((name, hint)) => Err(ApiError::unsupported(*name, hint)),
        None => Ok(()),
    }
}

/// What a job tells.
#[derive(Debug, PartialEq)]
pub(in crate::api) enum Heard {
    Segment(Segment),
    End(Usage),
}

/// What a job tells, until it ends or fails.
pub(super) fn heard<S>(job: S) -> impl Stream<Item = Result<Heard, ApiError>>
where
    S: Stream<Item = JobEvent> + Unpin,
{
    stream::try_unfold(Some(job), async |job| {
        let Some(mut job) = job else { return Ok(None) };
        while let Some(event) = job.next().await {
            match event {
                JobEvent::Segment(json) => {
                    let segment = serde_json::from_str(&json).map_err(|error| malformed(&error))?;
                    return Ok(Some((Heard::Segment(segment), Some(job))));
                }
                JobEvent::Done { finish: Finish::Cancelled, .. } => return Err(cancelled()),
                JobEvent::Done { usage, .. } => return Ok(Some((Heard::End(usage), None))),
                JobEvent::Failed(error) => return Err(error.into()),
                _ => {}
            }
        }
        Err(gave_up())
    })
}

/// The segments, when the job is done.
pub(super) async fn collect(
    heard: impl Stream<Item = Result<Heard, ApiError>>,
) -> Result<Vec<Segment>, ApiError> {
    let segment = |heard| {
        std::future::ready(Ok(match heard {
            Heard::Segment(segment) => Some(segment),
            Heard::End(_) => None,
        }))
    };
    heard.try_filter_map(segment).try_collect().await
}

fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError::server("plugin_failed", format!("the plugin sent a segment of another schema: {error}"))
}

/// OpenAI's events of a streamed transcript.
struct TranscriptEvents {
    joiner: Joiner,
    text: String,
    usage: DurationUsage,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum TranscriptEvent<'a> {
    #[serde(rename = "transcript.text.delta")]
    Delta { delta: &'a str },
    #[serde(rename = "transcript.text.done")]
    Done { text: &'a str, usage: DurationUsage },
}

impl WriteEvents<Heard> for TranscriptEvents {
    fn update(&mut self, heard: Heard, events: &mut Events) {
        if let Heard::Segment(segment) = heard {
            let delta = self.joiner.next(&segment.text);
            self.text += &delta;
            events.push(&TranscriptEvent::Delta { delta: &delta });
        }
    }

    fn end(&mut self, events: &mut Events) {
        events.push(&TranscriptEvent::Done { text: &self.text, usage: self.usage });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::api::testing::done;

    const GOOD: [(&str, &[u8]); 2] = [("model", b"m"), ("file", b"RIFF")];

    fn read(fields: &[(&str, &str)]) -> Result<TranscriptionSpec, ApiError> {
        let fields = fields.iter().map(|(name, text)| (*name, text.as_bytes()));
        TranscriptionSpec::read(&Form::of(&fields.chain(GOOD).collect::<Vec<_>>()), false)
    }

    #[test]
    fn options_reach_the_plugin() {
        let spec = read(&[
            ("language", "de"),
            ("prompt", "Grüße"),
            ("temperature", "0.5"),
            ("response_format", "verbose_json"),
            (GRANULARITIES, "word"),
        ])
        .unwrap();
        let params = TranscribeParams {
            language: Some("de".into()),
            translate: false,
            word_times: true,
            prompt: Some("Grüße".into()),
            temperature: 0.5,
            seed: 0,
        };
        assert_eq!(spec.params, params);
        assert_eq!(spec.format, TranscriptFormat::Verbose(Granularities { segments: false, words: true }));
        let plain = read(&[]).unwrap();
        assert_eq!(
            (plain.format, plain.stream, plain.params),
            (TranscriptFormat::Json, false, TranscribeParams::default())
        );
        assert!(TranscriptionSpec::read(&Form::of(&GOOD), true).unwrap().params.translate);
    }

    #[test]
    fn wrong_fields_are_named() {
        type Fields<'a> = &'a [(&'a str, &'a str)];
        let table: [(Fields<'_>, &str, &str); 11] = [
            (&[("language", "English")], "language", "ISO 639-1"),
            (&[("temperature", "2")], "temperature", "from 0 to 1"),
            (&[("temperature", "warm")], "temperature", "a number"),
            (&[("response_format", "xml")], "response_format", "\"verbose_json\""),
            (&[("response_format", "diarized_json")], "response_format", "\"verbose_json\""),
            (&[("response_format", "srt"), ("stream", "true")], "response_format", "a stream"),
            (&[("stream", "maybe")], "stream", "true or false"),
            (&[(GRANULARITIES, "word")], GRANULARITIES, "needs \"verbose_json\""),
            (&[("response_format", "verbose_json"), (GRANULARITIES, "day")], GRANULARITIES, "got \"day\""),
            (&[("include[]", "logprobs")], "include[]", "not supported"),
            (&[("file", "second")], "file", "expected one file"),
        ];
        for (fields, param, message) in table {
            let error = read(fields).unwrap_err();
            assert_eq!(error.param(), Some(param), "{error}");
            assert!(error.to_string().contains(message), "{error}");
        }
        for (missing, form) in
            [("model", [("file", b"x".as_slice())]), ("file", [("model", b"m".as_slice())])]
        {
            assert_eq!(TranscriptionSpec::read(&Form::of(&form), false).unwrap_err().param(), Some(missing));
        }
    }

    fn segment(text: &str) -> JobEvent {
        JobEvent::Segment(json!({"start_s": 0, "end_s": 1, "text": text}).to_string())
    }

    #[test]
    fn segments_are_collected_until_the_end() {
        let run = |events| collect(heard(stream::iter(events))).now_or_never().unwrap();
        let segments = run(vec![segment("a"), segment("b"), done(Finish::Stop, 0)]).unwrap();
        assert_eq!(segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let table = [
            (vec![segment("a")], "plugin_failed"),
            (vec![JobEvent::Segment("{}".into())], "plugin_failed"),
            (vec![done(Finish::Cancelled, 0)], "cancelled"),
            (vec![JobEvent::Failed(crate::engine::EngineError::ShuttingDown)], "shutting_down"),
        ];
        for (events, code) in table {
            assert_eq!(run(events).unwrap_err().code(), code);
        }
    }

    #[test]
    fn a_stream_is_made_of_openais_events() {
        let usage = Transcript { seconds: 1.5, ..Transcript::default() }.usage();
        let mut events = TranscriptEvents { joiner: Joiner::default(), text: String::new(), usage };
        let mut written = Events::default();
        for text in ["Hello.", "You"] {
            let segment = Segment { text: text.into(), ..Segment::default() };
            events.update(Heard::Segment(segment), &mut written);
        }
        events.end(&mut written);
        let expected = [
            json!({"type": "transcript.text.delta", "delta": "Hello."}),
            json!({"type": "transcript.text.delta", "delta": " You"}),
            json!({"type": "transcript.text.done", "text": "Hello. You", "usage": {"type": "duration", "seconds": 2}}),
        ];
        assert_eq!(written.values(), expected);
    }
}
