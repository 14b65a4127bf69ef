//! From one sample rate to another, while the samples come.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use super::MediaError;

/// The fewest samples that are filtered together, counted at the lower of both rates. The more, the steeper the filter:
/// from 48 to 16 kHz all up to 7 kHz comes through unchanged, and what is above 8.5 kHz is 80 dB down.
const BLOCK_SAMPLES: usize = 512;

/// Changes the sample rate of one channel by windowed sinc filtering in the frequency domain. What the filter delays is
/// cut off again, so that nothing moves in time.
pub(super) struct Resampler {
    /// `None` where the rates are the same.
    filter: Option<Filter>,
}

struct Filter {
    fft: Fft<f32>,
    /// Input that does not fill a block yet.
    block: Vec<f32>,
    output: Vec<f32>,
    /// Output samples that are only delay and still to come.
    delay: usize,
    from_hz: u64,
    to_hz: u64,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// From `from_hz` to `to_hz` samples a second; both above 0.
    pub(super) fn new(from_hz: u32, to_hz: u32) -> Result<Self, MediaError> {
        if from_hz == to_hz {
            return Ok(Self { filter: None });
        }
        let window = WindowFunction::BlackmanHarris2;
        let (from, to) = (from_hz as usize, to_hz as usize);
        // A block is a multiple of the shortest one whose output has whole samples. It is an even multiple, because a filter
        // of odd length would delay by half a sample, which cannot be cut off.
        let shortest = from / gcd(from, to);
        let wanted = BLOCK_SAMPLES * from.max(to) / to;
        let block = shortest * wanted.div_ceil(shortest).next_multiple_of(2);
        let fft = Fft::new_custom(from, to, block, 1, 1, window, FixedSync::Both).map_err(|error| {
            MediaError::Encode { problem: format!("from {from_hz} to {to_hz} samples a second: {error}") }
        })?;
        let filter = Filter {
            block: Vec::with_capacity(fft.input_frames_next()),
            output: vec![0.0; fft.output_frames_max()],
            delay: fft.output_delay(),
            from_hz: from_hz.into(),
            to_hz: to_hz.into(),
            taken: 0,
            given: 0,
            fft,
        };
        Ok(Self { filter: Some(filter) })
    }

    /// Takes samples, and appends to `out` those that are ready.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        match &mut self.filter {
            Some(filter) => filter.push(samples, out),
            None => out.extend_from_slice(samples),
        }
    }

    /// Appends the rest to `out`: in all there are as many samples as the time that was put in needs.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) {
        let Some(filter) = &mut self.filter else { return };
        let wanted = (filter.taken * filter.to_hz).div_ceil(filter.from_hz);
        let silence = vec![0.0; filter.fft.input_frames_next()];
        while filter.given < wanted {
            let before = out.len();
            filter.push(&silence, out);
            let excess = filter.given.saturating_sub(wanted);
            out.truncate(out.len().saturating_sub(usize::try_from(excess).unwrap_or(usize::MAX)).max(before));
        }
    }
}

impl Filter {
    fn push(&mut self, mut samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        let block_len = self.fft.input_frames_next();
        while self.block.len() + samples.len() >= block_len {
            let (now, later) = samples.split_at(block_len - self.block.len());
            self.block.extend_from_slice(now);
            samples = later;
            self.filter_block(out);
            self.block.clear();
        }
        self.block.extend_from_slice(samples);
    }

    fn filter_block(&mut self, out: &mut Vec<f32>) {
        let (frames_in, frames_out) = (self.block.len(), self.output.len());
        let input = InterleavedSlice::new(&self.block[..], 1, frames_in);
        let output = InterleavedSlice::new_mut(&mut self.output[..], 1, frames_out);
        let (Ok(input), Ok(mut output)) = (input, output) else { return };
        // Both buffers have the sizes that it asked for, which is all that it checks.
        let made = self.fft.process_into_buffer(&input, &mut output, None).map_or(0, |(_, made)| made);
        let delay = self.delay.min(made);
        self.delay -= delay;
        out.extend_from_slice(&self.output[delay..made]);
        self.given += (made - delay) as u64;
    }
}

/// The greatest common divisor of two numbers above 0.
fn gcd(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
