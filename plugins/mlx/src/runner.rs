//! The network as the scheduler sees it: rows in, logits out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mlx_rs::error::Exception;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::transforms::eval;
use mlx_rs::{Array, Dtype, memory, ops};
use pajamas_generation::{AbortCheck, Batch, DecodeError, EmbedRunner, LmRunner};

use crate::attention::Segment;
use crate::cells::Cells;
use crate::device::Place;
use crate::network::Network;
use crate::streams;

/// Rows from which a step is computed layer by layer, so that it can be abandoned; below, all layers are one computation.
const ROWS_BY_LAYER: usize = 32;
/// Steps after which the memory that MLX keeps for reuse is given back: sizes change with each token, and what was kept
/// for old ones would add up.
const STEPS_BETWEEN_CLEANUPS: u32 = 256;

/// A network with cells for several sequences.
#[derive(Debug)]
pub(crate) struct MlxRunner {
    network: Network,
    cells: Cells,
    context_len: usize,
    logits: Vec<f32>,
    vocab_size: usize,
    /// For each row of the last batch, which row of `logits` it has.
    outputs: Vec<Option<usize>>,
    steps: u32,
    place: Place,
    cell_bytes: Arc<AtomicU64>,
}

impl MlxRunner {
    /// A runner for so many sequences of at most `context_len` tokens.
    pub(crate) fn new(network: Network, sequences: usize, context_len: usize, place: Place) -> Self {
        let cells = Cells::new(sequences, network.layers());
        Self {
            network,
            cells,
            context_len,
            logits: Vec::new(),
            vocab_size: 0,
            outputs: Vec::new(),
            steps: 0,
            place,
            cell_bytes: Arc::default(),
        }
    }

    /// The bytes of all cells, kept up to date.
    pub(crate) fn cell_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.cell_bytes)
    }

    fn compute(&mut self, batch: &Batch, abort: AbortCheck<'_>) -> Result<(), DecodeError> {
        let segments = segments(batch, &self.cells);
        let sequences = || segments.iter().map(|segment| segment.sequence);
        let states = through_layers(&self.network, &batch.tokens, &segments, &mut self.cells, abort)?;
        let rows: Vec<i32> =
            (0i32..).zip(&batch.outputs).filter(|(_, out)| **out != 0).map(|(row, _)| row).collect();
        let mut results = self.cells.arrays(sequences());
        let logits = match rows.as_slice() {
            [] => None,
            rows => Some(self.network.logits(&states, rows).map_err(failed)?),
        };
        results.extend(&logits);
        eval(results).map_err(failed)?;
        self.logits.clear();
        if let Some(logits) = logits {
            self.vocab_size = usize::try_from(logits.dim(1)).unwrap_or(0);
            let values = logits.try_as_slice::<f32>();
            self.logits.extend_from_slice(values.map_err(|error| DecodeError::Failed(error.to_string()))?);
        }
        let mut next = 0..;
        self.outputs.clear();
        self.outputs.extend(batch.outputs.iter().map(|out| if *out == 0 { None } else { next.next() }));
        for segment in &segments {
            self.cells.set_len(segment.sequence, segment.position + segment.len);
        }
        Ok(())
    }
}

impl LmRunner for MlxRunner {
    fn sequence_len_max(&self) -> usize {
        self.context_len
    }

    fn decode(&mut self, batch: &mut Batch, abort: AbortCheck<'_>) -> Result<(), DecodeError> {
        let result = streams::run(self.place, || self.compute(batch, abort));
        self.cell_bytes.store(self.cells.bytes(), Ordering::Relaxed);
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_BETWEEN_CLEANUPS) {
            // An error changes nothing but how much memory is kept.
            let _ = memory::clear_cache();
        }
        result
    }

    fn logits(&mut self, rows: &[usize]) -> Vec<Option<&[f32]>> {
        let of_row = |row: &usize| {
            let index = (*self.outputs.get(*row)?)?;
            self.logits.get(index * self.vocab_size..(index + 1) * self.vocab_size)
        };
        rows.iter().map(of_row).collect()
    }

    fn remove(&mut self, sequence: usize, from: usize) -> bool {
        let from = i32::try_from(from).unwrap_or(i32::MAX);
        self.cells.set_len(sequence, from.min(self.cells.len(sequence)));
        true
    }

    fn copy(&mut self, source: usize, target: usize) {
        self.cells.copy(source, target);
    }
}

/// The states of these tokens after all layers, whose cells are appended to their sequences. Not yet evaluated where there are
/// few rows; where there are many, each layer is, and `abort` is asked after it.
fn through_layers(
    network: &Network,
    tokens: &[i32],
    segments: &[Segment],
    cells: &mut Cells,
    abort: AbortCheck<'_>,
) -> Result<Array, DecodeError> {
    let mut states = network.embed(tokens).map_err(failed)?;
    for layer in 0..network.layers() {
        states = network.layer(layer, &states, segments, cells).map_err(failed)?;
        if tokens.len() >= ROWS_BY_LAYER {
            eval([&states]).map_err(failed)?;
            if abort() {
                return Err(DecodeError::Aborted);
            }
        }
    }
    Ok(states)
}

/// The stretches of rows that belong to one sequence; the rows of a batch are in order of sequences.
fn segments(batch: &Batch, cells: &Cells) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (row, &sequence) in (0i32..).zip(&batch.sequences) {
        let sequence = usize::try_from(sequence).unwrap_or(0);
        match segments.last_mut() {
            Some(last) if last.sequence == sequence => last.len += 1,
            _ => segments.push(Segment { sequence, row, len: 1, position: cells.len(sequence) }),
        }
    }
    segments
}

fn failed(error: Exception) -> DecodeError {
    DecodeError::Failed(format!("MLX says: {}", error.what()))
}

/// The network for embeddings: each text is computed by itself, and the mean of its final states is its vector.
#[derive(Debug)]
pub(crate) struct MlxEmbedder {
    network: Network,
    place: Place,
}

impl MlxEmbedder {
    /// An embedder.
    pub(crate) fn new(network: Network, place: Place) -> Self {
        Self { network, place }
    }

    fn vector(&self, text: &[i32], abort: AbortCheck<'_>) -> Result<Vec<f32>, DecodeError> {
        let mut cells = Cells::new(1, self.network.layers());
        let len = i32::try_from(text.len()).unwrap_or(i32::MAX);
        let segments = [Segment { sequence: 0, row: 0, len, position: 0 }];
        let states = through_layers(&self.network, text, &segments, &mut cells, abort)?;
        let mean = |states: &Array| -> Result<Array, Exception> {
            let normed = self.network.normed(states)?.as_dtype(Dtype::Float32)?;
            ops::mean_axis(&normed, 1, None)?.try_index(0)
        };
        let mean = mean(&states).map_err(failed)?;
        eval([&mean]).map_err(failed)?;
        let values = mean.try_as_slice::<f32>().map_err(|error| DecodeError::Failed(error.to_string()))?;
        Ok(values.to_vec())
    }
}

impl EmbedRunner for MlxEmbedder {
    fn embed(&mut self, texts: &[&[i32]], abort: AbortCheck<'_>) -> Result<Vec<Vec<f32>>, DecodeError> {
        texts.iter().map(|text| streams::run(self.place, || self.vector(text, abort))).collect()
    }
}
