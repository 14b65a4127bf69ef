//! Tensors in host memory. Memory is shared by all of an Apple machine's devices, and CoreML brings what a network
//! computes back to where the processor reads it.

use std::borrow::Cow;
use std::sync::Arc;

use pajamas_pipelines::Value;
use pajamas_plugin_api::{Dtype, Error, TensorView, shape_bytes};

/// A tensor; clones share its elements.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostTensor {
    dtype: Dtype,
    shape: Vec<i64>,
    data: Arc<[u8]>,
}

impl HostTensor {
    /// Copies a tensor.
    ///
    /// # Errors
    /// The data do not fill the shape.
    pub(crate) fn copy_of(tensor: &TensorView<'_>) -> Result<Self, Error> {
        Self::new(tensor.dtype, tensor.shape.to_vec(), tensor.data.into())
    }

    /// A tensor of `data`, row-major and in native byte order.
    ///
    /// # Errors
    /// The data do not fill the shape.
    pub(crate) fn new(dtype: Dtype, shape: Vec<i64>, data: Arc<[u8]>) -> Result<Self, Error> {
        if shape_bytes(dtype, &shape) != Some(data.len()) {
            return Err(Error::invalid(format!(
                "a tensor of shape {shape:?} and type {dtype:?} does not have {} bytes",
                data.len()
            )));
        }
        Ok(Self { dtype, shape, data })
    }

    /// All elements.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }
}

impl Value for HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[i64] {
        &self.shape
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.data))
    }
}
