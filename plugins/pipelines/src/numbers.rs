//! Numbers in and out of tensors: what a pipeline computes with is `f32` and `i64`, what a network wants may differ.

use std::borrow::Cow;

use half::{bf16, f16};
use pajamas_plugin_api::{Dtype, Error, TensorView};

use crate::runner::{TensorRunner, TensorSpec, Value};

/// The elements of a tensor of floating point numbers.
///
/// # Errors
/// The tensor has another element type, or the device failed.
pub(crate) fn to_f32s<V: Value>(value: &V) -> Result<Vec<f32>, Error> {
    let bytes = value.bytes()?;
    match value.dtype() {
        Dtype::F32 => Ok(elements(&bytes, f32::from_ne_bytes)),
        Dtype::F64 => Ok(elements(&bytes, |number| f64::from_ne_bytes(number) as f32)),
        Dtype::F16 => Ok(elements(&bytes, |number| f16::from_ne_bytes(number).to_f32())),
        Dtype::Bf16 => Ok(elements(&bytes, |number| bf16::from_ne_bytes(number).to_f32())),
        other => {
            Err(Error::bad_model(format!("the network returned {other:?} where floating point is expected")))
        }
    }
}

/// `number` of each `N` bytes; a rest that is no whole element is left out.
fn elements<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (elements, _rest) = bytes.as_chunks::<N>();
    elements.iter().map(|element| number(*element)).collect()
}

/// A tensor for the input `spec` from `f32`s, which become the input's own floating point type.
///
/// # Errors
/// The input takes no floating point numbers, or memory does not suffice.
pub(crate) fn from_f32s<R: TensorRunner>(
    runner: &R,
    spec: &TensorSpec,
    shape: &[i64],
    numbers: &[f32],
) -> Result<R::Value, Error> {
    let data: Cow<'_, [u8]> = match spec.dtype {
        Dtype::F32 => Cow::Borrowed(bytemuck::cast_slice(numbers)),
        Dtype::F64 => {
            Cow::Owned(numbers.iter().flat_map(|number| f64::from(*number).to_ne_bytes()).collect())
        }
        Dtype::F16 => {
            Cow::Owned(numbers.iter().flat_map(|number| f16::from_f32(*number).to_ne_bytes()).collect())
        }
        Dtype::Bf16 => {
            Cow::Owned(numbers.iter().flat_map(|number| bf16::from_f32(*number).to_ne_bytes()).collect())
        }
        other => return Err(wrong_dtype(spec, other, "floating point numbers")),
    };
    runner.value(&TensorView { name: &spec.name, dtype: spec.dtype, shape, data: &data })
}

/// A tensor for the input `spec` from `i64`s, which become the input's own integer type.
///
/// # Errors
/// The input takes no integers of 32 or 64 bits, a number does not fit, or memory does not suffice.
pub(crate) fn from_i64s<R: TensorRunner>(
    runner: &R,
    spec: &TensorSpec,
    shape: &[i64],
    numbers: &[i64],
) -> Result<R::Value, Error> {
    let data: Cow<'_, [u8]> = match spec.dtype {
        Dtype::I64 => Cow::Borrowed(bytemuck::cast_slice(numbers)),
        Dtype::I32 => {
            let narrow: Result<Vec<i32>, _> = numbers.iter().map(|number| i32::try_from(*number)).collect();
            let narrow = narrow.map_err(|_| {
                Error::internal(format!("a number for the input `{}` does not fit 32 bits", spec.name))
            })?;
            Cow::Owned(narrow.iter().flat_map(|number| number.to_ne_bytes()).collect())
        }
        other => return Err(wrong_dtype(spec, other, "integers")),
    };
    runner.value(&TensorView { name: &spec.name, dtype: spec.dtype, shape, data: &data })
}

fn wrong_dtype(spec: &TensorSpec, found: Dtype, expected: &str) -> Error {
    Error::bad_model(format!(
        "the network's input `{}` takes {found:?}, and this pipeline has {expected} for it",
        spec.name
    ))
}
