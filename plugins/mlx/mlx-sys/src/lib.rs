//! Bindings of MLX's C interface (mlx-c), as `mlx-rs` expects them of the crate of this name.
#![allow(
    non_upper_case_globals,
    non_camel_case_types,
    non_snake_case,
    missing_docs,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes,
    clippy::too_many_lines,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from C headers"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

#[cfg(not(target_arch = "aarch64"))]
pub use half::*;

/// What mlx-c declares only where the C compiler has half-precision types, which on x86-64 it has not: the bits are the
/// same as those of a `u16`, whose functions stand in.
#[cfg(not(target_arch = "aarch64"))]
mod half {
    use super::{mlx_array, mlx_array_data_uint16, mlx_array_item_uint16};

    /// The bits of an IEEE half-precision number.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct float16_t(pub u16);

    /// The bits of a brain floating-point number.
    pub type bfloat16_t = u16;

    /// The bits of a half-precision scalar.
    ///
    /// # Safety
    /// `res` is valid for a write and `array` holds one half-precision number.
    pub unsafe fn mlx_array_item_float16(res: *mut float16_t, array: mlx_array) -> i32 {
        mlx_array_item_uint16(res.cast(), array)
    }

    /// The bits of a brain floating-point scalar.
    ///
    /// # Safety
    /// `res` is valid for a write and `array` holds one such number.
    pub unsafe fn mlx_array_item_bfloat16(res: *mut bfloat16_t, array: mlx_array) -> i32 {
        mlx_array_item_uint16(res, array)
    }

    /// The elements of a half-precision array.
    ///
    /// # Safety
    /// `array` was evaluated and holds half-precision numbers.
    pub unsafe fn mlx_array_data_float16(array: mlx_array) -> *const float16_t {
        mlx_array_data_uint16(array).cast()
    }

    /// The elements of a brain floating-point array.
    ///
    /// # Safety
    /// `array` was evaluated and holds such numbers.
    pub unsafe fn mlx_array_data_bfloat16(array: mlx_array) -> *const bfloat16_t {
        mlx_array_data_uint16(array)
    }
}
