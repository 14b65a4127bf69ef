//! The form of a spoken request, checked.

use bytes::Bytes;
use pajamas_plugin_api::{SpeakParams, TranscribeParams};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use crate::api::audio::speech::speak_params;
use crate::api::audio::transcriptions::language;
use crate::api::audio::{sound_file, sound_format, streams_events};
use crate::api::chat;
use crate::api::error::ApiError;
use crate::api::json::JsonBody;
use crate::api::multipart::Form;
use crate::api::params::{GenerateOptions, GenerateSpec};
use crate::chat::{ChatMessage, Role};
use crate::media::AudioFormat;

/// What a request asks for, valid.
#[derive(Debug)]
pub(super) struct VoiceSpec {
    /// What was said.
    pub(super) file: Bytes,
    /// The model that writes it down.
    pub(super) transcription_model: String,
    /// How.
    pub(super) transcribe: TranscribeParams,
    /// The model that answers, and how.
    pub(super) generate: GenerateSpec,
    /// What was said before, after the instructions.
    pub(super) history: Vec<ChatMessage>,
    /// The model that speaks.
    pub(super) speech_model: String,
    /// How.
    pub(super) speak: SpeakParams,
    /// What its sound is written as.
    pub(super) format: AudioFormat,
    /// Whether the answer is events rather than sound.
    pub(super) events: bool,
}

/// Options of the model that answers, as in a chat.
const NUMBERS: [&str; 5] = ["temperature", "top_p", "seed", "max_tokens", "max_completion_tokens"];

impl VoiceSpec {
    /// Reads and checks a form.
    ///
    /// # Errors
    /// With the name of the field at fault.
    pub(super) fn read(form: &Form) -> Result<Self, ApiError> {
        let model = |field: &str, what: &str| form.text(field)?.ok_or_else(|| ApiError::missing(field, what));
        Ok(Self {
            file: sound_file(form)?,
            transcription_model: model("transcription_model", "the name of a model that transcribes")?,
            transcribe: TranscribeParams { language: language(form)?, ..TranscribeParams::default() },
            generate: generate(form)?,
            history: history(form)?,
            speech_model: model("speech_model", "the name of a model that speaks")?,
            speak: speak_params(form.text("voice")?, form.parse("speed", "a number")?)?,
            format: sound_format(form.text("response_format")?.as_deref())?,
            events: streams_events(form.text("stream_format")?.as_deref())?,
        })
    }
}

/// The options of a chat, through the checks of a chat.
fn generate(form: &Form) -> Result<GenerateSpec, ApiError> {
    let mut options = Map::new();
    options.extend(form.text("model")?.map(|model| ("model".to_owned(), Value::String(model))));
    for name in NUMBERS {
        let number = form.parse::<Number>(name, "a number")?;
        options.extend(number.map(|number| (name.to_owned(), Value::Number(number))));
    }
    let body = Value::Object(options).to_string();
    JsonBody::from(Bytes::from(body)).read::<GenerateOptions>()?.check(None)
}

fn history(form: &Form) -> Result<Vec<ChatMessage>, ApiError> {
    let instructions = form.text("instructions")?.map(|text| ChatMessage::new(Role::System, text));
    let mut history: Vec<ChatMessage> = instructions.into_iter().collect();
    if let Some(messages) = form.text("messages")? {
        let wrong = |_| ApiError::invalid("messages", "expected a JSON array of the messages of a chat");
        let messages = RawValue::from_string(messages).map_err(wrong)?;
        let body = format!("{{\"messages\":{messages}}}");
        history.extend(chat::messages(&JsonBody::from(Bytes::from(body)))?);
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] =
        [("file", "RIFF"), ("transcription_model", "t"), ("model", "m"), ("speech_model", "s")];

    fn read(fields: &[(&str, &str)]) -> Result<VoiceSpec, ApiError> {
        let fields = GOOD.iter().chain(fields).map(|(name, text)| (*name, text.as_bytes()));
        VoiceSpec::read(&Form::of(&fields.collect::<Vec<_>>()))
    }

    #[test]
    fn options_reach_their_model() {
        let messages = r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]"#;
        let spec = read(&[
            ("language", "en"),
            ("voice", "amy"),
            ("speed", "1.5"),
            ("temperature", "0.5"),
            ("max_tokens", "20"),
            ("instructions", "Be brief."),
            ("messages", messages),
            ("response_format", "opus"),
            ("stream_format", "sse"),
        ])
        .unwrap();
        assert_eq!(spec.transcribe.language.as_deref(), Some("en"));
        assert_eq!(spec.speak, SpeakParams { voice: Some("amy".into()), speed: 1.5 });
        assert_eq!((spec.generate.params.temperature, spec.generate.params.max_tokens), (0.5, Some(20)));
        let roles: Vec<Role> = spec.history.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant]);
        assert_eq!((spec.format, spec.events), (AudioFormat::Opus, true));
        let plain = read(&[]).unwrap();
        assert_eq!((plain.history.len(), plain.format, plain.events), (0, AudioFormat::Wav, false));
    }

    #[test]
    fn wrong_fields_are_named() {
        let table = [
            ("temperature", "7", "from 0 to 2"),
            ("temperature", "warm", "a number"),
            ("max_tokens", "0", "from 1"),
            ("max_tokens", "1.5", "a whole number"),
            ("speed", "9", "from 0.25 to 4"),
            ("language", "English", "ISO 639-1"),
            ("response_format", "mp3", "expected one of"),
            ("stream_format", "xml", "\"sse\""),
            ("messages", "hello", "a JSON array"),
            ("messages", "[]}, {", "a JSON array"),
            ("messages", "{}", "an array"),
            ("messages", "[]", "at least one"),
        ];
        for (field, text, message) in table {
            let error = read(&[(field, text)]).unwrap_err();
            assert_eq!(error.param(), Some(field), "{error}");
            assert!(error.to_string().contains(message), "{error}");
        }
        for (missing, _) in GOOD {
            let rest = GOOD.iter().filter(|(name, _)| *name != missing);
            let fields: Vec<(&str, &[u8])> = rest.map(|(name, text)| (*name, text.as_bytes())).collect();
            assert_eq!(VoiceSpec::read(&Form::of(&fields)).unwrap_err().param(), Some(missing));
        }
    }
}
