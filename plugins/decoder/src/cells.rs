//! The key-value cache as tensors of several rows, and how rows move between them.

use pajamas_pipelines::{TensorRunner, Value};
use pajamas_plugin_api::{Error, TensorView};

use crate::layout::CellSpec;

/// Keys and values of all layers for some rows, all of `len` cells: [rows, heads, len, width] each.
#[derive(Clone, Debug)]
pub(crate) struct Cells<V> {
    pub values: Vec<V>,
    pub rows: usize,
    pub len: usize,
}

/// A stretch of one row.
#[derive(Debug)]
pub(crate) struct Stretch<'a, V> {
    pub cells: &'a Cells<V>,
    pub row: usize,
    pub begin: usize,
    pub len: usize,
}

impl<V: Value> Cells<V> {
    /// Copies stretches into rows of `len` cells, each at the end of its row; the cells before it, or all where there is
    /// none, are zeros.
    ///
    /// # Errors
    /// A tensor has another shape than the decoder's layout says, or memory does not suffice.
    pub(crate) fn of<R: TensorRunner<Value = V>>(
        runner: &R,
        specs: &[CellSpec],
        stretches: &[Option<Stretch<'_, V>>],
        len: usize,
    ) -> Result<Self, Error> {
        let mut values = Vec::with_capacity(specs.len());
        let mut data = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            data.clear();
            data.resize(stretches.len() * len * spec.bytes(), 0);
            let row_bytes = len * spec.bytes();
            for (row, stretch) in stretches.iter().enumerate() {
                if let Some(stretch) = stretch {
                    copy_row(&mut data[row * row_bytes..(row + 1) * row_bytes], stretch, index, spec)?;
                }
            }
            let dims = [stretches.len(), spec.heads, len, spec.width];
            let shape = dims.map(|dim| i64::try_from(dim).unwrap_or(i64::MAX));
            let view = TensorView { name: &spec.name, dtype: spec.dtype, shape: &shape, data: &data };
            values.push(runner.value(&view)?);
        }
        Ok(Self { values, rows: stretches.len(), len })
    }

    /// Takes what a run returned.
    ///
    /// # Errors
    /// A tensor has another shape than the decoder's layout says.
    pub(crate) fn of_run(specs: &[CellSpec], values: Vec<V>, rows: usize, len: usize) -> Result<Self, Error> {
        for (spec, value) in specs.iter().zip(&values) {
            let expected = [rows, spec.heads, len, spec.width];
            let fits = value.shape().len() == expected.len()
                && value
                    .shape()
                    .iter()
                    .zip(expected)
                    .all(|(dim, expected)| usize::try_from(*dim) == Ok(expected));
            if !fits || value.dtype() != spec.dtype {
                return Err(Error::bad_model(format!(
                    "the decoder returned a cache of {:?} {:?} for `{}`, expected {:?} {expected:?}: its cache must hold every \
                     token that was read",
                    value.dtype(),
                    value.shape(),
                    spec.name,
                    spec.dtype
                )));
            }
        }
        Ok(Self { values, rows, len })
    }
}

/// Copies a stretch of the tensor `index` to the ends of the heads of `target`, one row.
fn copy_row<V: Value>(
    target: &mut [u8],
    stretch: &Stretch<'_, V>,
    index: usize,
    spec: &CellSpec,
) -> Result<(), Error> {
    let short = || Error::internal(format!("the cache of `{}` is shorter than it should be", spec.name));
    let bytes = stretch.cells.values.get(index).ok_or_else(short)?.bytes()?;
    let cell = spec.width * spec.dtype.size_bytes();
    let (from_head, to_head) = (stretch.cells.len * cell, target.len() / spec.heads);
    let len = stretch.len * cell;
    for head in 0..spec.heads {
        let begin = (stretch.row * spec.heads + head) * from_head + stretch.begin * cell;
        let source = bytes.get(begin..begin + len).ok_or_else(short)?;
        let end = (head + 1) * to_head;
        target.get_mut(end - len..end).ok_or_else(short)?.copy_from_slice(source);
    }
    Ok(())
}
