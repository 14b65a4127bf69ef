//! Sound that goes out.

use super::{signal_to_noise_db, sine};
use crate::media::*;

fn encode(format: AudioFormat, rate_hz: u32, channels: u32, samples: &[f32], piece: usize) -> Vec<u8> {
    let mut encoder = AudioEncoder::new(format, rate_hz, channels).unwrap();
    let mut file = Vec::new();
    for samples in samples.chunks(piece) {
        file.extend(encoder.push(samples).unwrap());
    }
    file.extend(encoder.finish().unwrap());
    file
}

#[test]
fn what_is_encoded_is_heard_again() {
    for (format, floor_db) in [(AudioFormat::Wav, 60.0), (AudioFormat::Flac, 60.0), (AudioFormat::Opus, 15.0)]
    {
        for rate_hz in [8_000, 16_000, 22_050, 24_000, 44_100, 48_000] {
            let seconds = 0.73;
            let file = encode(format, rate_hz, 1, &sine(440.0, rate_hz, seconds), 1_000);
            let sound = decode_audio(&file, &MediaLimits::default())
                .unwrap_or_else(|error| panic!("{format:?} at {rate_hz}: {error}"));
            let expected = sine(440.0, SAMPLE_RATE_HZ, seconds);
            // A frame of FLAC ends a little late, and rounding may cost one sample.
            assert!(sound.samples.len().abs_diff(expected.len()) < 64, "{format:?} at {rate_hz}");
            let ratio_db = signal_to_noise_db(&expected, &sound.samples, 500);
            assert!(ratio_db > floor_db, "{format:?} at {rate_hz} Hz: {ratio_db:.1} dB");
        }
    }
}

#[test]
fn pcm_is_16_bits_at_24_khz() {
    let file = encode(AudioFormat::Pcm, 16_000, 1, &sine(440.0, 16_000, 0.5), 333);
    let samples: Vec<f32> =
        file.as_chunks().0.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes)) / 32_767.0).collect();
    assert_eq!(samples.len(), 12_000);
    assert!(signal_to_noise_db(&sine(440.0, 24_000, 0.5), &samples, 800) > 60.0);
}

#[test]
fn channels_are_averaged_and_what_is_too_loud_is_cut() {
    let file = encode(AudioFormat::Pcm, 24_000, 2, &[1.0, 0.0, 3.0, 3.0, -9.0, -9.0, f32::NAN, 0.0], 2);
    let samples: Vec<i16> = file.as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    assert_eq!(samples, [16_384, 32_767, -32_768, 0]);
}

#[test]
fn a_wav_begins_with_its_header_whether_or_not_sound_comes() {
    let mut encoder = AudioEncoder::new(AudioFormat::Wav, 22_050, 1).unwrap();
    let head = encoder.push(&[0.0]).unwrap();
    assert_eq!(head.len(), 46);
    assert_eq!(&head[..12], b"RIFF\xff\xff\xff\xffWAVE");
    assert_eq!(&head[36..44], b"data\xff\xff\xff\xff");
    assert_eq!(encoder.push(&[0.0, 0.0]).unwrap().len(), 4);
    for format in AudioFormat::ALL {
        let file = encode(format, 24_000, 1, &[], 1);
        assert_eq!(file.is_empty(), format == AudioFormat::Pcm, "{format:?}");
    }
}

#[test]
fn a_complete_wav_can_be_told_its_length() {
    let mut file = encode(AudioFormat::Wav, 24_000, 1, &[0.0; 5], 1);
    AudioFormat::Wav.set_length(&mut file);
    assert_eq!((&file[4..8], &file[40..44]), (&46_u32.to_le_bytes()[..], &10_u32.to_le_bytes()[..]));
    for format in AudioFormat::ALL {
        format.set_length(&mut []);
    }
}

#[test]
fn sound_goes_out_while_it_is_made() {
    for (format, latency_s) in [(AudioFormat::Wav, 0.0), (AudioFormat::Flac, 0.2), (AudioFormat::Opus, 0.05)]
    {
        let mut encoder = AudioEncoder::new(format, 24_000, 1).unwrap();
        let bytes = encoder.push(&sine(440.0, 24_000, 1.0)).unwrap();
        let sound = decode_audio(&bytes, &MediaLimits::default()).unwrap();
        assert!(sound.seconds() >= 1.0 - latency_s, "{format:?}: {} s", sound.seconds());
    }
}

#[test]
fn formats_have_openais_names() {
    for format in AudioFormat::ALL {
        assert_eq!(AudioFormat::from_name(format.name()), Ok(format));
        assert!(format.content_type().starts_with("audio/"));
    }
    for name in ["mp3", "aac", "", "WAV"] {
        let message = AudioFormat::from_name(name).unwrap_err().to_string();
        assert_eq!(message, format!("expected one of opus, flac, wav, pcm, got \"{name}\""));
    }
    for (rate_hz, channels) in [(0, 1), (u32::MAX, 1), (24_000, 0)] {
        assert!(AudioEncoder::new(AudioFormat::Wav, rate_hz, channels).is_err());
    }
}
