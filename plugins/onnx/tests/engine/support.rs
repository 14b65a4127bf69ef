//! What the tests share: the engine's library, and networks in temporary folders.

use std::path::{Path, PathBuf};

use pajamas_onnx::options::Options;
use pajamas_onnx::{Library, OnnxSession, OnnxValue};
use pajamas_pipelines::{TensorRunner, Value};
use pajamas_plugin_api::{Dtype, Error, TensorView};

use crate::onnx_writer::{bytes, int};

/// The engine, or `None`, said aloud, where it is not there.
pub(crate) fn library() -> Option<&'static Library> {
    let path = std::env::var_os("PAJAMAS_TEST_ONNXRUNTIME")
        .map_or_else(|| Library::path_in(Path::new(env!("CARGO_MANIFEST_DIR"))), PathBuf::from);
    if !path.is_file() {
        eprintln!("skipped: {} is not there; `cargo xtask build --plugin onnx` fetches it", path.display());
        return None;
    }
    Some(Library::load(&path).unwrap())
}

/// Two threads, and otherwise what is not said.
pub(crate) fn options() -> Options {
    Options { threads: Some(2), ..Options::default() }
}

pub(crate) fn open(file: &Path, options: &Options) -> Option<Result<OnnxSession, Error>> {
    Some(OnnxSession::open(library()?, file, options, || false))
}

/// A network of these bytes.
pub(crate) fn session(content: &[u8]) -> Option<Result<OnnxSession, Error>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, content).unwrap();
    open(&file, &options())
}

pub(crate) fn value(runner: &impl TensorRunner<Value = OnnxValue>, shape: &[i64], data: &[f32]) -> OnnxValue {
    let data: Vec<u8> = data.iter().flat_map(|number| number.to_ne_bytes()).collect();
    runner.value(&TensorView { name: "", dtype: Dtype::F32, shape, data: &data }).unwrap()
}

pub(crate) fn floats(value: &OnnxValue) -> Vec<f32> {
    let bytes = value.bytes().unwrap();
    bytes.chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
}

/// `NodeProto`.
pub(crate) fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name)).collect();
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
    [inputs, bytes(2, output), bytes(4, operator), attributes].concat()
}

/// `AttributeProto` of an integer.
pub(crate) fn attribute(name: &str, value: u64) -> Vec<u8> {
    [bytes(1, name), int(3, value), int(20, 2)].concat()
}
