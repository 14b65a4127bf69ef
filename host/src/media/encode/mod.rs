//! Sound: from samples to files that are written while the samples come.

mod flac;
mod ogg_opus;
mod wav;

use super::MediaError;
use super::resample::Resampler;
use flac::Flac;
use ogg_opus::OggOpus;

/// Samples a second of [`AudioFormat::Pcm`], which has no header to say so; as OpenAI has it.
pub const PCM_RATE_HZ: u32 = 24_000;

/// What sound can be written as. MP3 and AAC are not among them: the encoders that exist are under the LGPL, which a
/// program that is one file cannot meet, or under terms that are not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioFormat {
    /// 16-bit samples with a header, at the rate of the source.
    Wav,
    /// 16-bit samples, little-endian, at [`PCM_RATE_HZ`], without a header.
    Pcm,
    /// Lossless, 16 bits, at the rate of the source.
    Flac,
    /// Opus in Ogg.
    Opus,
}

impl AudioFormat {
    /// All of them, the smallest files first.
    pub const ALL: [Self; 4] = [Self::Opus, Self::Flac, Self::Wav, Self::Pcm];

    /// The format's name in OpenAI's API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Pcm => "pcm",
            Self::Flac => "flac",
            Self::Opus => "opus",
        }
    }

    /// The format of this name.
    ///
    /// # Errors
    /// [`MediaError::UnknownFormat`] for another name, also for one of OpenAI's that is not made here.
    pub fn from_name(name: &str) -> Result<Self, MediaError> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| MediaError::UnknownFormat {
            name: name.chars().take(32).collect(),
            expected: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// Writes the length of a complete file into its header, where a file that is streamed cannot have it.
    pub fn set_length(self, file: &mut [u8]) {
        if self == Self::Wav {
            wav::set_length(file);
        }
    }

    /// The media type of an answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Pcm => "audio/pcm",
            Self::Flac => "audio/flac",
            Self::Opus => "audio/ogg",
        }
    }
}

/// Writes a file piece by piece. What the pieces have in common: one channel, for speech needs no more.
pub struct AudioEncoder {
    channels: usize,
    resampler: Resampler,
    writer: Writer,
}

enum Writer {
    /// The header, until it is written.
    Wav(Option<[u8; wav::HEADER_BYTES]>),
    Pcm,
    Flac(Box<Flac>),
    Opus(Box<OggOpus>),
}

impl std::fmt::Debug for AudioEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AudioEncoder").field("channels", &self.channels).finish_non_exhaustive()
    }
}

impl AudioEncoder {
    /// An encoder of samples at `sample_rate_hz`, `channels` of them interleaved; they are averaged.
    ///
    /// # Errors
    /// When there are no channels, or the rate is not 1 000 to 192 000.
    pub fn new(format: AudioFormat, sample_rate_hz: u32, channels: u32) -> Result<Self, MediaError> {
        let refused = |problem| Err(MediaError::Encode { problem });
        if !(1_000..=192_000).contains(&sample_rate_hz) {
            return refused(format!("a rate of {sample_rate_hz} samples a second, expected 1000 to 192000"));
        }
        if channels == 0 {
            return refused("no channels".to_owned());
        }
        let rate_hz = match format {
            AudioFormat::Wav | AudioFormat::Flac => sample_rate_hz,
            AudioFormat::Pcm => PCM_RATE_HZ,
            AudioFormat::Opus => ogg_opus::rate_for(sample_rate_hz),
        };
        let writer = match format {
            AudioFormat::Wav => Writer::Wav(Some(wav::header(rate_hz))),
            AudioFormat::Pcm => Writer::Pcm,
            AudioFormat::Flac => Writer::Flac(Box::new(Flac::new(rate_hz)?)),
            AudioFormat::Opus => Writer::Opus(Box::new(OggOpus::new(rate_hz, sample_rate_hz)?)),
        };
        Ok(Self { channels: channels as usize, resampler: Resampler::new(sample_rate_hz, rate_hz)?, writer })
    }

    /// Takes interleaved samples in -1..1, and returns the bytes that are ready, which may be none.
    ///
    /// # Errors
    /// When the encoder fails, which it does for no input that is known.
    pub fn push(&mut self, interleaved: &[f32]) -> Result<Vec<u8>, MediaError> {
        let mean = |frame: &[f32]| frame.iter().sum::<f32>() / self.channels as f32;
        let mono: Vec<f32> = interleaved.chunks_exact(self.channels).map(mean).collect();
        let mut samples = Vec::new();
        self.resampler.push(&mono, &mut samples);
        self.writer.write(&samples)
    }

    /// The bytes that end the file.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self) -> Result<Vec<u8>, MediaError> {
        let mut samples = Vec::new();
        self.resampler.finish(&mut samples);
        let mut file = self.writer.write(&samples)?;
        file.extend(match self.writer {
            Writer::Wav(_) | Writer::Pcm => Vec::new(),
            Writer::Flac(flac) => flac.finish()?,
            Writer::Opus(opus) => opus.finish()?,
        });
        Ok(file)
    }
}

impl Writer {
    fn write(&mut self, samples: &[f32]) -> Result<Vec<u8>, MediaError> {
        let pcm = || samples.iter().flat_map(|sample| to_i16(*sample).to_le_bytes());
        match self {
            Self::Wav(header) => Ok(header.take().into_iter().flatten().chain(pcm()).collect()),
            Self::Pcm => Ok(pcm().collect()),
            Self::Flac(flac) => flac.push(samples),
            Self::Opus(opus) => opus.push(samples),
        }
    }
}

/// The nearest 16-bit sample; silence for what is no number.
#[expect(clippy::cast_possible_truncation, reason = "casting to an integer saturates, and makes 0 of NaN")]
fn to_i16(sample: f32) -> i16 {
    (sample * 32_767.0).round() as i16
}
