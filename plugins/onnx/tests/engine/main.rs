//! Sessions of ONNX Runtime: small networks that are written here, and real models where `cargo xtask models` has fetched
//! them.

mod models;
mod onnx_writer;
mod sessions;
mod support;
