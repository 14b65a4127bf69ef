//! Arithmetic over whole vocabularies, written so that the compiler turns it into vector instructions. It also makes a
//! draw independent of the system's mathematics library.

/// Lanes that are worked on side by side.
const LANES: usize = 16;

/// The largest value; values that are not numbers are passed over.
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut best = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (best, value) in best.iter_mut().zip(chunk) {
            *best = larger(*best, *value);
        }
    }
    best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// Values that [`argmax`] looks at for their largest before it looks for its place.
const BLOCK: usize = 1024;

/// The place of the largest value, the first of equal ones, and the value. One pass over all values and one over a block:
/// comparing each value with the maximum would take longer than finding it.
pub(crate) fn argmax(values: &[f32]) -> (usize, f32) {
    let (mut best, mut begin) = (f32::NEG_INFINITY, 0);
    for (index, block) in values.chunks(BLOCK).enumerate() {
        let largest = max(block);
        if largest > best {
            (best, begin) = (largest, index * BLOCK);
        }
    }
    let inside = values[begin..].iter().position(|value| *value == best).unwrap_or(0);
    (begin + inside, best)
}

/// Fills `weights` with `exp((value - max) / temperature)`.
pub(crate) fn weights(values: impl Iterator<Item = f32>, max: f32, temperature: f32, weights: &mut Vec<f32>) {
    weights.clear();
    weights.extend(values);
    let scale = 1.0 / temperature;
    for weight in weights.iter_mut() {
        *weight = exp((*weight - max) * scale);
    }
}

/// The exponential function for arguments of at most 0, with a relative error below 3e-7; 0 below -87.
///
/// exp(x) = 2^n exp(r) with n the integer next to x / ln 2, and a polynomial for exp(r), |r| <= ln(2) / 2: the method
/// and the coefficients of Cephes (S. Moshier, `expf`).
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x > -87.0 { x } else { -87.0 };
    let n = (bounded * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = bounded - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let power = f32::from_bits(((n as i32 + 127) << 23).cast_unsigned());
    let value = (p * r * r + r + 1.0) * power;
    if x > -87.0 { value } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_real_one() {
        for step in 0..=87_000 {
            let x = -(step as f32) / 1000.0;
            let (ours, real) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(x <= -87.0 || ((ours - real) / real).abs() < 3e-7, "{x}: {ours} {real}");
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert_eq!(exp(f32::NAN), 0.0);
    }

    #[test]
    fn max_finds_the_largest_anywhere() {
        for len in [1, 15, 16, 17, 100] {
            for at in 0..len {
                let mut values = vec![-5.0; len];
                values[at] = -1.0;
                assert_eq!(max(&values), -1.0);
            }
        }
        for len in [1, 1023, 1024, 1025, 5000] {
            for at in [0, len / 2, len - 1] {
                let mut values = vec![-5.0; len];
                values[at] = -1.0;
                values[len - 1] = -1.0;
                assert_eq!(argmax(&values), (at, -1.0), "{len}");
            }
        }
        assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), (0, f32::NEG_INFINITY));
        assert_eq!(argmax(&[]), (0, f32::NEG_INFINITY));
        assert_eq!(max(&[f32::NAN, 2.0]), 2.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }
}
