//! All unsafe code of this plugin: the CUDA driver's calls, and the memory whose addresses TensorRT gets.

pub(crate) mod cuda;
pub(crate) mod lane;
