//! Tensors where ONNX Runtime wants them.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use half::{bf16, f16};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, TensorElementType};
use pajamas_pipelines::Value;
use pajamas_plugin_api::{Dtype, Error, TensorView, shape_bytes};

use crate::library::engine_error;

/// A tensor of ONNX Runtime's in host memory. Clones share it, and a run takes it as it is, so that what one run returns
/// (a KV cache) goes into the next without a copy.
#[derive(Clone, Debug)]
pub struct OnnxValue {
    value: Arc<DynValue>,
    dtype: Dtype,
}

/// Runs `$body` with `$element` as the Rust type of a [`Dtype`] whose bit patterns are all valid; `$bool` for the one
/// whose are not.
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr, $bool:expr) => {
        match $dtype {
            Dtype::I8 => {
                type $element = i8;
                $body
            }
            Dtype::I16 => {
                type $element = i16;
                $body
            }
            Dtype::I32 => {
                type $element = i32;
                $body
            }
            Dtype::I64 => {
                type $element = i64;
                $body
            }
            Dtype::U8 => {
                type $element = u8;
                $body
            }
            Dtype::U16 => {
                type $element = u16;
                $body
            }
            Dtype::U32 => {
                type $element = u32;
                $body
            }
            Dtype::U64 => {
                type $element = u64;
                $body
            }
            Dtype::F16 => {
                type $element = f16;
                $body
            }
            Dtype::Bf16 => {
                type $element = bf16;
                $body
            }
            Dtype::F32 => {
                type $element = f32;
                $body
            }
            Dtype::F64 => {
                type $element = f64;
                $body
            }
            Dtype::Bool => $bool,
        }
    };
}

impl OnnxValue {
    /// Copies a tensor.
    pub(crate) fn copy_of(tensor: &TensorView<'_>) -> Result<Self, Error> {
        let (dtype, data) = (tensor.dtype, tensor.data);
        if shape_bytes(dtype, tensor.shape) != Some(data.len()) {
            return Err(Error::invalid(format!(
                "a tensor of shape {:?} and type {dtype:?} does not have {} bytes",
                tensor.shape,
                data.len()
            )));
        }
        let value = with_element!(
            dtype,
            Element => owned(tensor.shape, bytemuck::allocation::pod_collect_to_vec::<u8, Element>(data)),
            owned(tensor.shape, bools(data)?)
        )?;
        Ok(Self { value: Arc::new(value), dtype })
    }

    /// Takes what a run returned.
    pub(crate) fn of_run(name: &str, value: DynValue) -> Result<Self, Error> {
        let dtype = value.dtype().tensor_type().and_then(dtype_of);
        let dtype = dtype.ok_or_else(|| {
            Error::unsupported(format!("output `{name}` is a {}, not a tensor of numbers", value.dtype()))
        })?;
        Ok(Self { value: Arc::new(value), dtype })
    }

    pub(crate) fn engine_value(&self) -> &DynValue {
        &self.value
    }
}

impl Value for OnnxValue {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[i64] {
        self.value.dtype().tensor_shape().map_or(&[], |shape| shape)
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        // Runs return their results in host memory whatever computed them.
        let bytes = with_element!(
            self.dtype,
            Element => elements::<Element>(&self.value).map(bytemuck::cast_slice),
            elements::<bool>(&self.value).map(bytemuck::cast_slice)
        )?;
        Ok(Cow::Borrowed(bytes))
    }
}

fn owned<T>(shape: &[i64], data: Vec<T>) -> Result<DynValue, Error>
where
    T: PrimitiveTensorElementType + Clone + Debug + 'static,
{
    let tensor = Tensor::from_array((shape, data));
    Ok(tensor.map_err(|error| engine_error("cannot make a tensor", &error))?.into_dyn())
}

fn bools(data: &[u8]) -> Result<Vec<bool>, Error> {
    let bools = bytemuck::checked::try_cast_slice::<u8, bool>(data);
    bools
        .map(<[bool]>::to_vec)
        .map_err(|_| Error::invalid("a tensor of booleans has bytes other than 0 and 1"))
}

fn elements<T: PrimitiveTensorElementType>(value: &DynValue) -> Result<&[T], Error> {
    let data = value.try_extract_tensor::<T>();
    Ok(data.map_err(|error| engine_error("cannot read a tensor", &error))?.1)
}

/// The element type as this API has it, or `None` for texts, complex numbers and those of less than a byte.
pub(crate) fn dtype_of(kind: TensorElementType) -> Option<Dtype> {
    Some(match kind {
        TensorElementType::Int8 => Dtype::I8,
        TensorElementType::Int16 => Dtype::I16,
        TensorElementType::Int32 => Dtype::I32,
        TensorElementType::Int64 => Dtype::I64,
        TensorElementType::Uint8 => Dtype::U8,
        TensorElementType::Uint16 => Dtype::U16,
        TensorElementType::Uint32 => Dtype::U32,
        TensorElementType::Uint64 => Dtype::U64,
        TensorElementType::Float16 => Dtype::F16,
        TensorElementType::Bfloat16 => Dtype::Bf16,
        TensorElementType::Float32 => Dtype::F32,
        TensorElementType::Float64 => Dtype::F64,
        TensorElementType::Bool => Dtype::Bool,
        _ => return None,
    })
}
