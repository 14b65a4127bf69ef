//! The key-value cache: for each sequence and layer one array of keys and one of values, which grow by steps.

use mlx_rs::error::Result as MlxResult;
use mlx_rs::ops::indexing::{TryIndexMutOp, TryIndexOp};
use mlx_rs::{Array, Dtype, ops};

/// Cells that a sequence grows by: each growth copies what is there.
const STEP: i32 = 256;

/// The cells of all sequences.
#[derive(Debug)]
pub(crate) struct Cells {
    sequences: Vec<Sequence>,
}

/// One sequence.
#[derive(Clone, Debug, Default)]
struct Sequence {
    /// Tokens whose cells are valid in every layer.
    len: i32,
    layers: Vec<Option<Layer>>,
}

/// Keys and values of one layer, of shape [1, heads, capacity, head size].
#[derive(Clone, Debug)]
struct Layer {
    keys: Array,
    values: Array,
}

impl Cells {
    /// Room for so many sequences; it is allocated when it is needed.
    pub(crate) fn new(sequences: usize, layers: usize) -> Self {
        let sequence = Sequence { len: 0, layers: vec![None; layers] };
        Self { sequences: vec![sequence; sequences] }
    }

    /// Tokens that the sequence holds.
    pub(crate) fn len(&self, sequence: usize) -> i32 {
        self.sequences[sequence].len
    }

    /// Makes `len` the number of tokens that the sequence holds: after a step in all layers, or to remove the last ones.
    pub(crate) fn set_len(&mut self, sequence: usize, len: i32) {
        let sequence = &mut self.sequences[sequence];
        sequence.len = len;
        if len == 0 {
            sequence.layers.fill(None);
        }
    }

    /// Makes `target` hold what `source` holds. Nothing is copied before one of them changes.
    pub(crate) fn copy(&mut self, source: usize, target: usize) {
        self.sequences[target] = self.sequences[source].clone();
    }

    /// Writes keys and values of shape [1, heads, tokens, head size] behind the cells of the sequence, and returns all
    /// that the layer then holds. The sequence's length stays, for the next layer.
    pub(crate) fn append(
        &mut self,
        sequence: usize,
        layer: usize,
        keys: &Array,
        values: &Array,
    ) -> MlxResult<(Array, Array)> {
        let sequence = &mut self.sequences[sequence];
        let (begin, end) = (sequence.len, sequence.len + keys.dim(2));
        // Taken out, so that the only handle to the old array is the update's own, which may then write in place.
        let old = sequence.layers[layer].take();
        let (old_keys, old_values) = old.map_or((None, None), |old| (Some(old.keys), Some(old.values)));
        let new = Layer { keys: write(old_keys, keys, begin)?, values: write(old_values, values, begin)? };
        let all = (new.keys.try_index((.., .., ..end, ..))?, new.values.try_index((.., .., ..end, ..))?);
        sequence.layers[layer] = Some(new);
        Ok(all)
    }

    /// Bytes of all cells, where sequences share them once for each.
    pub(crate) fn bytes(&self) -> u64 {
        let layers = self.sequences.iter().flat_map(|sequence| sequence.layers.iter().flatten());
        layers.map(|layer| (layer.keys.nbytes() + layer.values.nbytes()) as u64).sum()
    }

    /// The arrays of these sequences, to be evaluated with the states.
    pub(crate) fn arrays(&self, sequences: impl Iterator<Item = usize>) -> Vec<&Array> {
        let layers = sequences.flat_map(|sequence| self.sequences[sequence].layers.iter().flatten());
        layers.flat_map(|layer| [&layer.keys, &layer.values]).collect()
    }
}

/// Writes `new` into `cells` from position `begin` on, which grow if they must.
fn write(cells: Option<Array>, new: &Array, begin: i32) -> MlxResult<Array> {
    let end = begin + new.dim(2);
    let mut cells = match cells {
        Some(cells) if cells.dim(2) >= end => cells,
        Some(cells) => {
            let kept = cells.try_index((.., .., ..begin, ..))?;
            ops::concatenate(&[kept, zeros(new, capacity(end) - begin, new.dtype())?], 2)?
        }
        None => zeros(new, capacity(end), new.dtype())?,
    };
    cells.try_index_mut((.., .., begin..end, ..), new)?;
    Ok(cells)
}

fn capacity(len: i32) -> i32 {
    (len + STEP - 1) / STEP * STEP
}

fn zeros(like: &Array, len: i32, dtype: Dtype) -> MlxResult<Array> {
    ops::zeros_dtype(&[1, like.dim(1), len, like.dim(3)], dtype)
}
