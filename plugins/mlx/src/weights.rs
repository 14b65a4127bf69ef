//! A checkpoint's matrices, whole or in groups of a few bits.

use std::collections::HashMap;
use std::path::Path;

use mlx_rs::error::Result as MlxResult;
use mlx_rs::ops;
use mlx_rs::{Array, Dtype};
use pajamas_plugin_api::Error;

use crate::config::{Config, Quantization};
use crate::network::failed;

/// The arrays of all files of a checkpoint by name, not yet read from the disk.
#[derive(Debug)]
pub(crate) struct Weights {
    arrays: HashMap<String, Array>,
    config: Config,
    /// Everything becomes 32-bit floats.
    float32: bool,
}

impl Weights {
    /// Opens the files. With `float32` every array is converted, and every packed matrix unpacked.
    ///
    /// # Errors
    /// MLX cannot read one.
    pub(crate) fn open(files: &[impl AsRef<Path>], config: &Config, float32: bool) -> Result<Self, Error> {
        let mut arrays = HashMap::new();
        for file in files {
            let file = file.as_ref();
            let loaded = Array::load_safetensors(file).map_err(|error| {
                Error::bad_model(format!("MLX cannot read {}: {}", file.display(), error))
            })?;
            arrays.extend(loaded);
        }
        Ok(Self { arrays, config: config.clone(), float32 })
    }

    /// Whether there is an array of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// An array of this shape.
    ///
    /// # Errors
    /// It is missing or of another shape.
    pub(crate) fn array(&mut self, name: &str, shape: &[i32]) -> Result<Array, Error> {
        let array = self.take(name)?;
        if array.shape() == shape {
            self.converted(array)
        } else {
            Err(Error::bad_model(format!(
                "the checkpoint's `{name}` is of shape {:?}, and config.json asks for {shape:?}",
                array.shape()
            )))
        }
    }

    fn converted(&self, array: Array) -> Result<Array, Error> {
        let is_float = matches!(array.dtype(), Dtype::Float16 | Dtype::Bfloat16);
        if self.float32 && is_float { array.as_dtype(Dtype::Float32).map_err(failed) } else { Ok(array) }
    }

    fn take(&mut self, name: &str) -> Result<Array, Error> {
        let missing =
            || Error::bad_model(format!("the checkpoint has no `{name}`, which config.json asks for"));
        self.arrays.remove(name).ok_or_else(missing)
    }

    /// The matrix `name` from `inputs` to `outputs` features.
    ///
    /// # Errors
    /// A part is missing, or of another shape than the configuration says.
    pub(crate) fn matrix(&mut self, name: &str, inputs: i32, outputs: i32) -> Result<Matrix, Error> {
        let bias_name = format!("{name}.bias");
        let bias = if self.has(&bias_name) { Some(self.array(&bias_name, &[outputs])?) } else { None };
        let (weight, scales) = (format!("{name}.weight"), format!("{name}.scales"));
        if !self.has(&scales) {
            return Ok(Matrix { kind: Kind::Whole(self.array(&weight, &[outputs, inputs])?), bias });
        }
        let Some(quantization) = self.config.quantization_of(name) else {
            return Err(Error::bad_model(format!(
                "the checkpoint has `{scales}`, but config.json has no `quantization`"
            )));
        };
        let Quantization { group_size, bits } = quantization;
        let groups = [outputs, inputs / group_size];
        let packed = self.array(&weight, &[outputs, (inputs * bits) / 32])?;
        let scales = self.array(&scales, &groups)?;
        let biases = self.array(&format!("{name}.biases"), &groups)?;
        let kind = if self.float32 {
            Kind::Whole(ops::dequantize(packed, scales, &biases, group_size, bits).map_err(failed)?)
        } else {
            Kind::Groups { packed, scales, biases, quantization }
        };
        Ok(Matrix { kind, bias })
    }
}

/// A linear layer, or a table of embeddings.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    kind: Kind,
    bias: Option<Array>,
}

#[derive(Clone, Debug)]
enum Kind {
    /// [outputs, inputs].
    Whole(Array),
    /// The same in groups; `packed` holds 32-bit words.
    Groups { packed: Array, scales: Array, biases: Array, quantization: Quantization },
}

impl Matrix {
    /// `x` times the matrix; the last axis of `x` are the inputs.
    pub(crate) fn apply(&self, x: &Array) -> MlxResult<Array> {
        let y = match &self.kind {
            Kind::Whole(weight) => ops::matmul(x, weight.t())?,
            Kind::Groups { packed, scales, biases, quantization } => ops::quantized_matmul(
                x,
                packed,
                scales,
                biases,
                true,
                quantization.group_size,
                quantization.bits,
            )?,
        };
        match &self.bias {
            Some(bias) => y.add(bias),
            None => Ok(y),
        }
    }

    /// The rows of these numbers, of the type that the network computes in.
    pub(crate) fn rows(&self, numbers: &Array) -> MlxResult<Array> {
        use mlx_rs::ops::indexing::take_axis;
        match &self.kind {
            Kind::Whole(weight) => take_axis(weight, numbers, 0),
            Kind::Groups { packed, scales, biases, quantization } => ops::dequantize(
                take_axis(packed, numbers, 0)?,
                take_axis(scales, numbers, 0)?,
                &take_axis(biases, numbers, 0)?,
                quantization.group_size,
                quantization.bits,
            ),
        }
    }

    /// The type of the activations.
    pub(crate) fn dtype(&self) -> Dtype {
        match &self.kind {
            Kind::Whole(weight) => weight.dtype(),
            Kind::Groups { scales, .. } => scales.dtype(),
        }
    }

    /// All arrays of it.
    pub(crate) fn arrays<'a>(&'a self, to: &mut Vec<&'a Array>) {
        match &self.kind {
            Kind::Whole(weight) => to.push(weight),
            Kind::Groups { packed, scales, biases, .. } => to.extend([packed, scales, biases]),
        }
        to.extend(&self.bias);
    }
}
