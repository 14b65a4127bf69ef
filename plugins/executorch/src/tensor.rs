//! Tensors in host memory, as ExecuTorch wants them.

use std::borrow::Cow;
use std::sync::Arc;

use pajamas_pipelines::Value;
use pajamas_plugin_api::{Dtype, Error, TensorView, shape_bytes};

/// XNNPACK's kernels read up to so many bytes beyond the end of a tensor.
pub(crate) const PADDING: usize = 128;

/// The unit of the memory, for its alignment.
type Block = u128;
const BLOCK_BYTES: usize = size_of::<Block>();

/// A tensor, row-major and in native byte order; clones share its elements. A run reads them where they are.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    dtype: Dtype,
    shape: Vec<i64>,
    blocks: Arc<Vec<Block>>,
    len: usize,
}

impl HostTensor {
    /// Copies a tensor.
    ///
    /// # Errors
    /// The data do not fill the shape, or booleans have bytes other than 0 and 1.
    pub(crate) fn copy_of(tensor: &TensorView<'_>) -> Result<Self, Error> {
        if tensor.dtype == Dtype::Bool && tensor.data.iter().any(|byte| *byte > 1) {
            return Err(Error::invalid("a tensor of booleans has bytes other than 0 and 1"));
        }
        Self::new(tensor.dtype, tensor.shape.to_vec(), tensor.data)
    }

    /// A tensor of `data`.
    ///
    /// # Errors
    /// The data do not fill the shape.
    pub(crate) fn new(dtype: Dtype, shape: Vec<i64>, data: &[u8]) -> Result<Self, Error> {
        if shape_bytes(dtype, &shape) != Some(data.len()) {
            return Err(Error::invalid(format!(
                "a tensor of shape {shape:?} and type {dtype:?} does not have {} bytes",
                data.len()
            )));
        }
        let mut blocks = vec![0; (data.len() + PADDING).div_ceil(BLOCK_BYTES)];
        bytemuck::cast_slice_mut::<Block, u8>(&mut blocks)[..data.len()].copy_from_slice(data);
        Ok(Self { dtype, shape, blocks: Arc::new(blocks), len: data.len() })
    }

    /// All elements, in memory that goes on for [`PADDING`] bytes.
    pub(crate) fn data(&self) -> &[u8] {
        &bytemuck::cast_slice(self.blocks.as_slice())[..self.len]
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
        Ok(Cow::Borrowed(self.data()))
    }
}

/// The elements of a row-major tensor in another order of its dimensions in memory.
pub(crate) fn to_order(data: &[u8], element: usize, sizes: &[usize], order: &[u8]) -> Vec<u8> {
    let strides = strides(sizes, &identity(sizes.len()));
    let loops: Vec<_> = order.iter().map(|dim| usize::from(*dim)).collect();
    let loops: Vec<_> = loops.into_iter().filter_map(|dim| Some((*sizes.get(dim)?, strides[dim]))).collect();
    gather(data, element, &loops)
}

/// The elements of a tensor, in memory in some order of its dimensions, row-major.
pub(crate) fn from_order(data: &[u8], element: usize, sizes: &[usize], order: &[u8]) -> Vec<u8> {
    let strides = strides(sizes, order);
    let loops: Vec<_> = sizes.iter().copied().zip(strides).collect();
    gather(data, element, &loops)
}

/// Whether the order is the row-major one.
pub(crate) fn is_row_major(order: &[u8]) -> bool {
    order.iter().copied().eq((0..).take(order.len()))
}

fn identity(dims: usize) -> Vec<u8> {
    (0..).take(dims).collect()
}

/// Elements from one index of each dimension to the next.
fn strides(sizes: &[usize], order: &[u8]) -> Vec<usize> {
    let mut strides = vec![0; sizes.len()];
    let mut step = 1_usize;
    for dim in order.iter().rev().map(|dim| usize::from(*dim)).filter(|dim| *dim < sizes.len()) {
        strides[dim] = step;
        step = step.saturating_mul(sizes[dim]);
    }
    strides
}

/// Elements at all combinations of indices of these loops, each with its length and step, the last one the fastest.
fn gather(data: &[u8], element: usize, loops: &[(usize, usize)]) -> Vec<u8> {
    let count: usize = loops.iter().map(|(len, _)| *len).product();
    let mut out = Vec::with_capacity(data.len());
    let mut indices = vec![0; loops.len()];
    for _ in 0..count {
        let place: usize = indices.iter().zip(loops).map(|(index, (_, step))| index * step).sum();
        let bytes = data.get(place * element..(place + 1) * element);
        out.extend_from_slice(bytes.unwrap_or_default());
        for (index, (len, _)) in indices.iter_mut().zip(loops).rev() {
            *index += 1;
            if *index < *len {
                break;
            }
            *index = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_keep_their_elements_and_have_room_behind_them() {
        let tensor = HostTensor::new(Dtype::I16, vec![3], &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(tensor.bytes().unwrap().as_ref(), [1, 2, 3, 4, 5, 6]);
        assert!(tensor.blocks.len() * BLOCK_BYTES >= 6 + PADDING);
        assert_eq!(tensor.data().as_ptr().align_offset(BLOCK_BYTES), 0);
        assert!(HostTensor::new(Dtype::I16, vec![4], &[0; 6]).is_err());
        let flags = TensorView { name: "", dtype: Dtype::Bool, shape: &[1], data: &[2] };
        assert!(HostTensor::copy_of(&flags).unwrap_err().message().contains("booleans"));
    }

    #[test]
    fn orders_of_dimensions_are_turned_into_one_another() {
        // Two channels of one row of three pixels.
        let planes = [1, 2, 3, 11, 12, 13];
        let (sizes, order) = ([1, 2, 1, 3], [0, 2, 3, 1]);
        let pixels = to_order(&planes, 1, &sizes, &order);
        assert_eq!(pixels, [1, 11, 2, 12, 3, 13]);
        assert_eq!(from_order(&pixels, 1, &sizes, &order), planes);
        assert!(is_row_major(&[0, 1, 2]) && !is_row_major(&order) && is_row_major(&[]));
        let wide = to_order(&[0, 1, 2, 3, 4, 5, 6, 7], 2, &[2, 2], &[1, 0]);
        assert_eq!(wide, [0, 1, 4, 5, 2, 3, 6, 7]);
    }
}
