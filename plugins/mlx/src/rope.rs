//! Rotary position embeddings and their variants for long contexts (`mlx_lm`'s `rope_utils.py`).

use std::f32::consts::PI;

use mlx_rs::error::Result as MlxResult;
use mlx_rs::{Array, fast};
use pajamas_plugin_api::Error;

use crate::config::{Config, RopeScaling};

/// Turns queries and keys by their positions.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    dims: i32,
    traditional: bool,
    /// `None` when the frequencies are given one by one.
    base: Option<f32>,
    scale: f32,
    /// Wavelengths divided by 2π, one for each pair of dimensions.
    freqs: Option<Array>,
    /// Factor of what is turned (YaRN).
    magnitude: f32,
}

impl Rope {
    /// The model's RoPE.
    ///
    /// # Errors
    /// Its scaling is of an unknown kind, or lacks its factor.
    pub(crate) fn of(config: &Config) -> Result<Self, Error> {
        let plain = Self {
            dims: config.head_dim,
            traditional: config.rope_traditional,
            base: Some(config.rope_base),
            scale: 1.0,
            freqs: None,
            magnitude: 1.0,
        };
        let Some(scaling) = &config.rope_scaling else { return Ok(plain) };
        let factor = || {
            let factor = scaling.factor.filter(|factor| *factor > 0.0);
            factor.ok_or_else(|| Error::bad_model("config.json: `rope_scaling` has no `factor` above 0"))
        };
        match scaling.kind.as_deref().unwrap_or("default") {
            "default" | "mrope" => Ok(plain),
            "linear" => Ok(Self { scale: 1.0 / factor()?, ..plain }),
            "llama3" => Ok(plain.with_freqs(&llama3(config, scaling, factor()?), 1.0)),
            "yarn" => {
                let (freqs, magnitude) = yarn(config, scaling, factor()?);
                Ok(plain.with_freqs(&freqs, magnitude))
            }
            other => Err(Error::bad_model(format!(
                "config.json: `rope_scaling` is of type {other}; supported are default, linear, llama3 and yarn"
            ))),
        }
    }

    /// The RoPE of local layers, which is never scaled.
    pub(crate) fn local(config: &Config, base: f32) -> Self {
        Self {
            dims: config.head_dim,
            traditional: false,
            base: Some(base),
            scale: 1.0,
            freqs: None,
            magnitude: 1.0,
        }
    }

    fn with_freqs(self, freqs: &[f32], magnitude: f32) -> Self {
        let len = i32::try_from(freqs.len()).unwrap_or(i32::MAX);
        Self { base: None, freqs: Some(Array::from_slice(freqs, &[len])), magnitude, ..self }
    }

    /// Turns `x` of shape [batch, heads, tokens, head size], whose first token is at `offset`.
    pub(crate) fn apply(&self, x: &Array, offset: i32) -> MlxResult<Array> {
        let x = self.scaled(x)?;
        fast::rope(&x, self.dims, self.traditional, self.base, self.scale, offset, self.freqs.as_ref())
    }

    /// The same where each element of the batch has an offset of its own; `offsets` is of shape [batch].
    pub(crate) fn apply_each(&self, x: &Array, offsets: &Array) -> MlxResult<Array> {
        let x = self.scaled(x)?;
        fast::rope_dynamic(
            &x,
            self.dims,
            self.traditional,
            self.base,
            self.scale,
            offsets,
            self.freqs.as_ref(),
        )
    }

    fn scaled(&self, x: &Array) -> MlxResult<Array> {
        if self.magnitude == 1.0 {
            return Ok(x.clone());
        }
        x.multiply(Array::from_f32(self.magnitude).as_dtype(x.dtype())?)
    }
}

/// base^(2i / dims) for each pair of dimensions.
fn freqs(config: &Config) -> impl Iterator<Item = f32> {
    let (base, dims) = (config.rope_base, config.head_dim as f32);
    (0..config.head_dim / 2).map(move |pair| base.powf(2.0 * pair as f32 / dims))
}

/// Llama 3.1: long wavelengths are stretched, short ones stay, those between are mixed.
fn llama3(config: &Config, scaling: &RopeScaling, factor: f32) -> Vec<f32> {
    let low = scaling.low_freq_factor.unwrap_or(1.0);
    let high = scaling.high_freq_factor.unwrap_or(4.0);
    let trained_len = scaling.original_max_position_embeddings.unwrap_or(8192.0);
    let stretch = |freq: f32| {
        let wavelength = 2.0 * PI * freq;
        if wavelength > trained_len / low {
            freq * factor
        } else if wavelength > trained_len / high {
            let smooth = (trained_len / wavelength - low) / (high - low);
            freq / ((1.0 - smooth) / factor + smooth)
        } else {
            freq
        }
    };
    freqs(config).map(stretch).collect()
}

/// YaRN (arXiv 2309.00071, §3.2 and §3.4).
fn yarn(config: &Config, scaling: &RopeScaling, factor: f32) -> (Vec<f32>, f32) {
    let dims = config.head_dim as f32;
    let trained_len = scaling.original_max_position_embeddings.unwrap_or(4096.0);
    let dim_of =
        |rotations: f32| dims * (trained_len / (rotations * 2.0 * PI)).ln() / (2.0 * config.rope_base.ln());
    let low = dim_of(scaling.beta_fast.unwrap_or(32.0)).floor().max(0.0);
    let mut high = dim_of(scaling.beta_slow.unwrap_or(1.0)).ceil().min(dims - 1.0);
    if low == high {
        high += 0.001;
    }
    let mix = |(pair, freq): (usize, f32)| {
        let keep = 1.0 - ((pair as f32 - low) / (high - low)).clamp(0.0, 1.0);
        let stretched = factor * freq;
        stretched * freq / (stretched * keep + freq * (1.0 - keep))
    };
    let magnitude = |scale: f32| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let ratio = magnitude(scaling.mscale.unwrap_or(1.0)) / magnitude(scaling.mscale_all_dim.unwrap_or(0.0));
    (freqs(config).enumerate().map(mix).collect(), ratio)
}
