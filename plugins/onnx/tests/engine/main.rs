//! Sessions of ONNX Runtime: small networks that are written here, and real models where `cargo xtask models` has fetched
//! them. What is missing is skipped, and said.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

mod decoder;
mod models;
#[path = "../../../pipelines/tests/onnx_writer/mod.rs"]
mod onnx_writer;
mod sessions;
mod support;
