//! Language models in MLX's format: the plugin `mlx` of pajamas-host.
//!
//! [`MlxBackend`] is the plugin's face. A checkpoint is a folder with `config.json`, `tokenizer.json` and safetensors, as
//! `mlx_lm` and `transformers` write them; `README.md` says which architectures, options and guarantees there are.
//! Requests are scheduled, sampled and constrained by the crate `pajamas-generation`; this crate computes.

mod attention;
mod backend;
#[cfg(target_os = "linux")]
pub mod blas;
mod cells;
mod config;
mod device;
mod files;
mod model;
mod network;
pub mod options;
#[cfg(test)]
mod reference_tests;
mod rope;
mod runner;
mod streams;
mod weights;

pub use backend::MlxBackend;
pub use model::MlxModel;

pajamas_plugin_api::export_plugin!(MlxBackend, id = "mlx", version = env!("CARGO_PKG_VERSION"));
