//! ONNX models and built engines through NVIDIA TensorRT: the plugin `tensorrt` of pajamas-host.
//!
//! [`TensorRtBackend`] is the plugin's face. An ONNX file becomes an engine when it is first loaded ([`build_engine`]), and
//! the engine is kept ([`EngineCache`]). What a model is for, and how requests share it, is in `pajamas-pipelines`.
//! `README.md` describes options and guarantees.

mod backend;
mod builder;
mod cache;
mod engine;
mod ffi;
mod flavour;
mod library;
mod model;
mod networks;
pub mod options;
mod plan;
mod profile;
mod session;
mod value;

pub use backend::TensorRtBackend;
pub use builder::{BuildRequest, build_engine};
pub use cache::{EngineCache, EngineKey};
pub use flavour::{SUPPORTED, VERSION, unsupported_gpu};
pub use library::Library;
pub use plan::Plan;
pub use profile::{DecoderSizes, Range, choose_ranges, decoder_profiles};
pub use value::HostValue;

pajamas_plugin_api::export_plugin!(TensorRtBackend, id = "tensorrt", version = env!("CARGO_PKG_VERSION"));
