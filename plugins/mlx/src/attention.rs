//! Attention over the cells of several sequences at once: what all rows share is computed for all of them together, and
//! only what depends on a sequence's own cells for each sequence.

use mlx_rs::error::Result as MlxResult;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask as Mask};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype, ops};
use pajamas_plugin_api::Error;

use crate::cells::Cells;
use crate::config::{Config, Family};
use crate::network::{Norm, capped};
use crate::rope::Rope;
use crate::weights::{Matrix, Weights};

/// Rows of a step that belong to one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The sequence.
    pub sequence: usize,
    /// The first of its rows.
    pub row: i32,
    /// How many rows there are.
    pub len: i32,
    /// Position of the first row: the sequence holds so many cells.
    pub position: i32,
}

/// The attention of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    query: Matrix,
    key: Matrix,
    value: Matrix,
    output: Matrix,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    rope: Rope,
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
    scale: f32,
    cap: Option<f32>,
    /// Cells that a row sees, its own included; `None` is all.
    window: Option<i32>,
}

impl Attention {
    /// The attention of the layer whose names begin with `prefix`.
    ///
    /// # Errors
    /// An array is missing or of another shape than the configuration says.
    pub(crate) fn read(
        config: &Config,
        weights: &mut Weights,
        prefix: &str,
        rope: Rope,
        is_local: bool,
    ) -> Result<Self, Error> {
        let (hidden, head_dim) = (config.hidden, config.head_dim);
        let (all, kv) = (config.heads * head_dim, config.kv_heads * head_dim);
        let mut matrix =
            |name: &str, from: i32, to: i32| weights.matrix(&format!("{prefix}.self_attn.{name}"), from, to);
        let query = matrix("q_proj", hidden, all)?;
        let key = matrix("k_proj", hidden, kv)?;
        let value = matrix("v_proj", hidden, kv)?;
        let output = matrix("o_proj", all, hidden)?;
        let mut norm = |name: &str| {
            let is_there = matches!(config.family, Family::Qwen3 | Family::Gemma3);
            let name = format!("{prefix}.self_attn.{name}");
            is_there.then(|| Norm::read(weights, config, &name, head_dim)).transpose()
        };
        let (query_norm, key_norm) = (norm("q_norm")?, norm("k_norm")?);
        Ok(Self {
            query,
            key,
            value,
            output,
            query_norm,
            key_norm,
            rope,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim,
            scale: config.attention_scale,
            cap: config.attention_cap,
            window: config.window.filter(|_| is_local),
        })
    }

    /// All arrays of it.
    pub(crate) fn arrays<'a>(&'a self, to: &mut Vec<&'a Array>) {
        for matrix in [&self.query, &self.key, &self.value, &self.output] {
            matrix.arrays(to);
        }
        to.extend([&self.query_norm, &self.key_norm].into_iter().flatten().map(Norm::array));
    }

    /// Attends from the rows of `x`, of shape [1, rows, hidden], which are those of `segments`, to the cells of their
    /// sequences, to which the rows are appended first.
    pub(crate) fn apply(
        &self,
        x: &Array,
        layer: usize,
        segments: &[Segment],
        cells: &mut Cells,
    ) -> MlxResult<Array> {
        let rows = x.dim(1);
        let heads = |y: Array, heads: i32| y.reshape(&[1, rows, heads, self.head_dim]);
        let queries = normed(heads(self.query.apply(x)?, self.heads)?, self.query_norm.as_ref())?;
        let keys = normed(heads(self.key.apply(x)?, self.kv_heads)?, self.key_norm.as_ref())?;
        let values = heads(self.value.apply(x)?, self.kv_heads)?;
        let (queries, keys) = self.turned(&queries, &keys, segments)?;
        let mut attended = Vec::with_capacity(segments.len());
        for segment in segments {
            // [1, heads, tokens, head size].
            let of = |y: &Array| -> MlxResult<Array> {
                let own = if segment.len == rows {
                    y.clone()
                } else {
                    y.try_index((.., segment.row..segment.row + segment.len, .., ..))?
                };
                own.transpose_axes(&[0, 2, 1, 3])
            };
            let (all_keys, all_values) = cells.append(segment.sequence, layer, &of(&keys)?, &of(&values)?)?;
            let out = self.attend(&of(&queries)?, all_keys, all_values)?;
            attended.push(out.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, segment.len, -1])?);
        }
        let attended = match attended.as_slice() {
            [one] => one.clone(),
            several => ops::concatenate(several, 1)?,
        };
        self.output.apply(&attended)
    }

    /// Queries and keys, of shape [1, rows, heads, head size], turned by the positions of their rows.
    fn turned(&self, queries: &Array, keys: &Array, segments: &[Segment]) -> MlxResult<(Array, Array)> {
        if segments.iter().all(|segment| segment.len == 1) {
            // Each row is a batch of its own, with an offset of its own.
            let positions: Vec<i32> = segments.iter().map(|segment| segment.position).collect();
            let offsets = Array::from_slice(&positions, &[queries.dim(1)]);
            let turn = |y: &Array| -> MlxResult<Array> {
                let (rows, heads) = (y.dim(1), y.dim(2));
                let each = y.reshape(&[rows, heads, 1, self.head_dim])?;
                self.rope.apply_each(&each, &offsets)?.reshape(&[1, rows, heads, self.head_dim])
            };
            return Ok((turn(queries)?, turn(keys)?));
        }
        let turn = |y: &Array| -> MlxResult<Array> {
            let mut parts = Vec::with_capacity(segments.len());
            for segment in segments {
                let own = y.try_index((.., segment.row..segment.row + segment.len, .., ..))?;
                let own = own.transpose_axes(&[0, 2, 1, 3])?;
                parts.push(self.rope.apply(&own, segment.position)?.transpose_axes(&[0, 2, 1, 3])?);
            }
            ops::concatenate(&parts, 1)
        };
        Ok((turn(queries)?, turn(keys)?))
    }

    /// Attention of the last tokens of one sequence to all of its cells; all of shape [1, heads, tokens, head size].
    fn attend(&self, queries: &Array, keys: Array, values: Array) -> MlxResult<Array> {
        let (len, cells) = (queries.dim(2), keys.dim(2));
        // One token needs no mask where it sees all that is left.
        let (keys, values) = match self.window {
            Some(window) if len == 1 && cells > window => {
                let begin = cells - window;
                (keys.try_index((.., .., begin.., ..))?, values.try_index((.., .., begin.., ..))?)
            }
            _ => (keys, values),
        };
        let mask = match self.window {
            Some(window) if len > 1 && cells > window => Some(window_mask(len, cells, window)?),
            _ => None,
        };
        if let Some(cap) = self.cap {
            return self.attend_capped(queries, &keys, &values, cap);
        }
        match &mask {
            Some(mask) => fast::scaled_dot_product_attention(queries, keys, values, self.scale, mask, None),
            None if len > 1 => {
                fast::scaled_dot_product_attention(queries, keys, values, self.scale, Mask::Causal, None)
            }
            None => fast::scaled_dot_product_attention(queries, keys, values, self.scale, None, None),
        }
    }

    /// The same with capped scores (Gemma 2), which MLX's own attention does not offer.
    fn attend_capped(&self, queries: &Array, keys: &Array, values: &Array, cap: f32) -> MlxResult<Array> {
        let (len, cells) = (queries.dim(2), keys.dim(2));
        let groups = self.heads / self.kv_heads;
        let scale = Array::from_f32(self.scale).as_dtype(queries.dtype())?;
        let queries = queries.multiply(scale)?.reshape(&[1, self.kv_heads, groups, len, self.head_dim])?;
        let (keys, values) = (keys.expand_dims(2)?, values.expand_dims(2)?);
        let scores = capped(&ops::matmul(&queries, keys.transpose_axes(&[0, 1, 2, 4, 3])?)?, cap)?;
        let scores = if len > 1 {
            let lowest = Array::from_f32(lowest(scores.dtype())).as_dtype(scores.dtype())?;
            ops::select(&window_mask(len, cells, i32::MAX)?, &scores, &lowest)?
        } else {
            scores
        };
        let shares = ops::softmax_axis(&scores, -1, true)?;
        ops::matmul(&shares, &values)?.reshape(&[1, self.heads, len, self.head_dim])
    }
}

fn normed(x: Array, norm: Option<&Norm>) -> MlxResult<Array> {
    match norm {
        Some(norm) => norm.apply(&x),
        None => Ok(x),
    }
}

/// The smallest number of a type.
fn lowest(dtype: Dtype) -> f32 {
    if dtype == Dtype::Float16 { -65504.0 } else { -3.38e38 }
}

/// True where row `i` of the last `len` of `cells` tokens sees cell `j`: its own, and up to `window - 1` before it.
fn window_mask(len: i32, cells: i32, window: i32) -> MlxResult<Array> {
    let first = cells - len;
    let sees = |row: i32, cell: i32| cell <= first + row && first + row - cell < window;
    let mask: Vec<bool> = (0..len).flat_map(|row| (0..cells).map(move |cell| sees(row, cell))).collect();
    Ok(Array::from_slice(&mask, &[len, cells]))
}
