//! Whether sequences of different lengths may run together: tried when a decoder is loaded.
//!
//! A padded cell is hidden by the mask. Most decoders then compute what they compute without it. Those that count the mask
//! to know where a sequence is (such as `GroupQueryAttention` of onnxruntime-genai's exports) take padding on the left for
//! cells of the sequence, and nothing that a file declares tells them apart.

use pajamas_generation::{Batch, DecodeError, LmRunner};
use pajamas_pipelines::TensorRunner;

use crate::layout::Layout;
use crate::runner::{DecoderRunner, Limits};

/// Tokens of the two sequences that are tried.
const LENS: [usize; 2] = [3, 12];
/// Largest difference of a logit, as a part of the spread of all: half precision differs by a thousandth, a sequence that sees
/// other cells by a tenth and more.
const TOLERANCE: f32 = 0.02;

/// Runs a short sequence alone and beside a longer one, and compares. Also false if either fails: then it fails again where
/// somebody waits for the answer.
pub(crate) fn may_pad<R: TensorRunner>(network: R, layout: &Layout) -> (R, bool) {
    let has_one_row = layout.tokens.shape.first().is_some_and(|rows| *rows == Some(1));
    if has_one_row {
        return (network, false);
    }
    let (network, alone) = try_rows(network, layout, 1);
    let (network, together) = try_rows(network, layout, LENS.len());
    let is_same = match (alone, together) {
        (Ok(alone), Ok(together)) => differ_by(&alone, &together) <= TOLERANCE,
        (alone, together) => {
            tracing::debug!(
                "sequences are not run together: alone {:?}, together {:?}",
                alone.err(),
                together.err()
            );
            false
        }
    };
    (network, is_same)
}

/// The logits of one more token of each sequence, `rows_max` of them in a run.
fn try_rows<R: TensorRunner>(
    network: R,
    layout: &Layout,
    rows_max: usize,
) -> (R, Result<Vec<f32>, DecodeError>) {
    let limits = Limits { sequences: LENS.len(), context_len: LENS[1] + 1, rows_max };
    let mut runner = DecoderRunner::new(network, layout.clone(), limits);
    let logits = compute(&mut runner, layout.vocabulary);
    (runner.into_network(), logits)
}

fn compute<R: TensorRunner>(
    runner: &mut DecoderRunner<R>,
    vocabulary: usize,
) -> Result<Vec<f32>, DecodeError> {
    let token = |sequence: usize, position: usize| ((7 * position + 3 * sequence + 1) % vocabulary) as i32;
    let mut batch = Batch::default();
    for (sequence, len) in LENS.into_iter().enumerate() {
        for position in 0..len {
            batch.push(token(sequence, position), position, sequence, false);
        }
    }
    runner.decode(&mut batch, &|| false)?;
    batch.clear();
    for (sequence, len) in LENS.into_iter().enumerate() {
        batch.push(token(sequence, len), len, sequence, true);
    }
    runner.decode(&mut batch, &|| false)?;
    let rows: Vec<usize> = (0..LENS.len()).collect();
    let all: Option<Vec<&[f32]>> = runner.logits(&rows).into_iter().collect();
    let missing = || DecodeError::Failed("the decoder returned no logits".to_owned());
    Ok(all.ok_or_else(missing)?.concat())
}

/// The largest difference as a part of the spread.
fn differ_by(alone: &[f32], together: &[f32]) -> f32 {
    let (low, high) = alone.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    let largest = alone.iter().zip(together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Numbers that are none differ from everything.
    if (high - low).is_finite() && largest.is_finite() {
        largest / (high - low).max(f32::MIN_POSITIVE)
    } else {
        f32::MAX
    }
}
