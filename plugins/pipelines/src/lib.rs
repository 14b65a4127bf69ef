//! The half of a plugin that no engine needs to know: what happens before the tensors go in and after they come out.
//!
//! An engine implements [`TensorRunner`] for its sessions and [`Networks`] for opening a model's files; a [`Pipeline`]
//! turns requests of the plugin contract into runs of one or more networks, and their outputs into events.

mod files;
mod numbers;
mod open;
mod options;
mod pipeline;
mod runner;
mod tensors;
mod text;
mod vad;
mod vision;
pub mod whisper;

pub use open::{Detected, Header, Kind, detect, network_file, open};
pub use pipeline::{Networks, Pipeline};
pub use runner::{TensorRunner, TensorSpec, Value};
