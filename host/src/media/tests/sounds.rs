//! Sound that comes in.

use proptest::prelude::*;

use super::{file, signal_to_noise_db, sine};
use crate::media::resample::Resampler;
use crate::media::*;

const FILES: &[&str] = &[
    "pcm_u8.wav",
    "pcm_16.wav",
    "pcm_24.wav",
    "pcm_32.wav",
    "float.wav",
    "ulaw.wav",
    "stereo.flac",
    "tone.mp3",
    "vorbis.ogg",
    "opus.ogg",
    "mono.opus",
    "opus.webm",
    "aac.m4a",
    "aac.aac",
];

fn decode(bytes: &[u8]) -> Result<Sound, MediaError> {
    decode_audio(bytes, &MediaLimits::default())
}

/// How many samples later than expected `samples` best fits a tone, up to the tone's period.
fn delay_of(expected: &[f32], samples: &[f32], most: usize) -> usize {
    let fit = |delay: &usize| {
        let range = 1000..3000;
        let pairs = expected[range.clone()].iter().zip(&samples[range.start + delay..]);
        pairs.take(2000).map(|(a, b)| f64::from(a * b)).sum::<f64>()
    };
    (0..most).max_by(|a, b| fit(a).total_cmp(&fit(b))).unwrap()
}

#[test]
fn every_kind_decodes_to_the_same_tone() {
    // File, seconds, smallest ratio of signal to noise in dB, most samples too many.
    let table = [
        ("pcm_u8.wav", 0.25, 35.0, 0),
        ("pcm_16.wav", 0.25, 60.0, 0),
        ("pcm_24.wav", 0.25, 60.0, 0),
        ("pcm_32.wav", 0.25, 60.0, 0),
        ("float.wav", 0.25, 60.0, 0),
        ("ulaw.wav", 0.25, 30.0, 0),
        ("stereo.flac", 0.5, 60.0, 0),
        // The decoder trims one sample of 44 100 too few.
        ("tone.mp3", 0.5, 25.0, 0),
        ("vorbis.ogg", 0.5, 20.0, 0),
        ("opus.ogg", 0.5, 20.0, 0),
        // As libopus itself, to a tenth: a low rate, in the mode for speech.
        ("mono.opus", 0.5, 17.0, 0),
        ("opus.webm", 0.5, 20.0, 320),
        ("aac.m4a", 0.5, 20.0, 1200),
        ("aac.aac", 0.5, 20.0, 1200),
    ];
    assert_eq!(table.map(|(name, ..)| name).as_slice(), FILES);
    for (name, seconds, floor_db, excess) in table {
        let sound = decode(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let wanted = (seconds * f64::from(SAMPLE_RATE_HZ)) as usize;
        let len = sound.samples.len();
        assert!((wanted..=wanted + excess).contains(&len), "{name}: {len} samples, expected {wanted}");
        let expected = sine(440.0, SAMPLE_RATE_HZ, seconds);
        // Only what says how much to cut off begins where the tone did.
        let delay = if excess > 0 { delay_of(&expected, &sound.samples, excess) } else { 0 };
        let ratio_db = signal_to_noise_db(&expected, &sound.samples[delay..], 400);
        assert!(ratio_db > floor_db, "{name}: {ratio_db:.1} dB, {delay} samples late");
    }
}

#[test]
fn a_sine_stays_a_sine_and_what_is_too_high_disappears() {
    for rate_hz in [8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000] {
        let resample = |frequency_hz, pieces: usize| {
            let mut resampler = Resampler::new(rate_hz, SAMPLE_RATE_HZ).unwrap();
            let mut out = Vec::new();
            for piece in sine(frequency_hz, rate_hz, 0.5).chunks(pieces) {
                resampler.push(piece, &mut out);
            }
            resampler.finish(&mut out);
            out
        };
        for frequency_hz in [100.0, 1_000.0, 3_000.0, 7_000.0] {
            if frequency_hz > f64::from(rate_hz) * 0.4 {
                continue;
            }
            let out = resample(frequency_hz, 777);
            assert_eq!(out.len(), 8_000, "{rate_hz} Hz");
            let ratio_db = signal_to_noise_db(&sine(frequency_hz, SAMPLE_RATE_HZ, 0.5), &out, 1_000);
            assert!(ratio_db > 90.0, "{frequency_hz} Hz from {rate_hz} Hz: {ratio_db:.1} dB");
            assert_eq!(out, resample(frequency_hz, 100_000), "the pieces make a difference");
        }
        for frequency_hz in [8_500.0, 9_000.0, 11_000.0, 15_000.0, 20_000.0] {
            if frequency_hz > f64::from(rate_hz) * 0.48 {
                continue;
            }
            let out = resample(frequency_hz, 777);
            let loudest = out[1_000..7_000].iter().fold(0.0_f32, |loudest, sample| loudest.max(sample.abs()));
            let alias_db = 20.0 * f64::from(loudest / 0.5).log10();
            assert!(alias_db < -80.0, "{frequency_hz} Hz from {rate_hz} Hz is left at {alias_db:.1} dB");
        }
    }
}

/// A WAV file of silence, which says that it has `claimed` bytes of sound.
fn silence(rate_hz: u32, channels: u16, samples: usize, claimed: u32) -> Vec<u8> {
    let frame_bytes = channels * 2;
    let mut wav = [b"RIFF", &u32::MAX.to_le_bytes()[..], b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
    wav.extend([1_u16.to_le_bytes(), channels.to_le_bytes()].concat());
    wav.extend([rate_hz.to_le_bytes(), rate_hz.wrapping_mul(frame_bytes.into()).to_le_bytes()].concat());
    wav.extend([frame_bytes.to_le_bytes(), 16_u16.to_le_bytes()].concat());
    wav.extend([*b"data", claimed.to_le_bytes()].concat());
    wav.extend(vec![0; samples * usize::from(frame_bytes)]);
    wav
}

#[test]
fn the_length_is_bounded() {
    let limits = MediaLimits { audio_seconds: 2, ..MediaLimits::default() };
    let decode =
        |seconds: usize, claimed| decode_audio(&silence(8_000, 1, seconds * 8_000, claimed), &limits);
    assert_eq!(decode(2, 32_000).unwrap().samples.len(), 32_000);
    let too_long = Err(MediaError::TooLong { seconds_max: 2 });
    // By what the header says, and by what comes.
    assert_eq!(decode(0, 1_000_000), too_long);
    assert_eq!(decode(3, u32::MAX), too_long);
    let bytes = file("mono.opus");
    assert!(decode_audio(&bytes, &limits).is_ok());
    let limits = MediaLimits { audio_seconds: 0, ..limits };
    assert_eq!(decode_audio(&bytes, &limits), Err(MediaError::TooLong { seconds_max: 0 }));
}

#[test]
fn what_breaks_off_is_decoded_to_where_it_does() {
    for name in FILES {
        let bytes = file(name);
        // An M4A file keeps its table of contents at the end, a WebM file says how long it is unless it was recorded live,
        // and these Ogg files have all their sound in one page.
        if name.ends_with("m4a") || name.ends_with("webm") || bytes.starts_with(b"OggS") {
            continue;
        }
        let whole = decode(&bytes).unwrap().samples.len();
        let sound = decode(&bytes[..bytes.len() * 3 / 4]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let share = sound.samples.len() as f64 / whole as f64;
        assert!((0.4..1.0).contains(&share), "{name}: {share:.2}");
    }
    let mut encoder = AudioEncoder::new(AudioFormat::Opus, 24_000, 1).unwrap();
    let mut pages: Vec<u8> =
        sine(440.0, 24_000, 4.0).chunks(6_000).flat_map(|samples| encoder.push(samples).unwrap()).collect();
    pages.truncate(pages.len() / 2);
    let seconds = decode(&pages).unwrap().seconds();
    assert!((1.0..3.0).contains(&seconds), "{seconds} s");
}

#[test]
fn what_cannot_be_read_is_said_in_a_sentence() {
    let flac = file("stereo.flac");
    let noisy = [&flac[..200], &vec![0x5a; flac.len()]].concat();
    let m4a = file("aac.m4a");
    let unknown =
        "the file is of no known kind, expected WAV, FLAC, MP3, Ogg (Vorbis, Opus), WebM or M4A (AAC)";
    let table: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "the file is empty"),
        (b"hello".to_vec(), unknown),
        (vec![0; 5000], unknown),
        (file("rgb.png"), unknown),
        (silence(8_000, 1, 0, 0), "the WAV file has no sound in it"),
        (silence(8_000, 9, 100, 1_800), "the WAV file cannot be read by this server: it has 9 channels"),
        (silence(500, 1, 100, 200), "the WAV file cannot be read by this server: its sample rate is 500 Hz"),
        (silence(0, 1, 100, 200), "the WAV file "),
        (silence(u32::MAX, 1, 100, 200), "the WAV file cannot be read by this server: its sample rate is "),
        (silence(8_000, 0, 100, 200), "the WAV file "),
        (noisy, "the FLAC file "),
        (
            m4a[..m4a.len() / 2].to_vec(),
            "the M4A file cannot be read by this server: isomp4: missing moov atom",
        ),
        (b"OggS".to_vec(), "the Ogg file is damaged or ends too early: "),
        (b"\x1a\x45\xdf\xa3".to_vec(), "the WebM file is damaged or ends too early: "),
    ];
    for (bytes, expected) in table {
        let error = decode(&bytes).expect_err(expected);
        assert!(error.to_string().starts_with(expected), "{error}, expected {expected}");
        assert!(error.to_string().len() < 250, "{error}");
    }
}

/// How files begin, so that what follows gets past the first look.
const STARTS: &[&[u8]] = &[
    b"",
    b"RIFF\xff\xff\0\0WAVEfmt ",
    b"fLaC",
    b"OggS",
    b"\xff\xfb",
    b"ID3",
    b"\x1a\x45\xdf\xa3",
    b"\0\0\0\x14ftypM4A ",
    b"\xff\xf1",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        start in proptest::sample::select(STARTS),
    ) {
        let _ = decode(&[start, &bytes].concat());
    }

    #[test]
    fn no_damage_makes_a_decoder_panic(
        name in proptest::sample::select(FILES),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
        end in any::<proptest::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = file(name);
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let limits = MediaLimits { audio_seconds: 10, ..MediaLimits::default() };
        if let Ok(sound) = decode_audio(&bytes, &limits) {
            prop_assert!(sound.samples.len() <= 160_000);
            prop_assert!(sound.samples.iter().all(|sample| sample.is_finite()));
        }
    }
}
