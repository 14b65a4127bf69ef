//! Log-probabilities of the model's own distribution: the log-softmax of the raw logits, before bias, penalties,
//! grammar, filters and temperature, as OpenAI reports them.

/// Most alternatives that can be asked for; OpenAI's limit.
pub(crate) const TOP_MAX: usize = 20;

/// The logarithm of the sum of the exponentials, computed without overflow.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = super::numeric::max(logits);
    let sum: f64 = logits.iter().map(|logit| f64::from(super::numeric::exp(logit - max))).sum();
    max + sum.ln() as f32
}

/// The `count` largest logits with their tokens, best first; among equals the lower token comes first.
pub(crate) fn top(logits: &[f32], count: usize, best: &mut Vec<(u32, f32)>) {
    best.clear();
    if count == 0 {
        return;
    }
    for (token, &logit) in (0u32..).zip(logits) {
        if best.len() == count && best.last().is_some_and(|&(_, worst)| logit <= worst) {
            continue;
        }
        let place = best.partition_point(|&(_, other)| other >= logit);
        best.truncate(count - 1);
        best.insert(place, (token, logit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_is_the_head_of_the_sorted_list() {
        let logits = [1.0, 5.0, 5.0, -3.0, 2.0, f32::NEG_INFINITY];
        let mut best = Vec::new();
        for count in 0..8 {
            top(&logits, count, &mut best);
            let mut all: Vec<(u32, f32)> = (0..).zip(logits).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all.truncate(count);
            assert_eq!(best, all, "{count}");
        }
    }

    #[test]
    fn probabilities_sum_to_one_without_overflow() {
        let logits = [1000.0f32, 1001.0, 990.0];
        let lse = log_sum_exp(&logits);
        let sum: f32 = logits.iter().map(|l| (l - lse).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
    }
}
