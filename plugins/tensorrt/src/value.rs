//! Tensors in host memory.

use std::borrow::Cow;
use std::sync::Arc;

use pajamas_pipelines::Value;
use pajamas_plugin_api::{Dtype, Error, TensorView, shape_bytes};

/// A tensor in host memory; clones share the elements. A run copies its inputs to the GPU and its outputs back.
#[derive(Clone, Debug, PartialEq)]
pub struct HostValue {
    dtype: Dtype,
    shape: Vec<i64>,
    bytes: Arc<[u8]>,
}

impl HostValue {
    /// Copies a tensor.
    ///
    /// # Errors
    /// The data do not fill the shape.
    pub fn copy_of(tensor: &TensorView<'_>) -> Result<Self, Error> {
        Self::new(tensor.dtype, tensor.shape.to_vec(), Arc::from(tensor.data))
    }

    /// A tensor of these elements, in native byte order, row-major.
    ///
    /// # Errors
    /// They do not fill the shape, or are booleans other than 0 and 1.
    pub fn new(dtype: Dtype, shape: Vec<i64>, bytes: Arc<[u8]>) -> Result<Self, Error> {
        if shape_bytes(dtype, &shape) != Some(bytes.len()) {
            return Err(Error::invalid(format!(
                "a tensor of shape {shape:?} and type {dtype:?} does not have {} bytes",
                bytes.len()
            )));
        }
        if dtype == Dtype::Bool && bytes.iter().any(|byte| *byte > 1) {
            return Err(Error::invalid("a tensor of booleans has bytes other than 0 and 1"));
        }
        Ok(Self { dtype, shape, bytes })
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes
    }
}

impl Value for HostValue {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[i64] {
        &self.shape
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_must_fill_the_shape() {
        let table: [(Dtype, &[i64], &[u8], bool); 7] = [
            (Dtype::F32, &[1, 2], &[0; 8], true),
            (Dtype::F32, &[1, 2], &[0; 7], false),
            (Dtype::F32, &[0, 2], &[], true),
            (Dtype::F32, &[], &[0; 4], true),
            (Dtype::I64, &[-1], &[], false),
            (Dtype::Bool, &[2], &[0, 1], true),
            (Dtype::Bool, &[2], &[0, 2], false),
        ];
        for (dtype, shape, data, is_good) in table {
            let value = HostValue::copy_of(&TensorView { name: "", dtype, shape, data });
            assert_eq!(value.is_ok(), is_good, "{dtype:?} {shape:?} {data:?}");
            if let Ok(value) = value {
                let clone = value.clone();
                assert_eq!((clone.dtype(), clone.shape(), clone.data()), (dtype, shape, data));
                assert_eq!(clone.data().as_ptr(), value.data().as_ptr(), "a clone is the same memory");
            }
        }
    }
}
