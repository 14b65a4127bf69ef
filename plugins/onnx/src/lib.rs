//! ONNX models through ONNX Runtime: the plugin `onnx` of pajamas-host.
//!
//! [`OnnxBackend`] is the plugin's face. [`OnnxSession`] runs one network; what a model is for, and how requests
//! share it, is in `pajamas-pipelines`. `README.md` describes options and guarantees.

mod backend;
mod library;
mod model;
mod networks;
pub mod options;
mod provider;
mod session;
mod value;

pub use backend::OnnxBackend;
pub use library::Library;
pub use provider::Provider;
pub use session::OnnxSession;
pub use value::OnnxValue;

pajamas_plugin_api::export_plugin!(OnnxBackend, id = "onnx", version = env!("CARGO_PKG_VERSION"));
