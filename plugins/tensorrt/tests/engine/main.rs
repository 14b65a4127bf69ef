//! The plugin's face and the library beneath, as far as both go without a GPU: engines are built here, and not run.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

mod builds;
mod face;
#[path = "../../../pipelines/tests/onnx_writer/mod.rs"]
mod onnx_writer;
mod support;
