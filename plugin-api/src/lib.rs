#![doc = include_str!("../README.md")]
//!
//! The contract between pajamas-host and its backend plugins.
//!
//! A plugin is a dynamic library with one exported symbol. In Rust, implement [`Backend`] and [`Model`] and name the
//! backend in [`export_plugin!`]; in C, include `pajamas_plugin.h`, which is generated from [`abi`]. `SPEC.md` has the
//! numbered rules that both follow and the JSON schemas of the tasks.

pub mod abi;
mod backend;
mod compute;
mod device;
mod error;
mod event;
pub mod export;
mod job;
mod log;
pub mod manifest;
mod memory;
mod model_info;
#[cfg(feature = "native")]
pub mod native;
pub mod options;
mod task;
mod tensor;
pub mod thread;
mod transcript;
pub mod version;

pub use backend::{Backend, Model};
pub use compute::{ComputeCapability, ComputeError, ComputeRule};
pub use device::{Accel, Device, ProbeReport};
pub use error::{Error, ErrorKind};
pub use event::{Event, EventSink, Finish, Flow, TopLogprob, Usage};
pub use job::{Job, Progress};
pub use log::{LogSink, init_tracing, level_from_abi, level_to_abi};
pub use manifest::Manifest;
pub use memory::resident_bytes;
pub use model_info::{LoadSpec, ModelInfo, ModelStats, TensorInfo};
pub use task::{
    EmbedParams, GenerateParams, Grammar, InferParams, Params, Part, Request, SpeakParams, Task,
    TranscribeParams,
};
pub use tensor::{Dtype, Tensor, TensorView, shape_bytes};
pub use transcript::{Segment, Word};
