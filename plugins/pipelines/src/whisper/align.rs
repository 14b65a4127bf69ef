//! Which token is spoken when: dynamic time warping over the decoder's attention to the sound.
//!
//! Source: openai/whisper, `timing.py` (`find_alignment`, `median_filter`, `dtw_cpu`).

/// Width of the median filter over time, odd.
const MEDIAN_WIDTH: usize = 7;

/// Weights of one head: a row for each token, a column for each 0.02 s of sound.
pub(super) struct Heads {
    rows: usize,
    columns: usize,
    /// The sum over all heads added so far.
    sum: Vec<f32>,
    heads: usize,
}

impl Heads {
    /// No head yet.
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        Self { rows, columns, sum: vec![0.0; rows * columns], heads: 0 }
    }

    /// Adds a head. Its rows are `stride` long; what is behind the columns is not sound.
    ///
    /// openai/whisper takes the softmax over the columns of the sound alone, the network over all: dividing by the rest's
    /// share gives the same. Then each column is standardised over the tokens, and each row smoothed.
    pub(super) fn add(&mut self, weights: &[f32], stride: usize) {
        let mut matrix: Vec<f32> = weights
            .chunks_exact(stride)
            .take(self.rows)
            .flat_map(|row| {
                let row = &row[..self.columns];
                let share = row.iter().sum::<f32>().max(f32::MIN_POSITIVE);
                row.iter().map(move |weight| weight / share)
            })
            .collect();
        standardise_columns(&mut matrix, self.columns);
        let mut smooth = vec![0.0; self.columns];
        for (sum, row) in self.sum.chunks_exact_mut(self.columns).zip(matrix.chunks_exact(self.columns)) {
            median_filter(row, &mut smooth);
            sum.iter_mut().zip(&smooth).for_each(|(sum, value)| *sum += value);
        }
        self.heads += 1;
    }

    /// The column at which each of the rows `first` to the last but one begins, on the path of most attention.
    pub(super) fn begins(&self, first: usize) -> Vec<usize> {
        let scale = -1.0 / self.heads.max(1) as f32;
        let rows = self.sum.chunks_exact(self.columns).take(self.rows.saturating_sub(1)).skip(first);
        let cost: Vec<f32> = rows.flatten().map(|sum| sum * scale).collect();
        row_begins(&cost, self.columns)
    }
}

/// (x - mean) / standard deviation of each column; a column without any is 0.
fn standardise_columns(matrix: &mut [f32], columns: usize) {
    let rows = (matrix.len() / columns) as f32;
    let mut mean = vec![0.0f32; columns];
    for row in matrix.chunks_exact(columns) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / rows);
    }
    let mut variance = vec![0.0f32; columns];
    for row in matrix.chunks_exact(columns) {
        let deviations = row.iter().zip(&mean).map(|(value, mean)| (value - mean).powi(2) / rows);
        variance.iter_mut().zip(deviations).for_each(|(variance, deviation)| *variance += deviation);
    }
    let inverse: Vec<f32> = variance.iter().map(|v| if *v > 0.0 { v.sqrt().recip() } else { 0.0 }).collect();
    for row in matrix.chunks_exact_mut(columns) {
        for ((value, mean), inverse) in row.iter_mut().zip(&mean).zip(&inverse) {
            *value = (*value - mean) * inverse;
        }
    }
}

/// The median of each value and its neighbours, mirrored at both ends; a row too short for that stays as it is.
fn median_filter(row: &[f32], out: &mut [f32]) {
    let half = MEDIAN_WIDTH / 2;
    if row.len() <= half {
        out.copy_from_slice(row);
        return;
    }
    let last = row.len() - 1;
    for (i, out) in out.iter_mut().enumerate() {
        let mut window = [0.0f32; MEDIAN_WIDTH];
        for (j, value) in window.iter_mut().enumerate() {
            let position = (i + j).abs_diff(half);
            *value = row[if position > last { 2 * last - position } else { position }];
        }
        window.sort_unstable_by(f32::total_cmp);
        *out = window[half];
    }
}

/// The cheapest path through `cost` from its first to its last element, one row or column or both at a time, as the
/// column at which the path enters each row.
fn row_begins(cost: &[f32], columns: usize) -> Vec<usize> {
    #[derive(Clone, Copy)]
    enum Step {
        Both,
        Row,
        Column,
    }
    let rows = cost.len() / columns.max(1);
    let mut steps = vec![Step::Column; rows * columns];
    // The costs of the paths to the row above, after an unreachable column 0.
    let mut above = vec![f32::INFINITY; columns + 1];
    above[0] = 0.0;
    for (row, steps) in cost.chunks_exact(columns.max(1)).zip(steps.chunks_exact_mut(columns.max(1))) {
        let mut here = vec![f32::INFINITY; columns + 1];
        for (column, (cost, step)) in row.iter().zip(steps).enumerate() {
            let (both, row, column_only) = (above[column], above[column + 1], here[column]);
            let best;
            (best, *step) = if both < row && both < column_only {
                (both, Step::Both)
            } else if row < both && row < column_only {
                (row, Step::Row)
            } else {
                (column_only, Step::Column)
            };
            here[column + 1] = cost + best;
        }
        above = here;
    }
    let mut begins = vec![0; rows];
    let (mut row, mut column) = (rows, columns);
    while row > 0 && column > 0 {
        begins[row - 1] = column - 1;
        match steps[(row - 1) * columns + column - 1] {
            Step::Both => (row, column) = (row - 1, column - 1),
            Step::Row => row -= 1,
            Step::Column => column -= 1,
        }
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, rows of costs, and the column at which each row begins.
    type Case = (&'static str, &'static [&'static [f32]], &'static [usize]);

    #[test]
    fn the_cheapest_path() {
        // Results of `dtw_cpu` of openai/whisper.
        let cases: [Case; 4] = [
            ("a diagonal", &[&[0.0, 1.0, 1.0], &[1.0, 0.0, 1.0], &[1.0, 1.0, 0.0]], &[0, 1, 2]),
            ("a long first token", &[&[0.0, 0.0, 0.0, 5.0], &[5.0, 5.0, 5.0, 0.0]], &[0, 3]),
            ("more tokens than time", &[&[0.0], &[0.0], &[0.0]], &[0, 0, 0]),
            ("one token", &[&[3.0, 2.0, 1.0]], &[0]),
        ];
        for (name, rows, expected) in cases {
            assert_eq!(row_begins(&rows.concat(), rows[0].len()), expected, "{name}");
        }
        assert_eq!(row_begins(&[], 0), [0usize; 0]);
    }

    #[test]
    fn medians_are_mirrored_at_the_ends() {
        let mut out = [0.0; 8];
        // numpy: median over windows of 7 of np.pad(row, 3, mode="reflect").
        median_filter(&[9.0, 1.0, 2.0, 8.0, 3.0, 4.0, 7.0, 5.0], &mut out);
        assert_eq!(out, [2.0, 2.0, 3.0, 4.0, 4.0, 5.0, 5.0, 4.0]);
        let mut short = [0.0; 3];
        median_filter(&[3.0, 1.0, 2.0], &mut short);
        assert_eq!(short, [3.0, 1.0, 2.0]);
    }

    #[test]
    fn attention_that_moves_on_is_followed() {
        // Three tokens, 30 steps, each token attending to its own ten; the last row is the end of the text.
        let weights: Vec<f32> = (0..4)
            .flat_map(|token| (0..40).map(move |step| if step / 10 == token { 0.09 } else { 0.003 }))
            .collect();
        let mut heads = Heads::new(4, 30);
        heads.add(&weights, 40);
        assert_eq!(heads.begins(0), [0, 10, 20]);
        assert_eq!(heads.begins(1).len(), 2);
    }

    #[test]
    fn columns_without_spread_are_zero() {
        let mut matrix = [1.0, 2.0, 1.0, 4.0];
        standardise_columns(&mut matrix, 2);
        assert_eq!(matrix, [0.0, -1.0, 0.0, 1.0]);
    }
}
