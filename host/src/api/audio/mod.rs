//! `/v1/audio`: speech to text, text to speech, and both around a conversation.
//!
//! Sound is decoded before a plugin gets it and encoded after one gave it (`media`). Answers that are sound begin while
//! the plugin still speaks: `updates` decouples the plugin from a client that reads as fast as it plays.

mod encoder;
mod speech;
mod transcript;
mod transcriptions;
mod updates;
mod voice;

use bytes::Bytes;
use pajamas_plugin_api::{Error as PluginError, ErrorKind};

use super::ApiState;
use super::error::ApiError;
use super::multipart::Form;
use crate::engine::EngineError;
use crate::media::{AudioFormat, Sound};

pub(super) use speech::create as speech;
pub(super) use transcriptions::{Heard, transcribe, translate};
pub(super) use voice::create as chat;

/// The one sound file of a form.
///
/// # Errors
/// There is none, or more than one.
fn sound_file(form: &Form) -> Result<Bytes, ApiError> {
    let mut files = form.files(&["file"]);
    let (_, file) = files.next().ok_or_else(|| ApiError::missing("file", "a file of sound"))?;
    if files.next().is_some() {
        return Err(ApiError::invalid("file", "expected one file"));
    }
    Ok(file.clone())
}

/// Decodes the field `file`.
///
/// # Errors
/// It is no sound that this server reads, or longer than it accepts.
async fn decode(state: &ApiState, file: Bytes) -> Result<Sound, ApiError> {
    state.media.audio(file).await.map_err(|error| ApiError::invalid("file", error))
}

/// The format of an answer's sound. OpenAI's default, MP3, is not made here.
fn sound_format(name: Option<&str>) -> Result<AudioFormat, ApiError> {
    let Some(name) = name else { return Ok(AudioFormat::Wav) };
    AudioFormat::from_name(name).map_err(|error| ApiError::invalid("response_format", error))
}

/// Whether a streamed answer is events rather than sound.
fn streams_events(stream_format: Option<&str>) -> Result<bool, ApiError> {
    match stream_format {
        None | Some("audio") => Ok(false),
        Some("sse") => Ok(true),
        Some(_) => Err(ApiError::invalid("stream_format", "expected \"audio\" or \"sse\"")),
    }
}

/// The job ended because the server wanted it to.
fn cancelled() -> ApiError {
    EngineError::Plugin(PluginError::new(ErrorKind::Cancelled, "the server cancelled this request")).into()
}

/// The job ended without a terminal event.
fn gave_up() -> ApiError {
    ApiError::server("plugin_failed", "the plugin gave up on this request without a reason")
}
