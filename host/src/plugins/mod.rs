//! Plugins: finding them, choosing among them, and running them in worker processes.

pub mod confine;
pub mod discover;
mod exit;
mod output;
mod protocol;
pub mod select;
mod supervisor;
mod transport;
mod wire;
pub mod worker;

pub use supervisor::{
    CallError, JobQueue, JobReceiver, ModelHandle, OnEnd, StartError, Worker, WorkerOptions,
};
