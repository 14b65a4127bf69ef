//! From sound to the log-mel spectrogram that Whisper was trained on.
//!
//! Source: `log_mel_spectrogram` of openai/whisper, `audio.py`: a power spectrum of 400 samples every 160 under a
//! periodic Hann window, centred with reflection at the beginning and 30 s of zeros behind the end, through Slaney's
//! mel filters, as a clamped logarithm.

use std::f64::consts::PI;
use std::sync::Arc;

use pajamas_plugin_api::Error;
use realfft::{RealFftPlanner, RealToComplex};

/// Samples per second of the sound.
pub(super) const SAMPLE_RATE_HZ: usize = 16_000;
/// Samples from one frame to the next: 10 ms.
pub(super) const HOP_SAMPLES: usize = 160;
/// Frames per second.
pub(super) const FRAMES_PER_S: usize = SAMPLE_RATE_HZ / HOP_SAMPLES;
/// Frames that the encoder reads at once: 30 s.
pub(super) const WINDOW_FRAMES: usize = 30 * FRAMES_PER_S;

const FFT_SAMPLES: usize = 400;
const HALF_SAMPLES: usize = FFT_SAMPLES / 2;
const BINS: usize = HALF_SAMPLES + 1;
/// Logarithms of powers are clamped here from below.
const POWER_MIN: f32 = 1e-10;
/// Nothing is further below the loudest value of the whole sound than this, in powers of ten.
const RANGE: f32 = 8.0;

/// Computes spectrograms; any thread, also at the same time.
pub(super) struct MelExtractor {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    filters: Vec<Filter>,
}

/// One row of the filter bank: weights of the bins from `first` on; all others are 0.
#[derive(Debug)]
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

/// The log-mel spectrogram of a whole sound.
pub(super) struct LogMel {
    mels: usize,
    /// Frame by frame, `mels` values each, so that they are written in order.
    values: Vec<f32>,
}

impl MelExtractor {
    /// For spectrograms of `mels` rows.
    pub(super) fn new(mels: usize) -> Self {
        let step = 2.0 * PI / FFT_SAMPLES as f64;
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(FFT_SAMPLES),
            // Periodic: the divisor is the length, not the length less one (`torch.hann_window`).
            window: (0..FFT_SAMPLES).map(|i| (0.5 - 0.5 * (step * i as f64).cos()) as f32).collect(),
            filters: slaney_filters(mels),
        }
    }

    /// The spectrogram of mono sound at 16 kHz: one frame for each whole 10 ms.
    pub(super) fn log_mel(&self, samples: &[f32]) -> Result<LogMel, Error> {
        let mels = self.filters.len();
        let frames = samples.len() / HOP_SAMPLES;
        // Frames behind the end still reach back into the sound and count for the loudest value.
        let frames_heard = if frames == 0 { 0 } else { (samples.len() + HALF_SAMPLES) / HOP_SAMPLES + 1 };
        let mut values = vec![0.0; frames_heard * mels];
        let mut input = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut powers = [0.0f32; BINS];
        let mut loudest = POWER_MIN.log10();
        for (frame, row) in values.chunks_exact_mut(mels).enumerate() {
            self.fill_windowed(samples, frame, &mut input);
            self.fft
                .process_with_scratch(&mut input, &mut spectrum, &mut scratch)
                .map_err(|e| Error::internal(format!("the spectrum cannot be computed: {e}")))?;
            for (power, bin) in powers.iter_mut().zip(&spectrum) {
                *power = bin.norm_sqr();
            }
            for (value, filter) in row.iter_mut().zip(&self.filters) {
                *value = filter.apply(&powers).max(POWER_MIN).log10();
                loudest = loudest.max(*value);
            }
        }
        values.truncate(frames * mels);
        let quietest = loudest - RANGE;
        values.iter_mut().for_each(|value| *value = (value.max(quietest) + 4.0) / 4.0);
        Ok(LogMel { mels, values })
    }

    /// The samples around the frame's centre times the window, mirrored before the beginning, 0 behind the end.
    fn fill_windowed(&self, samples: &[f32], frame: usize, input: &mut [f32]) {
        let centre = frame * HOP_SAMPLES;
        if let Some(begin) = centre.checked_sub(HALF_SAMPLES)
            && let Some(part) = samples.get(begin..begin + FFT_SAMPLES)
        {
            for ((value, sample), weight) in input.iter_mut().zip(part).zip(&self.window) {
                *value = sample * weight;
            }
            return;
        }
        for (i, (value, weight)) in input.iter_mut().zip(&self.window).enumerate() {
            let position = (centre + i).abs_diff(HALF_SAMPLES);
            *value = samples.get(position).copied().unwrap_or(0.0) * weight;
        }
    }
}

impl Filter {
    fn apply(&self, powers: &[f32; BINS]) -> f32 {
        powers[self.first..].iter().zip(&self.weights).map(|(power, weight)| power * weight).sum()
    }
}

impl LogMel {
    /// Number of frames.
    pub(super) fn frames(&self) -> usize {
        self.values.len() / self.mels
    }

    /// What the encoder reads: `mels` rows of [`WINDOW_FRAMES`], beginning at frame `begin`; behind `frames` frames,
    /// and behind the end, 0 (`pad_or_trim` of openai/whisper).
    pub(super) fn window(&self, begin: usize, frames: usize) -> Vec<f32> {
        let mut window = vec![0.0; self.mels * WINDOW_FRAMES];
        let rows = self.values.chunks_exact(self.mels).skip(begin).take(frames.min(WINDOW_FRAMES));
        for (frame, row) in rows.enumerate() {
            for (mel, value) in row.iter().enumerate() {
                window[mel * WINDOW_FRAMES + frame] = *value;
            }
        }
        window
    }
}

/// The filter bank of `librosa.filters.mel(sr=16000, n_fft=400, n_mels=mels)`, whose output openai/whisper ships:
/// triangles between neighbouring mel frequencies, each of area 1 ("slaney" norm).
fn slaney_filters(mels: usize) -> Vec<Filter> {
    let nyquist_mel = hz_to_mel(SAMPLE_RATE_HZ as f64 / 2.0);
    let corners_hz: Vec<f64> =
        (0..mels + 2).map(|i| mel_to_hz(nyquist_mel * i as f64 / (mels + 1) as f64)).collect();
    let bin_hz = SAMPLE_RATE_HZ as f64 / FFT_SAMPLES as f64;
    let triangles = corners_hz.array_windows::<3>().map(|[low, peak, high]| {
        let weight = |bin: usize| {
            let hz = bin as f64 * bin_hz;
            let slope = ((hz - low) / (peak - low)).min((high - hz) / (high - peak));
            (slope.max(0.0) * 2.0 / (high - low)) as f32
        };
        let first = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
        Filter { first, weights: (first..BINS).map(weight).take_while(|weight| *weight > 0.0).collect() }
    });
    triangles.collect()
}

/// Where Slaney's scale (Auditory Toolbox, 1998) turns from linear to logarithmic.
const BREAK_HZ: f64 = 1000.0;
const LINEAR_HZ_PER_MEL: f64 = 200.0 / 3.0;
const BREAK_MEL: f64 = BREAK_HZ / LINEAR_HZ_PER_MEL;

/// 27 steps of the logarithmic part multiply the frequency by 6.4.
fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

fn hz_to_mel(hz: f64) -> f64 {
    if hz < BREAK_HZ { hz / LINEAR_HZ_PER_MEL } else { BREAK_MEL + (hz / BREAK_HZ).ln() / log_step() }
}

fn mel_to_hz(mel: f64) -> f64 {
    if mel < BREAK_MEL { mel * LINEAR_HZ_PER_MEL } else { BREAK_HZ * (log_step() * (mel - BREAK_MEL)).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Reference {
        samples: u32,
        frames: Vec<usize>,
        mels_80: Vec<Vec<f32>>,
        mels_128: Vec<Vec<f32>>,
    }

    #[test]
    fn spectrograms_are_those_of_the_reference() {
        let reference: Reference =
            serde_json::from_str(include_str!("../../testdata/whisper_log_mel.json")).unwrap();
        let chirp = |time: f64| (0.4 * (0.02 * time + 3e-4 * time * time).sin()) as f32;
        let samples: Vec<f32> = (0..reference.samples).map(|i| chirp(f64::from(i))).collect();
        for (mels, expected) in [(80, &reference.mels_80), (128, &reference.mels_128)] {
            let log_mel = MelExtractor::new(mels).log_mel(&samples).unwrap();
            assert_eq!(log_mel.frames(), samples.len() / HOP_SAMPLES);
            for (frame, expected) in reference.frames.iter().zip(expected) {
                let window = log_mel.window(*frame, 1);
                for (mel, expected) in expected.iter().enumerate() {
                    let value = window[mel * WINDOW_FRAMES];
                    assert!(
                        (value - expected).abs() < 1e-4,
                        "row {mel} of frame {frame}: {value}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn windows_are_filled_up_with_zeros() {
        let log_mel = MelExtractor::new(80).log_mel(&[0.25; 1_000]).unwrap();
        assert_eq!(log_mel.frames(), 6);
        let window = log_mel.window(4, WINDOW_FRAMES);
        assert_eq!(window.len(), 80 * WINDOW_FRAMES);
        assert!(
            window[..2].iter().all(|value| *value != 0.0)
                && window[2..WINDOW_FRAMES].iter().all(|v| *v == 0.0)
        );
        assert!(log_mel.window(0, 1)[1] == 0.0, "frames that are not asked for");
    }

    #[test]
    fn any_sound_has_a_spectrogram() {
        let extractor = MelExtractor::new(128);
        for (samples, frames) in
            [(vec![], 0), (vec![0.0; 159], 0), (vec![f32::NAN; 160], 1), (vec![1e30; 400], 2)]
        {
            let log_mel = extractor.log_mel(&samples).unwrap();
            assert_eq!(log_mel.frames(), frames);
            assert!(log_mel.values.iter().all(|value| !value.is_nan()));
        }
    }
}
