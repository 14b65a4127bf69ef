//! Which tokens may come next: the logit filters of openai/whisper, `decoding.py` (`SuppressBlank`, `SuppressTokens`,
//! `ApplyTimestampRules`).

use super::numeric::{log_sum_exp, max};
use super::vocabulary::Specials;

/// The first time is not later than this many steps of 0.02 s: `max_initial_timestamp` of 1 s.
const FIRST_TIMESTAMP_MAX: usize = 50;

/// The rules of one model.
#[derive(Debug)]
pub(super) struct Rules {
    specials: Specials,
    suppressed: Vec<u32>,
    suppressed_first: Vec<u32>,
}

impl Rules {
    /// Rules that forbid the control tokens and `suppressed` everywhere, `suppressed_first` as the first token. Ids
    /// that `vocabulary` logits do not have are left out.
    pub(super) fn new(
        specials: Specials,
        suppressed: &[u32],
        suppressed_first: &[u32],
        vocabulary: usize,
    ) -> Self {
        let Specials { sot, translate, transcribe, sot_lm, sot_prev, no_speech, no_timestamps, .. } =
            specials;
        let controls = [sot, translate, transcribe, sot_lm, sot_prev, no_speech, no_timestamps];
        let exists = |id: &u32| (*id as usize) < vocabulary;
        Self {
            specials,
            suppressed: suppressed.iter().copied().filter(exists).chain(controls).collect(),
            suppressed_first: suppressed_first.iter().copied().filter(exists).collect(),
        }
    }

    /// Sets the logits of what may not follow `sampled`, the tokens generated so far, to minus infinity.
    pub(super) fn apply(&self, logits: &mut [f32], sampled: &[u32]) {
        let forbid = |logits: &mut [f32], ids: &[u32]| {
            ids.iter().for_each(|id| logits[*id as usize] = f32::NEG_INFINITY);
        };
        forbid(logits, &self.suppressed);
        if sampled.is_empty() {
            forbid(logits, &self.suppressed_first);
        }
        self.apply_timestamp_rules(logits, sampled);
    }

    fn apply_timestamp_rules(&self, logits: &mut [f32], sampled: &[u32]) {
        let begin = self.specials.timestamp_begin as usize;
        let forbid = |logits: &mut [f32]| logits.fill(f32::NEG_INFINITY);
        let is_timestamp = |token: &&u32| self.specials.is_timestamp(**token);
        let mut latest = sampled.iter().rev();
        let last_is_timestamp = latest.next().as_ref().is_some_and(is_timestamp);
        let last_but_one_is_timestamp = latest.next().as_ref().is_none_or(is_timestamp);

        // Times come in pairs, the end of a segment and the beginning of the next, except before the end of the text.
        match (last_is_timestamp, last_but_one_is_timestamp) {
            (true, true) => forbid(&mut logits[begin..]),
            (true, false) => forbid(&mut logits[..self.specials.eot as usize]),
            (false, _) => {}
        }
        if let Some(time) = sampled.iter().rev().find(is_timestamp) {
            // They do not go back, and a segment is not empty.
            let is_open = last_is_timestamp && !last_but_one_is_timestamp;
            let first = *time as usize + usize::from(!is_open);
            let first = first.min(logits.len());
            forbid(&mut logits[begin..first]);
        }
        if sampled.is_empty() {
            forbid(&mut logits[..begin]);
            forbid(&mut logits[begin + FIRST_TIMESTAMP_MAX + 1..]);
        }
        // A time comes if all of them together are likelier than the likeliest text.
        let (text, times) = logits.split_at_mut(begin);
        if log_sum_exp(times) > max(text) {
            forbid(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIALS: Specials = Specials {
        eot: 4,
        sot: 5,
        translate: 6,
        transcribe: 7,
        sot_lm: 8,
        sot_prev: 9,
        no_speech: 10,
        no_timestamps: 11,
        timestamp_begin: 12,
    };
    const VOCABULARY: usize = 12 + 1501;
    /// The token of a time, in steps of 0.02 s.
    const fn at(step: u32) -> u32 {
        12 + step
    }

    /// The allowed tokens after `sampled`, when all logits are 0 but these.
    fn allowed(sampled: &[u32], logits_set: &[(u32, f32)]) -> Vec<u32> {
        let mut logits = vec![0.0; VOCABULARY];
        logits_set.iter().for_each(|(token, logit)| logits[*token as usize] = *logit);
        Rules::new(SPECIALS, &[3, 99_999], &[1], VOCABULARY).apply(&mut logits, sampled);
        (0u32..).zip(&logits).filter(|(_, logit)| logit.is_finite()).map(|(token, _)| token).collect()
    }

    #[test]
    fn what_may_follow() {
        // Likelier than all times together: some text, and the end.
        let text = [(0, 20.0), (4, 20.0)];
        let times = |from: u32| (at(from)..VOCABULARY as u32).collect::<Vec<_>>();
        let text_or = |rest: Vec<u32>| [vec![0, 1, 2, 4], rest].concat();
        let cases = [
            ("a first time up to 1 s", vec![], (at(0)..=at(50)).collect()),
            ("text after the first time", vec![at(3)], text_or(vec![])),
            ("text, end or a later time after text", vec![at(3), 2], text_or(times(4))),
            ("the same time again, or the end, after the end of a segment", vec![at(3), 2, at(9)], {
                [vec![4], times(9)].concat()
            }),
            ("text after a pair of times", vec![at(3), 2, at(9), at(9)], text_or(vec![])),
            ("nothing but the end after the last time twice", vec![at(3), 2, at(1500)], vec![4, at(1500)]),
        ];
        for (name, sampled, expected) in cases {
            assert_eq!(allowed(&sampled, &text), expected, "{name}");
        }
    }

    #[test]
    fn many_unlikely_times_together_beat_one_likely_text() {
        // 1496 times of logit 0 sum to ln 1496, about 7.31.
        assert!(allowed(&[at(4), 2], &[(0, 7.32)]).contains(&0));
        assert!(!allowed(&[at(4), 2], &[(0, 7.30)]).contains(&0));
    }
}
