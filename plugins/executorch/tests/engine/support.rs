//! What the tests share: the engine, the programs, and the numbers that PyTorch computed.

use std::path::{Path, PathBuf};

use half::f16;
use pajamas_executorch::options::Options;
use pajamas_executorch::{ExecuTorchNetwork, HostTensor, Library, Program};
use pajamas_pipelines::{TensorRunner, Value};
use pajamas_plugin_api::{Dtype, Error, TensorView};
use serde_json::Value as Json;

/// The engine, or `None`, said aloud, where it is not there.
pub(crate) fn library() -> Option<&'static Library> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !Library::path_in(folder).is_file() {
        let path = Library::path_in(folder);
        eprintln!(
            "skipped: {} is not there; `cargo xtask build --plugin executorch` makes it",
            path.display()
        );
        return None;
    }
    Some(Library::load(folder).unwrap())
}

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// Two threads, and otherwise what is not said.
pub(crate) fn options() -> Options {
    Options { threads: Some(2), ..Options::default() }
}

pub(crate) fn open(path: &Path, options: &Options) -> Option<Result<ExecuTorchNetwork, Error>> {
    let library = library()?;
    Some(Program::open(path).and_then(|program| ExecuTorchNetwork::open(library, &program, options)))
}

/// One run that PyTorch made.
pub(crate) struct Case {
    pub(crate) inputs: Vec<Numbers>,
    pub(crate) outputs: Vec<Numbers>,
}

/// A tensor of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn cases(name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(file(name)).unwrap();
    let cases: Vec<Json> = serde_json::from_str(&text).unwrap();
    let list = |json: &Json| json.as_array().unwrap().iter().map(numbers).collect();
    cases.iter().map(|case| Case { inputs: list(&case["inputs"]), outputs: list(&case["outputs"]) }).collect()
}

fn numbers(json: &Json) -> Numbers {
    let dtype = match json["dtype"].as_str() {
        Some("float32") => Some(Dtype::F32),
        Some("float64") => Some(Dtype::F64),
        Some("float16") => Some(Dtype::F16),
        Some("int64") => Some(Dtype::I64),
        Some("int32") => Some(Dtype::I32),
        Some("bool") => Some(Dtype::Bool),
        _ => None,
    };
    let dtype = dtype.unwrap();
    let float = |json: &Json| json.as_f64().unwrap();
    let encode = |json: &Json| match dtype {
        Dtype::F32 => (float(json) as f32).to_ne_bytes().to_vec(),
        Dtype::F16 => f16::from_f64(float(json)).to_ne_bytes().to_vec(),
        Dtype::I64 => json.as_i64().unwrap().to_ne_bytes().to_vec(),
        Dtype::I32 => (json.as_i64().unwrap() as i32).to_ne_bytes().to_vec(),
        Dtype::Bool => vec![u8::from(json.as_bool().unwrap())],
        _ => float(json).to_ne_bytes().to_vec(),
    };
    let data = json["data"].as_array().unwrap().iter().flat_map(encode).collect();
    let shape = json["shape"].as_array().unwrap().iter().map(|dim| dim.as_i64().unwrap()).collect();
    Numbers { dtype, shape, data }
}

pub(crate) fn value(network: &ExecuTorchNetwork, numbers: &Numbers) -> HostTensor {
    let Numbers { dtype, shape, data } = numbers;
    network.value(&TensorView { name: "", dtype: *dtype, shape, data }).unwrap()
}

/// Runs a network on tensors in its own order, for all its outputs.
pub(crate) fn run(network: &ExecuTorchNetwork, inputs: &[Numbers]) -> Result<Vec<HostTensor>, Error> {
    let values: Vec<_> = inputs.iter().map(|numbers| value(network, numbers)).collect();
    let inputs: Vec<_> = network.inputs().iter().map(|spec| spec.name.as_str()).zip(&values).collect();
    let outputs: Vec<_> = network.outputs().iter().map(|spec| spec.name.as_str()).collect();
    network.run(&inputs, &outputs)
}

/// Compares what a program computes with what PyTorch did: whole numbers exactly, others within 1e-5 of the largest.
pub(crate) fn check(network: &ExecuTorchNetwork, cases: &str) {
    for case in self::cases(cases) {
        let results = run(network, &case.inputs).unwrap();
        assert_eq!(results.len(), case.outputs.len());
        for (result, expected) in results.iter().zip(&case.outputs) {
            assert_eq!((result.dtype(), result.shape()), (expected.dtype, expected.shape.as_slice()));
            let bytes = result.bytes().unwrap();
            if expected.dtype != Dtype::F32 {
                assert_eq!(bytes.as_ref(), expected.data, "{:?}", expected.dtype);
                continue;
            }
            let (got, expected) = (floats(&bytes), floats(&expected.data));
            let largest = expected.iter().fold(1.0_f32, |largest, number| largest.max(number.abs()));
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() <= 1e-5 * largest, "{got} instead of {expected}");
            }
        }
    }
}

pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
}

/// A program with one text in it replaced by another of the same length, in a folder of its own.
pub(crate) fn patched(name: &str, from: &str, to: &str) -> (tempfile::TempDir, PathBuf) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(file(name)).unwrap();
    let found = bytes.windows(from.len()).enumerate().filter(|(_, text)| *text == from.as_bytes());
    let places: Vec<usize> = found.map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "{name} has no {from}");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    written(&bytes)
}

/// A program of these bytes.
pub(crate) fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pte");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}
