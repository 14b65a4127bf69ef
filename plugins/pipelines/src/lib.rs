//! The half of a plugin that no engine needs to know: what happens before the tensors go in and after they come out.
//!
//! An engine implements [`TensorRunner`] for its sessions and [`Networks`] for opening a model's files; a [`Pipeline`]
//! turns requests of the plugin contract into runs of one or more networks, and their outputs into events. A
//! [`PipelineModel`] gives its requests slots and threads, and a [`Batcher`] makes runs that come together into one.

pub mod espeak;
mod files;
mod numbers;
pub mod onnx_file;
mod open;
mod options;
mod pipeline;
pub mod piper;
pub mod protobuf;
mod runner;
mod serving;
mod speech;
mod tensors;
mod text;
mod vad;
mod vision;
pub mod whisper;

pub use open::{Detected, Header, Kind, detect, kind, network_file, open};
pub use pipeline::{NetworkFiles, Networks, Pipeline};
pub use runner::{TensorRunner, TensorSpec, Value};
pub use serving::{
    BatchCounts, BatchLimits, Batcher, HeaderRunner, Loaded, NoValue, PipelineModel, check_inputs,
    check_outputs,
};
pub use speech::SpeakRequest;
