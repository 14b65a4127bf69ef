//! Which tokens may be drawn at all: top-k, top-p and min-p, one after the other, as llama.cpp orders them. Each looks at
//! the distribution at temperature 1 over what the filters before it have left, and at least one token stays.

use std::cmp::Ordering;

use pajamas_plugin_api::GenerateParams;

use super::numeric;

/// Candidates that top-p sorts first: nearly always enough, because the head of a distribution has nearly all of it.
const SORTED_FIRST: usize = 256;

/// A token and its logit.
pub(super) type Candidate = (u32, f32);

/// The filters of one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filters {
    /// How many of the likeliest tokens stay; `None` is all.
    top_k: Option<usize>,
    /// The likeliest tokens stay whose probabilities sum up to this; 1 is all.
    top_p: f32,
    /// Tokens stay that have at least this share of the likeliest one's probability; 0 is all.
    min_p: f32,
}

impl Filters {
    /// The filters that `params` ask for; `None` when there are none.
    pub(super) fn new(params: &GenerateParams) -> Option<Self> {
        let filters = Self {
            top_k: (params.top_k > 0).then_some(params.top_k as usize),
            top_p: params.top_p,
            min_p: params.min_p,
        };
        let is_needed = filters.top_k.is_some() || filters.top_p < 1.0 || filters.min_p > 0.0;
        (params.temperature > 0.0 && is_needed).then_some(filters)
    }

    /// Fills `candidates` with what is left of a row whose largest logit is `max`, likeliest first unless only min-p was
    /// asked for.
    pub(super) fn apply(&self, logits: &[f32], max: f32, candidates: &mut Vec<Candidate>) {
        candidates.clear();
        // What is banned has no probability and need not be sorted.
        let possible = (0u32..).zip(logits.iter().copied()).filter(|(_, logit)| *logit > f32::NEG_INFINITY);
        // Min-p alone of the filters does not depend on the ones before: the likeliest token passes all of them.
        let floor = if self.min_p > 0.0 { max + self.min_p.ln() } else { f32::NEG_INFINITY };
        if self.top_p < 1.0 {
            candidates.extend(possible);
        } else {
            candidates.extend(possible.filter(|(_, logit)| *logit >= floor));
        }
        if let Some(top_k) = self.top_k {
            keep_likeliest(candidates, top_k);
        }
        if self.top_p < 1.0 {
            keep_share(candidates, max, self.top_p);
            let len = candidates.partition_point(|(_, logit)| *logit >= floor);
            candidates.truncate(len.max(1));
        }
    }
}

/// Likeliest first, then by id, so that the order does not depend on how it was sorted.
fn order(left: &Candidate, right: &Candidate) -> Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}

/// Leaves the `count` likeliest, in order.
fn keep_likeliest(candidates: &mut Vec<Candidate>, count: usize) {
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, order);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(order);
}

/// Leaves the likeliest, in order, until their probabilities reach the share `top_p` of all.
fn keep_share(candidates: &mut Vec<Candidate>, max: f32, top_p: f32) {
    let weight = |candidate: &Candidate| f64::from(numeric::exp(candidate.1 - max));
    let wanted = f64::from(top_p) * candidates.iter().map(weight).sum::<f64>();
    let (mut reached, mut sorted) = (0.0, 0);
    let mut step = SORTED_FIRST;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let len = step.min(rest.len());
        if len < rest.len() {
            rest.select_nth_unstable_by(len, order);
        }
        rest[..len].sort_unstable_by(order);
        for (index, candidate) in rest[..len].iter().enumerate() {
            reached += weight(candidate);
            if reached >= wanted {
                candidates.truncate(sorted + index + 1);
                return;
            }
        }
        sorted += len;
        step *= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, as simple as it can be said.
    fn reference(params: &GenerateParams, logits: &[f32]) -> Vec<u32> {
        let mut all: Vec<Candidate> = (0..).zip(logits.iter().copied()).collect();
        all.retain(|(_, logit)| *logit > f32::NEG_INFINITY);
        all.sort_by(order);
        if params.top_k > 0 {
            all.truncate(params.top_k as usize);
        }
        let max = all[0].1;
        if params.top_p < 1.0 {
            let weight = |candidate: &Candidate| f64::from(numeric::exp(candidate.1 - max));
            let wanted = f64::from(params.top_p) * all.iter().map(weight).sum::<f64>();
            let mut reached = 0.0;
            let enough = all.iter().position(|candidate| {
                reached += weight(candidate);
                reached >= wanted
            });
            all.truncate(enough.map_or(all.len(), |index| index + 1));
        }
        if params.min_p > 0.0 {
            all.retain(|(_, logit)| *logit >= max + params.min_p.ln());
        }
        all.into_iter().map(|(token, _)| token).collect()
    }

    proptest! {
        #[test]
        fn filters_keep_what_their_definition_says(
            steps in prop::collection::vec(-400i32..400, 1..1500),
            banned in 0usize..1500,
            top_k in prop_oneof![Just(0u32), 1u32..60, 1000u32..2000],
            top_p in prop_oneof![Just(1.0f32), 0.0f32..1.0],
            min_p in prop_oneof![Just(0.0f32), 0.0f32..1.0],
        ) {
            // Multiples of a power of two, so that equal logits come up and sums are exact enough to compare.
            let mut logits: Vec<f32> = steps.iter().map(|step| *step as f32 / 32.0).collect();
            if logits.len() > 1 && let Some(logit) = logits.get_mut(banned) {
                *logit = f32::NEG_INFINITY;
            }
            let params = GenerateParams { temperature: 0.7, top_k, top_p, min_p, ..Default::default() };
            let max = numeric::max(&logits);
            let Some(filters) = Filters::new(&params) else {
                prop_assert!(top_k == 0 && top_p >= 1.0 && min_p <= 0.0);
                return Ok(());
            };
            let mut candidates = Vec::new();
            filters.apply(&logits, max, &mut candidates);
            let mut kept: Vec<u32> = candidates.iter().map(|(token, _)| *token).collect();
            let mut expected = reference(&params, &logits);
            prop_assert!(!kept.is_empty());
            // A sum over another order may cross the share one token earlier or later; nothing else may differ.
            if top_p < 1.0 && kept.len().abs_diff(expected.len()) == 1 {
                let len = kept.len().min(expected.len());
                kept.truncate(len);
                expected.truncate(len);
            }
            kept.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(kept, expected);
        }
    }
}
