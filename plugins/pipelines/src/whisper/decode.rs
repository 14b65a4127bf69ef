//! One window of 30 s: from encoded sound to tokens, hotter if the result is poor.
//!
//! Source: `decode_with_fallback` of openai/whisper, `transcribe.py`, and `DecodingTask`, `decoding.py`, with one sequence
//! (no beam search, no `best_of`): greedy at temperature 0, one sample above it.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pajamas_plugin_api::{Error, Event, Job};

use super::Model;
use super::network::Prefilled;
use super::numeric::{argmax, log_sum_exp, probability, sample};
use crate::runner::TensorRunner;

/// Below this average log-probability of its tokens a result is poor.
pub(super) const LOGPROB_MIN: f32 = -1.0;
/// Above this a window counts as silent, if its tokens are improbable, too.
pub(super) const NO_SPEECH_MAX: f32 = 0.6;
/// Text that compresses better than this repeats itself.
const COMPRESSION_RATIO_MAX: f32 = 2.4;
/// A window of a large model takes minutes when all temperatures are tried, and a job without events counts as hanging.
const TOKENS_PER_SIGN: usize = 32;
/// What is tried, one after the other, when no temperature is asked for.
const TEMPERATURES: &[f32] = &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0];

/// What was understood of one window.
#[derive(Clone, Debug)]
pub(super) struct Decoded {
    /// Text and times, without the end of the text.
    pub(super) tokens: Vec<u32>,
    /// Average log-probability of the tokens, the end of the text included.
    pub(super) avg_logprob: f32,
    /// Probability that nobody speaks.
    pub(super) no_speech: f32,
    /// Length of the text by its length when compressed.
    pub(super) compression_ratio: f32,
    /// The temperature that gave this.
    pub(super) temperature: f32,
}

/// What goes before the tokens of a window.
pub(super) struct Prompt {
    /// All of it.
    pub(super) tokens: Vec<u32>,
    /// Where the transcript starts in it.
    pub(super) start: usize,
}

/// How to choose tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// 0: try several (see [`decode`]); otherwise only this one.
    pub(super) temperature: f32,
    /// Seed of the window's draws.
    pub(super) seed: u64,
    /// How much of the sound is done: what the signs of life report.
    pub(super) done: f32,
}

impl Decoded {
    /// Whether the window is to be skipped: nobody seems to speak, and what was heard is not convincing.
    pub(super) fn is_silence(&self) -> bool {
        self.no_speech > NO_SPEECH_MAX && self.avg_logprob <= LOGPROB_MIN
    }

    /// Whether a higher temperature may do better.
    fn is_poor(&self) -> bool {
        let is_improbable = self.avg_logprob < LOGPROB_MIN;
        let is_silent = self.no_speech > NO_SPEECH_MAX && is_improbable;
        (self.compression_ratio > COMPRESSION_RATIO_MAX || is_improbable) && !is_silent
    }
}

/// Decodes a window; `None` if the job was cancelled. The prompt is read once for all temperatures.
pub(super) fn decode<R: TensorRunner>(
    model: &Model<R>,
    audio: &R::Value,
    prompt: &Prompt,
    choice: Choice,
    job: &Job,
) -> Result<Option<Decoded>, Error> {
    let prefilled = model.network.prefill(&prompt.tokens, audio)?;
    let mut row = Vec::new();
    prefilled.logits.copy_row(prompt.start, &mut row)?;
    let no_speech = probability(&row, model.vocabulary.specials.no_speech as usize);
    let chosen = [choice.temperature];
    let temperatures = if choice.temperature > 0.0 { &chosen } else { TEMPERATURES };
    let mut best = None;
    for temperature in temperatures {
        let choice = Choice { temperature: *temperature, ..choice };
        let attempt = Attempt { model, job, choice, row: &mut row };
        let Some(sequence) = attempt.run(prompt.tokens.len(), &prefilled)? else { return Ok(None) };
        let text = model.vocabulary.decode(&sequence.tokens)?;
        let decoded = Decoded {
            avg_logprob: sequence.sum_logprob / (sequence.tokens.len() + 1) as f32,
            tokens: sequence.tokens,
            no_speech,
            compression_ratio: compression_ratio(text.trim()),
            temperature: *temperature,
        };
        let is_poor = decoded.is_poor();
        best = Some(decoded);
        if !is_poor {
            break;
        }
    }
    Ok(best)
}

/// One try at one temperature.
struct Attempt<'a, R> {
    model: &'a Model<R>,
    job: &'a Job,
    choice: Choice,
    row: &'a mut Vec<f32>,
}

struct Sequence {
    tokens: Vec<u32>,
    sum_logprob: f32,
}

impl<R: TensorRunner> Attempt<'_, R> {
    /// Generates until the end of the text, half the context, or its end; `None` if cancelled.
    fn run(self, prompt_len: usize, prefilled: &Prefilled<R::Value>) -> Result<Option<Sequence>, Error> {
        let Self { model, job, choice: Choice { temperature, seed, done }, row } = self;
        let mut random = fastrand::Rng::with_seed(seed ^ u64::from(temperature.to_bits()));
        let mut sequence = Sequence { tokens: Vec::new(), sum_logprob: 0.0 };
        let context = model.config.context;
        let mut cache = prefilled.cache.clone();
        prefilled.logits.copy_last_row(row)?;
        loop {
            if job.is_cancelled() {
                return Ok(None);
            }
            if sequence.tokens.len().is_multiple_of(TOKENS_PER_SIGN) {
                job.push(&Event::Progress { fraction: done, text: "" });
            }
            model.rules.apply(row, &sequence.tokens);
            let next = if temperature > 0.0 { sample(row, temperature, random.f64()) } else { argmax(row) };
            sequence.sum_logprob += row[next] - log_sum_exp(row);
            let next = next as u32;
            if next == model.vocabulary.specials.eot {
                break;
            }
            sequence.tokens.push(next);
            if sequence.tokens.len() >= context / 2 || prompt_len + sequence.tokens.len() > context {
                break;
            }
            model.network.step(next, &mut cache)?.copy_last_row(row)?;
        }
        Ok(Some(sequence))
    }
}

/// Bytes of the text by bytes of its zlib stream (`compression_ratio` of openai/whisper, `utils.py`).
fn compression_ratio(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail; if it did, the text would count as one that does not repeat itself.
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    compressed.map_or(0.0, |compressed| text.len() as f32 / compressed.len() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_compresses() {
        // Python: len(t) / len(zlib.compress(t)).
        let cases = [
            ("", 0.0, 0.0),
            ("It was the best of times, it was the worst of times.", 1.21, 0.05),
            (&"you ".repeat(100), 23.5, 3.0),
        ];
        for (text, expected, tolerance) in cases {
            let ratio = compression_ratio(text);
            assert!((ratio - expected).abs() <= tolerance, "{text}: {ratio}");
        }
    }

    #[test]
    fn poor_and_silent() {
        let decoded = |avg_logprob, no_speech, compression_ratio| {
            let decoded =
                Decoded { tokens: vec![], avg_logprob, no_speech, compression_ratio, temperature: 0.0 };
            (decoded.is_poor(), decoded.is_silence())
        };
        assert_eq!(decoded(-0.3, 0.1, 1.5), (false, false), "a good one");
        assert_eq!(decoded(-0.3, 0.1, 2.5), (true, false), "it repeats itself");
        assert_eq!(decoded(-1.1, 0.1, 1.5), (true, false), "improbable");
        assert_eq!(decoded(-1.1, 0.7, 1.5), (false, true), "silence");
        assert_eq!(decoded(-0.3, 0.7, 1.5), (false, false), "speech after all");
    }
}
