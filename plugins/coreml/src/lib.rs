//! CoreML models: the plugin `coreml` of pajamas-host.
//!
//! [`CoremlBackend`] is the plugin's face. What a package says about its network is read in [`spec`] on every platform; only
//! `engine/apple.rs` knows the framework, so that everything else is tested where there is none. What a model is for is
//! decided in `pajamas-pipelines`. `README.md` describes options and guarantees.

mod backend;
mod cache;
mod engine;
mod model;
mod networks;
pub mod options;
mod package;
mod rows;
mod signature;
pub mod spec;
mod tensor;

pub use backend::CoremlBackend;
pub use package::Package;

pajamas_plugin_api::export_plugin!(CoremlBackend, id = "coreml", version = env!("CARGO_PKG_VERSION"));
