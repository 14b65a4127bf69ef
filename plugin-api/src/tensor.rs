//! Tensors in host memory: contiguous, row-major, element types as in DLPack.

use crate::abi;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 8-bit signed integer.
    I8,
    /// 16-bit signed integer.
    I16,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// One byte per boolean.
    Bool,
}

/// As in JSON: `f32`, `bool`.
impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        serde::Serialize::serialize(self, f)
    }
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    pub(crate) fn to_abi(self) -> abi::PjDtype {
        let code = match self {
            Self::I8 | Self::I16 | Self::I32 | Self::I64 => abi::PJ_DTYPE_INT,
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => abi::PJ_DTYPE_UINT,
            Self::F16 | Self::F32 | Self::F64 => abi::PJ_DTYPE_FLOAT,
            Self::Bf16 => abi::PJ_DTYPE_BFLOAT,
            Self::Bool => abi::PJ_DTYPE_BOOL,
        };
        abi::PjDtype { code, bits: (self.size_bytes() * 8) as u8, lanes: 1 }
    }

    pub(crate) fn from_abi(dtype: abi::PjDtype) -> Option<Self> {
        const ALL: [Dtype; 13] = [
            Dtype::I8,
            Dtype::I16,
            Dtype::I32,
            Dtype::I64,
            Dtype::U8,
            Dtype::U16,
            Dtype::U32,
            Dtype::U64,
            Dtype::F16,
            Dtype::Bf16,
            Dtype::F32,
            Dtype::F64,
            Dtype::Bool,
        ];
        ALL.into_iter().find(|candidate| candidate.to_abi() == dtype)
    }
}

/// A borrowed tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// Name of the input or output.
    pub name: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, all ≥ 0.
    pub shape: &'a [i64],
    /// The elements in native byte order.
    pub data: &'a [u8],
}

/// An owned tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name of the input or output.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, all ≥ 0.
    pub shape: Vec<i64>,
    /// The elements in native byte order.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A view of this tensor.
    #[must_use]
    pub fn view(&self) -> TensorView<'_> {
        TensorView { name: &self.name, dtype: self.dtype, shape: &self.shape, data: &self.data }
    }
}

/// Bytes that a tensor of this shape holds, or `None` when a dimension is negative or the product overflows.
#[must_use]
pub fn shape_bytes(dtype: Dtype, shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(dtype.size_bytes(), |bytes, dim| {
        usize::try_from(*dim).ok().and_then(|d| bytes.checked_mul(d))
    })
}
