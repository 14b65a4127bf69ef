//! The pipelines for pictures and texts, through the same door as a plugin: `open`, then requests.
//!
//! `fake` networks show what a pipeline feeds and how it reads the answer; `real` ones, where ONNX Runtime and the models
//! are there, that the numbers are those of the reference.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "the helpers of tests fail as tests do"
)]

mod fake;
mod opening;
#[path = "../ort/mod.rs"]
mod ort;
mod real;
mod support;
mod tensors;
mod texts;
mod vision;
