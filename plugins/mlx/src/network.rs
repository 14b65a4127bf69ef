//! The decoder: from tokens to the hidden state of each, and to logits. One network for all families, whose differences
//! are data.

use mlx_rs::error::Result as MlxResult;
use mlx_rs::{Array, Dtype, fast, ops};
use pajamas_plugin_api::Error;

use crate::attention::{Attention, Segment};
use crate::cells::Cells;
use crate::config::{Config, Family};
use crate::rope::Rope;
use crate::weights::{Matrix, Weights};

/// A network with its weights. A clone shares them.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    embedding: Matrix,
    /// What embeddings are multiplied with (Gemma).
    embedding_scale: Option<Array>,
    layers: Vec<Layer>,
    norm: Norm,
    /// `None` where the embedding's matrix is used.
    output: Option<Matrix>,
    logits_cap: Option<f32>,
}

#[derive(Clone, Debug)]
struct Layer {
    attention: Attention,
    attention_norm: Norm,
    /// After attention, before it is added (Gemma 2 and 3).
    attention_post_norm: Option<Norm>,
    mlp: Mlp,
    mlp_norm: Norm,
    /// After the MLP, before it is added (Gemma 2 and 3).
    mlp_post_norm: Option<Norm>,
}

/// A norm over the last axis by the root of the mean square.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    weight: Array,
    eps: f32,
}

impl Norm {
    /// The norm of this name.
    ///
    /// # Errors
    /// It is not in the checkpoint, or of another length.
    pub(crate) fn read(weights: &mut Weights, config: &Config, name: &str, len: i32) -> Result<Self, Error> {
        let stored = weights.array(&format!("{name}.weight"), &[len])?;
        let weight = if config.is_gemma() {
            // Stored as the difference from one.
            stored.add(Array::from_f32(1.0).as_dtype(stored.dtype()).map_err(failed)?).map_err(failed)?
        } else {
            stored
        };
        Ok(Self { weight, eps: config.norm_eps })
    }

    pub(crate) fn apply(&self, x: &Array) -> MlxResult<Array> {
        fast::rms_norm(x, Some(&self.weight), self.eps)
    }
}

#[derive(Clone, Debug)]
struct Mlp {
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    activation: Activation,
}

#[derive(Clone, Copy, Debug)]
enum Activation {
    Silu,
    Gelu,
    GeluTanh,
}

/// An error of MLX while a model is built.
pub(crate) fn failed(error: mlx_rs::error::Exception) -> Error {
    Error::internal(format!("MLX: {}", error.what()))
}

impl Network {
    /// Builds the network from a checkpoint's arrays. Nothing is read yet: see [`Network::arrays`].
    ///
    /// # Errors
    /// An array is missing or of another shape than the configuration says.
    pub(crate) fn build(config: &Config, weights: &mut Weights) -> Result<Self, Error> {
        let embedding = weights.matrix("model.embed_tokens", config.hidden, config.vocab_size)?;
        let is_stored = weights.has("lm_head.weight");
        let tied = config.tied.unwrap_or(!is_stored);
        let output =
            if tied { None } else { Some(weights.matrix("lm_head", config.hidden, config.vocab_size)?) };
        let (rope, local) = (Rope::of(config)?, config.rope_base_local.map(|base| Rope::local(config, base)));
        let layers = (0..config.layers)
            .map(|number| {
                let is_local = config.is_local.get(number).copied().unwrap_or(false);
                let rope = if is_local { local.as_ref().unwrap_or(&rope) } else { &rope };
                Layer::read(config, weights, number, rope.clone(), is_local)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let embedding_scale = config
            .is_gemma()
            .then(|| {
                let scale = Array::from_f32((config.hidden as f32).sqrt());
                // Gemma 3 was trained with the rounded factor.
                let scale =
                    if config.family == Family::Gemma3 { scale.as_dtype(Dtype::Bfloat16)? } else { scale };
                scale.as_dtype(embedding.dtype())
            })
            .transpose()
            .map_err(failed)?;
        Ok(Self {
            embedding_scale,
            layers,
            norm: Norm::read(weights, config, "model.norm", config.hidden)?,
            output,
            logits_cap: config.logits_cap,
            embedding,
        })
    }

    /// Every array of weights, to be evaluated, which reads it from the disk.
    pub(crate) fn arrays(&self) -> Vec<&Array> {
        let mut all = Vec::new();
        self.embedding.arrays(&mut all);
        all.extend(&self.embedding_scale);
        for layer in &self.layers {
            layer.arrays(&mut all);
        }
        all.push(&self.norm.weight);
        if let Some(output) = &self.output {
            output.arrays(&mut all);
        }
        all
    }

    /// Number of layers.
    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The states that the first layer reads, of shape [1, tokens, hidden].
    pub(crate) fn embed(&self, tokens: &[i32]) -> MlxResult<Array> {
        let len = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
        let states = self.embedding.rows(&Array::from_slice(tokens, &[1, len]))?;
        match &self.embedding_scale {
            Some(scale) => states.multiply(scale),
            None => Ok(states),
        }
    }

    /// What one layer makes of the states. The rows are those of `segments`, one after the other; each appends to the
    /// cells of its sequence.
    pub(crate) fn layer(
        &self,
        number: usize,
        states: &Array,
        segments: &[Segment],
        cells: &mut Cells,
    ) -> MlxResult<Array> {
        let layer = &self.layers[number];
        let attended =
            layer.attention.apply(&layer.attention_norm.apply(states)?, number, segments, cells)?;
        let states = states.add(post(attended, layer.attention_post_norm.as_ref())?)?;
        let computed = layer.mlp.apply(&layer.mlp_norm.apply(&states)?)?;
        states.add(post(computed, layer.mlp_post_norm.as_ref())?)
    }

    /// The final states, as they are pooled for embeddings.
    pub(crate) fn normed(&self, states: &Array) -> MlxResult<Array> {
        self.norm.apply(states)
    }

    /// Logits of these rows of the states, of shape [rows, vocabulary] and type float32.
    pub(crate) fn logits(&self, states: &Array, rows: &[i32]) -> MlxResult<Array> {
        use mlx_rs::ops::indexing::take_axis;
        let count = i32::try_from(rows.len()).unwrap_or(i32::MAX);
        let states = if states.dim(1) == count {
            states.clone()
        } else {
            take_axis(states, Array::from_slice(rows, &[count]), 1)?
        };
        let states = self.normed(&states)?;
        let logits = self.output.as_ref().unwrap_or(&self.embedding).apply(&states)?;
        let logits = logits.as_dtype(Dtype::Float32)?;
        let logits = match self.logits_cap {
            Some(cap) => capped(&logits, cap)?,
            None => logits,
        };
        logits.reshape(&[count, -1])
    }
}

fn post(x: Array, norm: Option<&Norm>) -> MlxResult<Array> {
    match norm {
        Some(norm) => norm.apply(&x),
        None => Ok(x),
    }
}

/// Values squeezed between plus and minus `cap`.
pub(crate) fn capped(x: &Array, cap: f32) -> MlxResult<Array> {
    let cap = Array::from_f32(cap).as_dtype(x.dtype())?;
    ops::tanh(x.divide(&cap)?)?.multiply(&cap)
}

impl Layer {
    fn read(
        config: &Config,
        weights: &mut Weights,
        number: usize,
        rope: Rope,
        is_local: bool,
    ) -> Result<Self, Error> {
        let prefix = format!("model.layers.{number}");
        let mut norm = |name: &str| Norm::read(weights, config, &format!("{prefix}.{name}"), config.hidden);
        let attention_norm = norm("input_layernorm")?;
        // Gemma 2 and 3 have norms on both sides of each half, and gave the second one's name a new place.
        let (attention_post_norm, mlp_norm, mlp_post_norm) =
            if matches!(config.family, Family::Gemma2 | Family::Gemma3) {
                (
                    Some(norm("post_attention_layernorm")?),
                    norm("pre_feedforward_layernorm")?,
                    Some(norm("post_feedforward_layernorm")?),
                )
            } else {
                (None, norm("post_attention_layernorm")?, None)
            };
        Ok(Self {
            attention: Attention::read(config, weights, &prefix, rope, is_local)?,
            attention_norm,
            attention_post_norm,
            mlp: Mlp::read(config, weights, &prefix)?,
            mlp_norm,
            mlp_post_norm,
        })
    }

    fn arrays<'a>(&'a self, to: &mut Vec<&'a Array>) {
        self.attention.arrays(to);
        for matrix in [&self.mlp.gate, &self.mlp.up, &self.mlp.down] {
            matrix.arrays(to);
        }
        to.extend([&self.attention_norm.weight, &self.mlp_norm.weight]);
        to.extend(
            [&self.attention_post_norm, &self.mlp_post_norm].into_iter().flatten().map(|norm| &norm.weight),
        );
    }
}

impl Norm {
    /// The weights.
    pub(crate) fn array(&self) -> &Array {
        &self.weight
    }
}

impl Mlp {
    fn read(config: &Config, weights: &mut Weights, prefix: &str) -> Result<Self, Error> {
        let mut matrix =
            |name: &str, from: i32, to: i32| weights.matrix(&format!("{prefix}.mlp.{name}"), from, to);
        Ok(Self {
            gate: matrix("gate_proj", config.hidden, config.inner)?,
            up: matrix("up_proj", config.hidden, config.inner)?,
            down: matrix("down_proj", config.inner, config.hidden)?,
            activation: match config.family {
                Family::Gemma => Activation::Gelu,
                Family::Gemma2 | Family::Gemma3 => Activation::GeluTanh,
                Family::Llama | Family::Qwen2 | Family::Qwen3 => Activation::Silu,
            },
        })
    }

    fn apply(&self, x: &Array) -> MlxResult<Array> {
        let gate = self.activation.apply(&self.gate.apply(x)?)?;
        self.down.apply(&gate.multiply(self.up.apply(x)?)?)
    }
}

impl Activation {
    /// Written out of plain operations: MLX's own functions of these names are compiled when they first run, for which
    /// its CPU backend starts a C++ compiler.
    fn apply(self, x: &Array) -> MlxResult<Array> {
        let number = |value: f32| Array::from_f32(value).as_dtype(x.dtype());
        match self {
            Self::Silu => x.multiply(ops::sigmoid(x)?),
            Self::Gelu => {
                let erf = ops::erf(x.divide(number(std::f32::consts::SQRT_2)?)?)?;
                x.multiply(erf.add(number(1.0)?)?)?.multiply(number(0.5)?)
            }
            Self::GeluTanh => {
                let cube = x.multiply(x)?.multiply(x)?.multiply(number(0.044_715)?)?;
                let inner = cube.add(x)?.multiply(number((2.0 / std::f32::consts::PI).sqrt())?)?;
                x.multiply(ops::tanh(inner)?.add(number(1.0)?)?)?.multiply(number(0.5)?)
            }
        }
    }
}
