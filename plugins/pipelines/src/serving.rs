//! A loaded model at work, for every engine that runs tensors: slots and a queue, threads, batches, and the checks that
//! come before a run.

mod batcher;
mod check;
mod headers;
mod job;
mod model;
mod slots;

pub use batcher::{BatchCounts, BatchLimits, Batcher};
pub use check::{check_inputs, check_outputs};
pub use headers::{HeaderRunner, NoValue};
pub use model::{Loaded, PipelineModel};
