//! GGUF models through llama.cpp: the plugin `gguf` of pajamas-host.
//!
//! [`GgufBackend`] is the plugin's face. A loaded model generates text (by the crate `pajamas-generation`), embeds, reranks and tokenises; `README.md` describes options and guarantees.

mod backend;
mod embed;
mod ffi;
mod gguf_file;
mod inspect;
mod llama_log;
mod model;
pub mod options;
mod rerank;
mod stats;
mod vocabulary;

pub use backend::GgufBackend;
pub use model::GgufModel;

pajamas_plugin_api::export_plugin!(GgufBackend, id = "gguf", version = env!("CARGO_PKG_VERSION"));
