//! Sound: from files to mono samples at 16 kHz.

use std::io::{Cursor, ErrorKind};

use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::opus::{OPUS_RATE_HZ, OpusDecoder};
use super::resample::Resampler;
use super::{MediaError, MediaLimits};

/// Samples a second that the task `transcribe` takes (`SPEC.md`).
pub const SAMPLE_RATE_HZ: u32 = 16_000;
/// The kinds that are read.
const EXPECTED: &str = "WAV, FLAC, MP3, Ogg (Vorbis, Opus), WebM or M4A (AAC)";
/// The rates that are read, in samples a second.
const RATES_HZ: std::ops::RangeInclusive<u32> = 1_000..=192_000;
/// The most channels that are mixed.
const CHANNELS_MAX: usize = 8;
/// One packet in so many may be damaged: the first ones of an MP3 cut out of a longer one always are.
const PACKETS_PER_DAMAGED: usize = 10;

/// Sound: one channel, [`SAMPLE_RATE_HZ`] samples a second, in -1..1.
#[derive(Clone, Debug, PartialEq)]
pub struct Sound {
    /// The samples.
    pub samples: Vec<f32>,
}

impl Sound {
    /// How long it is, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(SAMPLE_RATE_HZ)
    }
}

/// Decodes a WAV (8 to 32 bits, or floating point), FLAC, MP3, Ogg (Vorbis or Opus), WebM or M4A (AAC-LC) file.
///
/// Channels are averaged. Silence that an encoder added at the beginning and at the end is cut off where the file tells
/// how much it is, in a way that is read: AAC begins up to 50 ms late, WebM ends up to 20 ms late.
/// A recording that breaks off is decoded to where it does; up to one packet in ten may be damaged.
///
/// # Errors
/// See [`MediaError`]; the length is checked while the file is decoded.
pub fn decode_audio(bytes: &[u8], limits: &MediaLimits) -> Result<Sound, MediaError> {
    let kind = detect(bytes)?;
    let options = MediaSourceStreamOptions::default();
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), options);
    let probe = symphonia::default::get_probe();
    let mut reader = probe
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|error| describe(kind, &error))?;
    let track = reader.default_track(TrackType::Audio).ok_or(MediaError::NoSound { kind })?;
    let track_id = track.id;
    let mut sound = Mixer::new(kind, limits.audio_seconds);
    sound.check_length(track)?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let mut codec = Codec::new(kind, params.ok_or(MediaError::NoSound { kind })?)?;
    let (mut packets, mut damaged, mut problem) = (0, 0, String::new());
    while let Some(packet) = next_packet(kind, reader.as_mut())? {
        if packet.track_id != track_id {
            continue;
        }
        packets += 1;
        match codec.decode(&packet) {
            Ok((samples, channels, rate_hz)) => sound.push(samples, channels, rate_hz)?,
            Err(found) => {
                damaged += 1;
                problem = found;
            }
        }
    }
    if damaged * PACKETS_PER_DAMAGED > packets {
        let problem =
            format!("{damaged} of {packets} packets cannot be decoded, the last one because of {problem}");
        return Err(MediaError::Corrupt { kind, problem });
    }
    sound.finish()
}

/// What the first bytes say that the file is, in words for people. `symphonia` looks further into a file, and finds what
/// looks like MP3 in any noise.
fn detect(bytes: &[u8]) -> Result<&'static str, MediaError> {
    match bytes {
        [] => Err(MediaError::Empty),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Ok("WAV"),
        [b'f', b'L', b'a', b'C', ..] => Ok("FLAC"),
        [b'O', b'g', b'g', b'S', ..] => Ok("Ogg"),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Ok("WebM"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Ok("M4A"),
        // The sync word of AAC without a container (ADTS): layer 0, which MP3 has not.
        [0xff, second, ..] if second & 0xf6 == 0xf0 => Ok("AAC"),
        [b'I', b'D', b'3', ..] => Ok("MP3"),
        [0xff, second, ..] if second & 0xe0 == 0xe0 => Ok("MP3"),
        _ => Err(MediaError::UnknownKind { expected: EXPECTED }),
    }
}

/// The next packet; `None` at the end, wherever the file ends.
fn next_packet(kind: &'static str, reader: &mut dyn FormatReader) -> Result<Option<Packet>, MediaError> {
    match reader.next_packet() {
        Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(Error::ResetRequired) => {
            let problem = "it has several streams one after the other".to_owned();
            Err(MediaError::Unsupported { kind, problem })
        }
        result => result.map_err(|error| describe(kind, &error)),
    }
}

fn describe(kind: &'static str, error: &Error) -> MediaError {
    match error {
        Error::Unsupported(problem) => MediaError::Unsupported { kind, problem: (*problem).to_owned() },
        error => MediaError::Corrupt { kind, problem: error.to_string() },
    }
}

/// What turns packets into samples.
enum Codec {
    Opus(Box<OpusDecoder>),
    Other { decoder: Box<dyn AudioDecoder>, samples: Vec<f32> },
}

impl Codec {
    fn new(kind: &'static str, params: &AudioCodecParameters) -> Result<Self, MediaError> {
        if params.codec == CODEC_ID_OPUS {
            let decoder = OpusDecoder::new(params.extra_data.as_deref().unwrap_or_default());
            return decoder
                .map(|decoder| Self::Opus(Box::new(decoder)))
                .map_err(|problem| MediaError::Unsupported { kind, problem });
        }
        let codecs = symphonia::default::get_codecs();
        let decoder = codecs.make_audio_decoder(params, &AudioDecoderOptions::default());
        let decoder = decoder.map_err(|error| describe(kind, &error))?;
        Ok(Self::Other { decoder, samples: Vec::new() })
    }

    /// Interleaved samples, the number of channels, and samples a second.
    fn decode(&mut self, packet: &Packet) -> Result<(&[f32], usize, u32), String> {
        match self {
            Self::Opus(decoder) => {
                let trim_end = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                let channels = decoder.channels();
                Ok((decoder.decode(&packet.data, trim_end)?, channels, OPUS_RATE_HZ))
            }
            Self::Other { decoder, samples } => {
                let buffer = decoder.decode(packet).map_err(|error| error.to_string())?;
                buffer.copy_to_vec_interleaved(samples);
                Ok((samples, buffer.spec().channels().count(), buffer.spec().rate()))
            }
        }
    }
}

/// Makes one channel of all, at [`SAMPLE_RATE_HZ`].
struct Mixer {
    kind: &'static str,
    seconds_max: u32,
    /// Made when the rate is known for sure, which is in the first decoded packet.
    resampler: Option<(u32, Resampler)>,
    mono: Vec<f32>,
    samples: Vec<f32>,
}

impl Mixer {
    fn new(kind: &'static str, seconds_max: u32) -> Self {
        Self { kind, seconds_max, resampler: None, mono: Vec::new(), samples: Vec::new() }
    }

    /// Refuses a file that says itself that it is too long.
    fn check_length(&self, track: &Track) -> Result<(), MediaError> {
        let seconds =
            track.time_base.zip(track.duration).and_then(|(base, duration)| base.calc_duration(duration));
        if seconds.is_some_and(|time| time.as_secs() > i64::from(self.seconds_max)) {
            return Err(MediaError::TooLong { seconds_max: self.seconds_max });
        }
        Ok(())
    }

    fn push(&mut self, interleaved: &[f32], channels: usize, rate_hz: u32) -> Result<(), MediaError> {
        let unsupported = |problem| Err(MediaError::Unsupported { kind: self.kind, problem });
        if !(1..=CHANNELS_MAX).contains(&channels) {
            return unsupported(format!("it has {channels} channels, expected 1 to {CHANNELS_MAX}"));
        }
        let resampler = match &mut self.resampler {
            Some((known_hz, resampler)) if *known_hz == rate_hz => resampler,
            Some((known_hz, _)) => {
                return unsupported(format!("its sample rate changes from {known_hz} to {rate_hz} Hz"));
            }
            none if RATES_HZ.contains(&rate_hz) => {
                &mut none.insert((rate_hz, Resampler::new(rate_hz, SAMPLE_RATE_HZ)?)).1
            }
            _ => {
                let (low, high) = (RATES_HZ.start(), RATES_HZ.end());
                return unsupported(format!("its sample rate is {rate_hz} Hz, expected {low} to {high}"));
            }
        };
        self.mono.clear();
        let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
        // Floating-point files may hold anything.
        let sane = |sample: f32| if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
        self.mono.extend(interleaved.chunks_exact(channels).map(|frame| sane(mean(frame))));
        resampler.push(&self.mono, &mut self.samples);
        self.check_bound()
    }

    fn finish(mut self) -> Result<Sound, MediaError> {
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.finish(&mut self.samples);
        }
        self.check_bound()?;
        if self.samples.is_empty() {
            return Err(MediaError::NoSound { kind: self.kind });
        }
        Ok(Sound { samples: self.samples })
    }

    fn check_bound(&self) -> Result<(), MediaError> {
        if self.samples.len() as u64 > u64::from(self.seconds_max) * u64::from(SAMPLE_RATE_HZ) {
            return Err(MediaError::TooLong { seconds_max: self.seconds_max });
        }
        Ok(())
    }
}
