//! From the logits of one row to the next token of one stream.
//!
//! Order: logit bias, penalties, grammar, then greedy choice, or the filters (top-k, top-p, min-p, in llama.cpp's
//! order, on the distribution at temperature 1), temperature and the draw. The draw is our own (see [`rng`]), because
//! a stream that is resumed must continue as if it had never stopped.

mod filters;
mod logprobs;
mod numeric;
mod penalties;
mod rng;

use pajamas_plugin_api::{Error, GenerateParams};

use crate::grammar::GrammarState;
use filters::{Candidate, Filters};
use penalties::Penalties;

/// A bias of this much or less bans the token.
const BAN_BIAS: f32 = -100.0;

/// The sampling state of one stream.
#[derive(Debug)]
pub(crate) struct Sampler {
    seed: u64,
    temperature: f32,
    /// `None` when no filter is active.
    filters: Option<Filters>,
    bias: Vec<(u32, f32)>,
    penalties: Penalties,
    grammar: Option<GrammarState>,
    top_logprobs: Option<usize>,
    /// Tokens of output so far, those of `resume` included.
    position: u64,
}

/// Buffers of a thread that chooses, for one stream after the other.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    logits: Vec<f32>,
    draw: Draw,
}

/// Buffers of a draw.
#[derive(Debug, Default)]
struct Draw {
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The token.
    pub token: u32,
    /// Its log-probability, 0 unless asked for.
    pub logprob: f32,
    /// Alternatives, best first, as (token, log-probability).
    pub top: Vec<(u32, f32)>,
}

/// Why no token could be chosen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SampleError {
    /// Bias and grammar leave nothing.
    #[error("no token is allowed here: the grammar and `logit_bias` exclude all")]
    NothingAllowed,
    /// The model computed NaN.
    #[error("the model computed values that are not numbers; the file may be damaged")]
    NotANumber,
    /// The grammar engine gave up, most often because the grammar is too complex for its limits.
    #[error("the grammar cannot be followed: {0}")]
    Grammar(String),
}

impl From<SampleError> for Error {
    fn from(error: SampleError) -> Self {
        match error {
            SampleError::NotANumber => Self::internal(error.to_string()),
            SampleError::NothingAllowed | SampleError::Grammar(_) => Self::invalid(error.to_string()),
        }
    }
}

impl Sampler {
    /// A sampler for a stream that starts after `prompt` and `params.resume`.
    ///
    /// # Errors
    /// A parameter is out of range, or `resume` does not fit the grammar.
    pub(crate) fn new(
        params: &GenerateParams,
        grammar: Option<GrammarState>,
        prompt: &[i32],
        vocabulary: usize,
    ) -> Result<Self, Error> {
        check(params, vocabulary)?;
        let mut penalties = Penalties::new(
            params.repeat_penalty,
            params.repeat_last_n as usize,
            params.frequency_penalty,
            params.presence_penalty,
        );
        penalties.see_prompt(prompt.iter().map(|token| token.cast_unsigned()));
        let bias = params
            .logit_bias
            .iter()
            .map(|(&token, &bias)| (token, if bias <= BAN_BIAS { f32::NEG_INFINITY } else { bias }))
            .collect();
        let mut sampler = Self {
            seed: params.seed,
            temperature: params.temperature,
            filters: Filters::new(params),
            bias,
            penalties,
            grammar,
            top_logprobs: params.top_logprobs.map(|count| (count as usize).min(logprobs::TOP_MAX)),
            position: 0,
        };
        for &token in &params.resume {
            sampler
                .accept(token)
                .map_err(|error| Error::invalid(format!("`resume` does not fit the grammar: {error}")))?;
        }
        Ok(sampler)
    }

    /// Chooses the token after the row with these logits. Changes nothing: see [`Sampler::accept`].
    pub(crate) fn sample(&mut self, raw: &[f32], scratch: &mut Scratch) -> Result<Choice, SampleError> {
        let adjusted = !self.bias.is_empty() || self.penalties.is_active() || self.grammar.is_some();
        let mut buffer = std::mem::take(&mut scratch.logits);
        let token = if adjusted {
            buffer.clear();
            buffer.extend_from_slice(raw);
            self.adjust(&mut buffer).and_then(|()| self.choose(&buffer, &mut scratch.draw))
        } else {
            self.choose(raw, &mut scratch.draw)
        };
        scratch.logits = buffer;
        let token = token?;
        let (mut logprob, mut top) = (0.0, Vec::new());
        if let Some(count) = self.top_logprobs {
            let total = logprobs::log_sum_exp(raw);
            logprob = raw.get(token as usize).map_or(f32::NEG_INFINITY, |logit| logit - total);
            logprobs::top(raw, count, &mut top);
            top.iter_mut().for_each(|(_, logit)| *logit -= total);
        }
        Ok(Choice { token, logprob, top })
    }

    /// Makes `token` part of the output.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), SampleError> {
        self.penalties.see_output(token);
        self.position += 1;
        match &mut self.grammar {
            Some(grammar) => grammar.accept(token).map_err(SampleError::Grammar),
            None => Ok(()),
        }
    }

    /// Whether the grammar allows nothing more.
    pub(crate) fn is_complete(&self) -> bool {
        self.grammar.as_ref().is_some_and(GrammarState::is_complete)
    }

    /// Tokens of output so far, those of `resume` included.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    fn adjust(&mut self, logits: &mut [f32]) -> Result<(), SampleError> {
        for &(token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        self.penalties.apply(logits);
        match &mut self.grammar {
            Some(grammar) => grammar.mask(logits).map_err(SampleError::Grammar),
            None => Ok(()),
        }
    }

    fn choose(&self, logits: &[f32], draw: &mut Draw) -> Result<u32, SampleError> {
        let (first, max) = numeric::argmax(logits);
        if !max.is_finite() {
            let banned = logits.iter().all(|logit| *logit == f32::NEG_INFINITY);
            return Err(if banned { SampleError::NothingAllowed } else { SampleError::NotANumber });
        }
        if self.temperature == 0.0 {
            return u32::try_from(first).map_err(|_| SampleError::NotANumber);
        }
        let random = rng::uniform(self.seed, self.position);
        let Draw { candidates, weights } = draw;
        let Some(filters) = &self.filters else {
            numeric::weights(logits.iter().copied(), max, self.temperature, weights);
            let index = draw_index(weights, random).ok_or(SampleError::NotANumber)?;
            return u32::try_from(index).map_err(|_| SampleError::NotANumber);
        };
        filters.apply(logits, max, candidates);
        numeric::weights(candidates.iter().map(|(_, logit)| *logit), max, self.temperature, weights);
        let chosen = draw_index(weights, random).and_then(|index| candidates.get(index));
        chosen.map(|(token, _)| *token).ok_or(SampleError::NotANumber)
    }
}

fn check(params: &GenerateParams, vocabulary: usize) -> Result<(), Error> {
    let ranges = [
        ("temperature", params.temperature, 0.0, f32::MAX),
        ("top_p", params.top_p, 0.0, 1.0),
        ("min_p", params.min_p, 0.0, 1.0),
        ("repeat_penalty", params.repeat_penalty, f32::MIN_POSITIVE, f32::MAX),
        ("frequency_penalty", params.frequency_penalty, -f32::MAX, f32::MAX),
        ("presence_penalty", params.presence_penalty, -f32::MAX, f32::MAX),
    ];
    for (name, value, min, max) in ranges {
        if !(min..=max).contains(&value) {
            return Err(Error::invalid(format!("`{name}` is {value}, expected {min} to {max}")));
        }
    }
    if params.top_logprobs.is_some_and(|count| count as usize > logprobs::TOP_MAX) {
        return Err(Error::invalid(format!("`top_logprobs` is above the maximum of {}", logprobs::TOP_MAX)));
    }
    if let Some((token, _)) = params.logit_bias.iter().find(|(token, _)| **token as usize >= vocabulary) {
        return Err(Error::invalid(format!(
            "`logit_bias` names token {token}, but the model has {vocabulary} tokens, from 0"
        )));
    }
    if params.logit_bias.values().any(|bias| !bias.is_finite()) {
        return Err(Error::invalid("`logit_bias` holds a value that is not a number"));
    }
    Ok(())
}

/// The index that `random` (0 to 1) falls on when each index has a share as large as its weight.
fn draw_index(weights: &[f32], random: f64) -> Option<usize> {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut left = random * total;
    let mut last = None;
    for (index, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            // Rounding may leave a rest after the last weight, which then gets it.
            last = Some(index);
            if left < f64::from(weight) {
                break;
            }
        }
        left -= f64::from(weight);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(params: &GenerateParams) -> Sampler {
        Sampler::new(params, None, &[], 4).unwrap()
    }

    fn run(params: &GenerateParams, logits: &[f32], draws: u32) -> Vec<u32> {
        let mut sampler = sampler(params);
        let mut scratch = Scratch::default();
        (0..draws)
            .map(|_| {
                let choice = sampler.sample(logits, &mut scratch).unwrap();
                sampler.accept(choice.token).unwrap();
                choice.token
            })
            .collect()
    }

    #[test]
    fn greedy_takes_the_lowest_of_equal_tokens() {
        let params = GenerateParams { temperature: 0.0, ..Default::default() };
        assert_eq!(run(&params, &[1.0, 3.0, 3.0, 2.0], 2), [1, 1]);
    }

    #[test]
    fn filters_leave_only_what_they_keep() {
        let logits = [0.0, 3.0, 2.9, -1.0];
        for (params, allowed) in [
            (GenerateParams { top_k: 1, ..Default::default() }, &[1][..]),
            (GenerateParams { top_k: 2, ..Default::default() }, &[1, 2]),
            (GenerateParams { top_p: 0.9, ..Default::default() }, &[1, 2]),
            (GenerateParams { min_p: 0.5, ..Default::default() }, &[1, 2]),
            (
                GenerateParams { logit_bias: [(1, -100.0)].into(), temperature: 0.0, ..Default::default() },
                &[2],
            ),
            (GenerateParams { logit_bias: [(3, 50.0)].into(), ..Default::default() }, &[3]),
        ] {
            let tokens = run(&params, &logits, 200);
            assert!(tokens.iter().all(|token| allowed.contains(token)), "{params:?}: {tokens:?}");
            assert!(allowed.iter().all(|token| tokens.contains(token)), "{params:?}: {tokens:?}");
        }
    }

    #[test]
    fn draws_follow_the_distribution_and_the_temperature() {
        let logits = [0.0, 2.0f32.ln(), f32::NEG_INFINITY, 1.0f32.ln()];
        let share = |params: &GenerateParams| {
            run(params, &logits, 4000).iter().filter(|&&token| token == 1).count() as f64 / 4000.0
        };
        let plain = share(&GenerateParams::default());
        assert!((plain - 0.5).abs() < 0.03, "{plain}");
        let hot = share(&GenerateParams { temperature: 0.5, ..Default::default() });
        assert!((hot - 4.0 / 6.0).abs() < 0.03, "{hot}");
    }

    #[test]
    fn a_resumed_sampler_draws_what_the_uninterrupted_one_does() {
        let params = GenerateParams { seed: 11, frequency_penalty: 0.3, top_p: 0.95, ..Default::default() };
        let logits = [0.4, 0.3, 0.2, 0.1];
        let whole = run(&params, &logits, 40);
        let resumed = GenerateParams { resume: whole[..17].to_vec(), ..params };
        assert_eq!(run(&resumed, &logits, 23), whole[17..]);
    }

    #[test]
    fn logprobs_are_those_of_the_raw_distribution() {
        let params =
            GenerateParams { top_logprobs: Some(2), logit_bias: [(0, 100.0)].into(), ..Default::default() };
        let mut sampler = sampler(&params);
        let mut scratch = Scratch::default();
        let choice = sampler.sample(&[0.0, 0.0, 0.0, 0.0], &mut scratch).unwrap();
        assert_eq!(choice.token, 0);
        assert!((choice.logprob - 0.25f32.ln()).abs() < 1e-6);
        assert_eq!(choice.top.len(), 2);
    }

    #[test]
    fn values_out_of_range_and_impossible_choices_are_errors() {
        for params in [
            GenerateParams { temperature: -1.0, ..Default::default() },
            GenerateParams { temperature: f32::NAN, ..Default::default() },
            GenerateParams { top_p: 1.5, ..Default::default() },
            GenerateParams { repeat_penalty: 0.0, ..Default::default() },
            GenerateParams { top_logprobs: Some(21), ..Default::default() },
            GenerateParams { logit_bias: [(9, 1.0)].into(), ..Default::default() },
        ] {
            assert!(Sampler::new(&params, None, &[], 4).is_err(), "{params:?}");
        }
        let banned =
            GenerateParams { logit_bias: (0..4).map(|t| (t, -100.0)).collect(), ..Default::default() };
        let mut scratch = Scratch::default();
        assert!(matches!(sampler(&banned).sample(&[0.0; 4], &mut scratch), Err(SampleError::NothingAllowed)));
        let plain = GenerateParams::default();
        assert!(matches!(sampler(&plain).sample(&[f32::NAN; 4], &mut scratch), Err(SampleError::NotANumber)));
    }
}
