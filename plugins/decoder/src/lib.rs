//! Text generation over a network whose key-value cache goes in and comes out as tensors, for any engine that implements
//! [`TensorRunner`](pajamas_pipelines::TensorRunner): the decoders that Hugging Face's Optimum and onnxruntime-genai export.
//!
//! A plugin opens a [`DecoderFolder`], loads its network, and gives both to a [`DecoderModel`]. Scheduling, sampling,
//! grammars and tokens are the crate `pajamas-generation`'s; this crate computes. `README.md` says which networks are read.

mod cells;
mod folder;
mod layout;
mod model;
mod options;
mod probe;
mod runner;
mod served;

pub use folder::DecoderFolder;
pub use model::{DecoderModel, DecoderParts};
pub use options::DecoderOptions;
pub use runner::DecoderRunner;
pub use served::Served;
