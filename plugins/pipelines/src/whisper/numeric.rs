//! Sums and choices over logits.

/// The largest value; minus infinity if there is none. NaN loses.
pub(super) fn max(values: &[f32]) -> f32 {
    values.iter().fold(f32::NEG_INFINITY, |max, value| if *value > max { *value } else { max })
}

/// Logarithm of the sum of exponentials, computed around the maximum so that nothing overflows.
pub(super) fn log_sum_exp(values: &[f32]) -> f32 {
    let max = max(values);
    if max == f32::NEG_INFINITY {
        return max;
    }
    max + values.iter().map(|value| (value - max).exp()).sum::<f32>().ln()
}

/// The first index of the largest value; 0 if there is none.
pub(super) fn argmax(values: &[f32]) -> usize {
    let max = max(values);
    values.iter().position(|value| *value == max).unwrap_or(0)
}

/// Draws an index with the probabilities of `softmax(logits / temperature)`, from a number in [0, 1).
pub(super) fn sample(logits: &[f32], temperature: f32, uniform: f64) -> usize {
    let max = max(logits);
    let weight = |logit: &f32| f64::from(((logit - max) / temperature).exp());
    let mut left = uniform * logits.iter().map(weight).sum::<f64>();
    let drawn = logits.iter().position(|logit| {
        let weight = weight(logit);
        left -= weight;
        left < 0.0 && weight > 0.0
    });
    drawn.unwrap_or_else(|| argmax(logits))
}

/// `softmax(logits)[index]`.
pub(super) fn probability(logits: &[f32], index: usize) -> f32 {
    (logits[index] - log_sum_exp(logits)).exp()
}

/// The number as JSON is to show it: to six places, without what single precision adds to them.
pub(super) fn decimal(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_overflow() {
        assert!((log_sum_exp(&[1000.0, 1000.0]) - 1000.6931).abs() < 1e-3);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
        assert!((probability(&[0.0, 0.0, f32::NEG_INFINITY], 1) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0, f32::NEG_INFINITY, 2f32.ln()]; // 1/3, 0, 2/3
        for (uniform, expected) in [(0.0, 0), (0.33, 0), (0.34, 2), (0.999_999, 2)] {
            assert_eq!(sample(&logits, 1.0, uniform), expected, "{uniform}");
        }
        // Half the temperature squares the odds: 1/5, 4/5.
        assert_eq!(sample(&logits, 0.5, 0.19), 0);
        assert_eq!(sample(&logits, 0.5, 0.21), 2);
    }

    #[test]
    fn a_broken_network_gives_some_token() {
        for values in [[f32::NAN; 2], [f32::NEG_INFINITY; 2]] {
            assert!(argmax(&values) < 2);
            assert!(sample(&values, 1.0, 0.5) < 2);
        }
    }
}
