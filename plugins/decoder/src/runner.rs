//! The network as the scheduler sees it: rows in, logits out.

mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::f16;
use pajamas_generation::{AbortCheck, Batch, DecodeError, LmRunner};
use pajamas_pipelines::{TensorRunner, TensorSpec, Value};
use pajamas_plugin_api::{Dtype, Error, TensorView};

use crate::cells::Cells;
use crate::layout::{LOGITS, Layout, MASK, POSITIONS, TOKENS};
use store::Store;

/// A decoder with the caches of several sequences.
///
/// A prompt is read in runs of its own. Sequences that go on by one token each run together, as rows of one cache whose
/// shorter sequences are padded on the left; the mask hides the padding, and positions are the tokens' own. As long as the
/// same sequences go on, what one run returns is the next one's cache, without a copy; when they change, rows are copied.
pub struct DecoderRunner<R: TensorRunner> {
    network: R,
    layout: Layout,
    limits: Limits,
    store: Store<R::Value>,
    logits: Vec<f32>,
    /// For each row of the last batch, which row of `logits` it has.
    outputs: Vec<Option<usize>>,
    cell_bytes: Arc<AtomicU64>,
}

/// Bounds of a runner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub context_len: usize,
    /// Sequences of one run; 1 where padding would change results.
    pub rows_max: usize,
}

/// Rows of a batch that are computed together: as many tokens of each of these sequences.
#[derive(Debug)]
struct Run {
    /// The sequences, and for each the first of its rows.
    members: Vec<(usize, usize)>,
    /// Tokens of each.
    len: usize,
}

impl<R: TensorRunner> DecoderRunner<R> {
    pub(crate) fn new(network: R, layout: Layout, limits: Limits) -> Self {
        Self {
            network,
            store: Store::new(limits.sequences),
            layout,
            limits,
            logits: Vec::new(),
            outputs: Vec::new(),
            cell_bytes: Arc::default(),
        }
    }

    /// The bytes of all cells, kept up to date.
    pub(crate) fn cell_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.cell_bytes)
    }

    /// Takes the network back, to make another runner of it.
    pub(crate) fn into_network(self) -> R {
        self.network
    }

    fn compute(&mut self, batch: &Batch, abort: AbortCheck<'_>) -> Result<(), DecodeError> {
        let runs = self.plan(batch)?;
        self.logits.clear();
        self.outputs.clear();
        self.outputs.resize(batch.len(), None);
        for (index, run) in runs.iter().enumerate() {
            if index > 0 && abort() {
                return Err(DecodeError::Aborted);
            }
            self.run(batch, run).map_err(|error| DecodeError::Failed(error.message().to_owned()))?;
        }
        Ok(())
    }

    /// Which rows run together, those that go on by one token first: a prompt may be read where one of their companions has
    /// just ended, and then they are put together anew only once. The rows of a batch are in order of sequences.
    fn plan(&self, batch: &Batch) -> Result<Vec<Run>, DecodeError> {
        let (mut prompts, mut singles): (Vec<Run>, Vec<(usize, usize)>) = (Vec::new(), Vec::new());
        let mut begin = 0;
        for rows in batch.sequences.chunk_by(|a, b| a == b) {
            let sequence = usize::try_from(rows[0]).unwrap_or(usize::MAX);
            let held = self.store.len(sequence);
            if usize::try_from(batch.positions[begin]) != Ok(held) {
                return Err(DecodeError::Failed(format!(
                    "sequence {sequence} goes on at position {}, and its cache holds {held} tokens",
                    batch.positions[begin]
                )));
            }
            if held + rows.len() > self.limits.context_len {
                return Err(DecodeError::NoCells);
            }
            if rows.len() == 1 && self.limits.rows_max > 1 {
                singles.push((sequence, begin));
            } else {
                prompts.push(Run { members: vec![(sequence, begin)], len: rows.len() });
            }
            begin += rows.len();
        }
        let together = singles.chunks(self.limits.rows_max.max(1));
        let together = together.map(|members| Run { members: members.to_vec(), len: 1 });
        Ok(together.chain(prompts).collect())
    }

    fn run(&mut self, batch: &Batch, run: &Run) -> Result<(), Error> {
        let members: Vec<usize> = run.members.iter().map(|(sequence, _)| *sequence).collect();
        let group = self.store.gather(&self.network, &self.layout.past, &members)?;
        let past = self.store.cells(group)?;
        let wanted =
            |(_, first): &(usize, usize)| (*first..first + run.len).any(|row| batch.outputs[row] != 0);
        let wants_logits = run.members.iter().any(wanted);
        let mut names: Vec<&str> = self.layout.present.iter().map(String::as_str).collect();
        if wants_logits {
            names.push(LOGITS);
        }
        let inputs = self.inputs(batch, run, past)?;
        let named = inputs.iter().map(|(name, value)| (*name, value));
        let caches = self.layout.past.iter().map(|spec| spec.name.as_str()).zip(&past.values);
        let mut results = self.network.run(&named.chain(caches).collect::<Vec<_>>(), &names)?;
        let logits = if wants_logits { results.pop() } else { None };
        let cells = Cells::of_run(&self.layout.past, results, run.members.len(), past.len + run.len)?;
        if let Some(logits) = logits {
            self.take_logits(batch, run, &logits)?;
        }
        self.store.advance(group, cells, run.len);
        Ok(())
    }

    /// Tokens, mask and, where the network wants them, positions.
    fn inputs(
        &self,
        batch: &Batch,
        run: &Run,
        past: &Cells<R::Value>,
    ) -> Result<Vec<(&'static str, R::Value)>, Error> {
        let (mut tokens, mut mask, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, first) in &run.members {
            let rows = *first..first + run.len;
            tokens.extend(batch.tokens[rows.clone()].iter().map(|token| i64::from(*token)));
            positions.extend(batch.positions[rows].iter().map(|position| i64::from(*position)));
            let seen = self.store.len(*sequence) + run.len;
            mask.extend(std::iter::repeat_n(0, past.len + run.len - seen));
            mask.extend(std::iter::repeat_n(1, seen));
        }
        let rows = run.members.len();
        let mut inputs = vec![
            (TOKENS, self.integers(&self.layout.tokens, [rows, run.len], &tokens)?),
            (MASK, self.integers(&self.layout.mask, [rows, past.len + run.len], &mask)?),
        ];
        if let Some(spec) = &self.layout.positions {
            inputs.push((POSITIONS, self.integers(spec, [rows, run.len], &positions)?));
        }
        Ok(inputs)
    }

    fn integers(&self, spec: &TensorSpec, shape: [usize; 2], numbers: &[i64]) -> Result<R::Value, Error> {
        let data: Vec<u8> = match spec.dtype {
            // Tokens, positions and zeros and ones all fit.
            Dtype::I32 => numbers.iter().flat_map(|number| (*number as i32).to_ne_bytes()).collect(),
            _ => numbers.iter().flat_map(|number| number.to_ne_bytes()).collect(),
        };
        let shape = shape.map(|dim| i64::try_from(dim).unwrap_or(i64::MAX));
        self.network.value(&TensorView { name: &spec.name, dtype: spec.dtype, shape: &shape, data: &data })
    }

    /// Copies the logits of the rows that are outputs, and no others. A network may have those of the last tokens only.
    fn take_logits(&mut self, batch: &Batch, run: &Run, value: &R::Value) -> Result<(), Error> {
        let vocabulary = self.layout.vocabulary;
        let shape: Vec<_> = value.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
        let wrong = || {
            Error::bad_model(format!(
                "the decoder returned logits of shape {:?}, expected [{}, {}, {vocabulary}]",
                value.shape(),
                run.members.len(),
                run.len
            ))
        };
        let &[rows, computed, columns] = shape.as_slice() else { return Err(wrong()) };
        if rows != run.members.len() || columns != vocabulary || computed > run.len {
            return Err(wrong());
        }
        let bytes = value.bytes()?;
        let width = vocabulary * value.dtype().size_bytes();
        for (member, (_, first)) in run.members.iter().enumerate() {
            for index in (0..run.len).filter(|index| batch.outputs[first + index] != 0) {
                let row = (index + computed).checked_sub(run.len).ok_or_else(wrong)?;
                let begin = (member * computed + row) * width;
                let row = bytes.get(begin..begin + width).ok_or_else(wrong)?;
                self.outputs[first + index] = Some(self.logits.len() / vocabulary);
                push_f32s(&mut self.logits, value.dtype(), row)?;
            }
        }
        Ok(())
    }
}

impl<R: TensorRunner> LmRunner for DecoderRunner<R> {
    fn sequence_len_max(&self) -> usize {
        self.limits.context_len
    }

    fn decode(&mut self, batch: &mut Batch, abort: AbortCheck<'_>) -> Result<(), DecodeError> {
        let result = self.compute(batch, abort);
        let bytes = self.store.cell_count() * self.layout.cell_bytes();
        self.cell_bytes.store(bytes as u64, Ordering::Relaxed);
        result
    }

    fn logits(&mut self, rows: &[usize]) -> Vec<Option<&[f32]>> {
        let of_row = |row: &usize| {
            let begin = (*self.outputs.get(*row)?)? * self.layout.vocabulary;
            self.logits.get(begin..begin + self.layout.vocabulary)
        };
        rows.iter().map(of_row).collect()
    }

    /// False where the sequence holds less than it should: after a copy that failed.
    fn remove(&mut self, sequence: usize, from: usize) -> bool {
        self.store.cut(sequence, from)
    }

    fn copy(&mut self, source: usize, target: usize) {
        if let Err(error) = self.store.copy(&self.network, &self.layout.past, source, target) {
            // `remove` will say that the target holds nothing, and its tokens are computed again.
            tracing::warn!("a cached prefix could not be copied: {error}");
        }
    }
}

impl<R: TensorRunner> std::fmt::Debug for DecoderRunner<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderRunner").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn push_f32s(target: &mut Vec<f32>, dtype: Dtype, bytes: &[u8]) -> Result<(), Error> {
    match dtype {
        Dtype::F32 => target.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes))),
        Dtype::F16 => {
            target.extend(bytes.as_chunks().0.iter().map(|bytes| f16::from_ne_bytes(*bytes).to_f32()))
        }
        other => {
            return Err(Error::bad_model(format!("the decoder's logits are {other:?}, expected F32 or F16")));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "runner/tests.rs"]
mod tests;
