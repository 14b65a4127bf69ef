//! Where sound begins and ends.

use std::ops::Range;

use hook_common::config::Fields;

/// Loudness is that of pieces this long.
const FRAMES_PER_S: u32 = 100;
/// The bytes of a sample.
const SAMPLE: usize = 4;

/// What the operator wants.
#[derive(Debug)]
pub struct Rules {
    /// The mean square below which a piece is silent; full scale is 1.
    power_min: f64,
    padding_ms: u32,
    kept_ms_min: u32,
    reject_silence: bool,
    message: String,
}

/// What is to be done with a sound.
#[derive(Debug, PartialEq)]
pub enum Cut {
    /// Nothing.
    Pass,
    /// Only these samples are kept.
    Keep(Range<usize>),
    /// It is refused.
    Reject(String),
}

impl Rules {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When something is wrong in it; the message says what.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(json)?;
        let threshold_dbfs = fields.number("threshold_dbfs", -120.0..=0.0)?.unwrap_or(-45.0);
        let padding_ms = fields.whole("padding_ms", 0..=60_000)?.unwrap_or(100);
        let kept_ms_min = fields.whole("kept_ms_min", 0..=60_000)?.unwrap_or(500);
        let reject_silence =
            fields.choice("all_silent", &[("pass", false), ("reject", true)])?.unwrap_or(false);
        let message = fields.text("message")?.unwrap_or_else(|| "the sound is silent".to_owned());
        fields.finish()?;
        let power_min = 10_f64.powf(threshold_dbfs / 10.0);
        Ok(Self { power_min, padding_ms, kept_ms_min, reject_silence, message })
    }

    /// Says which part of a sound is kept. `bytes` are 32-bit floats in little-endian order.
    #[must_use]
    pub fn cut(&self, sample_rate_hz: u32, bytes: &[u8]) -> Cut {
        let rate = to_usize(sample_rate_hz);
        let frame = to_usize(sample_rate_hz / FRAMES_PER_S).max(1);
        let len = bytes.len() / SAMPLE;
        let is_loud = |frame: &[u8]| power(frame) >= self.power_min;
        let Some(first) = bytes.chunks(frame * SAMPLE).position(is_loud) else {
            return if self.reject_silence { Cut::Reject(self.message.clone()) } else { Cut::Pass };
        };
        // From the end in the same pieces, so that the last one may be short.
        let last = bytes.chunks(frame * SAMPLE).rposition(is_loud).unwrap_or(first);
        let padding = samples(self.padding_ms, rate);
        let begin = (first * frame).saturating_sub(padding);
        let end = ((last + 1) * frame).saturating_add(padding).min(len);

        let missing = samples(self.kept_ms_min, rate).saturating_sub(end - begin);
        let begin = begin.saturating_sub(missing / 2);
        let end = end.saturating_add(missing.div_ceil(2)).min(len);
        if begin == 0 && end == len { Cut::Pass } else { Cut::Keep(begin..end) }
    }
}

/// Leaves these samples of a sound.
pub fn keep(bytes: &mut Vec<u8>, range: Range<usize>) {
    bytes.truncate(range.end * SAMPLE);
    bytes.drain(..range.start * SAMPLE);
}

fn power(frame: &[u8]) -> f64 {
    let samples =
        frame.chunks_exact(SAMPLE).filter_map(|bytes| bytes.try_into().ok()).map(f32::from_le_bytes);
    let (count, sum) = samples.fold((0, 0.0), |(count, sum), sample| (count + 1, sum + sample * sample));
    if count == 0 { 0.0 } else { f64::from(sum) / f64::from(count) }
}

fn samples(ms: u32, rate: usize) -> usize {
    to_usize(ms) * rate / 1000
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
