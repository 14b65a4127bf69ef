//! Sound of a job, encoded as it comes.

use bytes::Bytes;

use crate::api::aside::aside;
use crate::api::error::ApiError;
use crate::media::{AudioEncoder, AudioFormat, MediaError};

/// Encodes sound on threads where nobody else waits: a sentence in Opus takes tens of milliseconds.
pub(super) struct Encoder {
    format: AudioFormat,
    /// There once the first samples have told their rate.
    running: Option<Running>,
}

struct Running {
    encoder: AudioEncoder,
    sample_rate_hz: u32,
    channels: u32,
}

impl Encoder {
    /// An encoder that has written nothing.
    pub(super) fn new(format: AudioFormat) -> Self {
        Self { format, running: None }
    }

    /// Encodes interleaved samples; the bytes that are ready may be none.
    ///
    /// # Errors
    /// The samples are of another kind than the ones before.
    ///
    /// # Cancellation
    /// The encoder is lost.
    pub(super) async fn push(
        &mut self,
        samples: Vec<f32>,
        sample_rate_hz: u32,
        channels: u32,
    ) -> Result<Bytes, ApiError> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => {
                let encoder = AudioEncoder::new(self.format, sample_rate_hz, channels);
                Running { encoder: encoder.map_err(|error| failed(&error))?, sample_rate_hz, channels }
            }
        };
        if (running.sample_rate_hz, running.channels) != (sample_rate_hz, channels) {
            return Err(ApiError::server("plugin_failed", "the plugin changed the kind of its sound midway"));
        }
        let (running, bytes) = aside(move || {
            let bytes = running.encoder.push(&samples);
            (running, bytes)
        })
        .await?;
        self.running = Some(running);
        bytes.map(Bytes::from).map_err(|error| failed(&error))
    }

    /// The end of the file; `None` when there was no sound.
    ///
    /// # Errors
    /// The encoder failed.
    pub(super) async fn finish(&mut self) -> Result<Option<Bytes>, ApiError> {
        let Some(running) = self.running.take() else { return Ok(None) };
        let bytes = aside(move || running.encoder.finish()).await?;
        bytes.map(|bytes| Some(bytes.into())).map_err(|error| failed(&error))
    }
}

/// What the plugin sent cannot be written: the plugin's fault, and never the client's.
fn failed(error: &MediaError) -> ApiError {
    ApiError::server("plugin_failed", format!("the plugin's sound cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_are_one_file() {
        let mut encoder = Encoder::new(AudioFormat::Wav);
        let first = encoder.push(vec![0.5; 4], 16_000, 1).await.unwrap();
        assert!(first.starts_with(b"RIFF"));
        let second = encoder.push(vec![0.5; 4], 16_000, 1).await.unwrap();
        assert_eq!(second.len(), 8);
        assert_eq!(encoder.finish().await.unwrap(), Some(Bytes::new()));
        assert_eq!(Encoder::new(AudioFormat::Wav).finish().await.unwrap(), None);
    }

    #[tokio::test]
    async fn sound_that_changes_or_cannot_be_is_the_plugins_fault() {
        let mut encoder = Encoder::new(AudioFormat::Pcm);
        encoder.push(vec![0.0; 4], 16_000, 1).await.unwrap();
        assert_eq!(encoder.push(vec![0.0; 4], 22_050, 1).await.unwrap_err().code(), "plugin_failed");
        let error = Encoder::new(AudioFormat::Pcm).push(vec![], 3, 1).await.unwrap_err();
        assert_eq!(error.code(), "plugin_failed");
    }
}
