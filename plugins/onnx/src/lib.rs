//! ONNX models through ONNX Runtime: the plugin `onnx` of pajamas-host.
//!
//! [`OnnxBackend`] is the plugin's face. [`OnnxSession`] runs one network, [`Batcher`] makes runs that come together into
//! one; what a model is for is decided in `pajamas-pipelines`. `README.md` describes options and guarantees.

mod backend;
mod batcher;
mod check;
mod job;
mod library;
mod model;
mod networks;
mod onnx_file;
pub mod options;
mod protobuf;
mod provider;
mod session;
mod slots;
mod value;

pub use backend::OnnxBackend;
pub use batcher::{BatchCounts, BatchLimits, Batcher};
pub use library::Library;
pub use model::OnnxModel;
pub use provider::Provider;
pub use session::OnnxSession;
pub use value::OnnxValue;

pajamas_plugin_api::export_plugin!(OnnxBackend, id = "onnx", version = env!("CARGO_PKG_VERSION"));
