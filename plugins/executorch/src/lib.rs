//! PyTorch programs through ExecuTorch: the plugin `executorch` of pajamas-host.
//!
//! [`ExecuTorchBackend`] is the plugin's face. What a `.pte` says about its methods is read in [`Program`] without the
//! engine; [`ExecuTorchNetwork`] runs one method of it. What a model is for, and how requests share it, is in
//! `pajamas-pipelines`. `README.md` describes options and guarantees.

mod backend;
mod ffi;
mod flatbuffer;
mod instructions;
mod library;
mod model;
mod network;
mod networks;
pub mod options;
mod program;
mod signature;
mod tensor;

pub use backend::ExecuTorchBackend;
pub use library::Library;
pub use network::ExecuTorchNetwork;
pub use program::{MethodInfo, Port, Program, Slot};
pub use tensor::HostTensor;

pajamas_plugin_api::export_plugin!(ExecuTorchBackend, id = "executorch", version = env!("CARGO_PKG_VERSION"));
