//! The smallest engine that runs the networks: ONNX Runtime on the CPU, as the plugin for it does, without its options.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use ort::environment::Environment;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType};
use pajamas_pipelines::{Networks, TensorRunner, TensorSpec, Value};
use pajamas_plugin_api::{Dtype, Error, TensorView};

/// The library of ONNX Runtime, `onnxruntime/capi/libonnxruntime.so.*` of the Python package `onnxruntime`.
const LIBRARY: &str = "PAJAMAS_TEST_ONNXRUNTIME";

pub(crate) struct Engine {
    threads: usize,
    environment: &'static Environment,
}

impl Engine {
    /// `None`, said loudly, without the library.
    pub(crate) fn start(threads: usize) -> Option<Self> {
        static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
        let Some(library) = std::env::var_os(LIBRARY).map(PathBuf::from) else {
            eprintln!("skipped: {LIBRARY} does not name the library of ONNX Runtime");
            return None;
        };
        let environment = ENVIRONMENT.get_or_init(|| ort::init_from(library).unwrap().build().unwrap());
        Some(Self { threads, environment })
    }
}

impl Networks for Engine {
    type Runner = Network;

    fn open(&self, file: &Path) -> Result<Network, Error> {
        let session = Session::builder(self.environment).unwrap().with_intra_threads(self.threads).unwrap();
        let session = session.with_intra_op_spinning(false).unwrap();
        let session =
            session.with_log_level(ort::logging::LogLevel::Error).unwrap().commit_from_file(file).unwrap();
        let specs = |outlets: &[Outlet]| outlets.iter().map(spec).collect();
        Ok(Network {
            inputs: specs(session.inputs()),
            outputs: specs(session.outputs()),
            metadata: BTreeMap::new(),
            session: Mutex::new(session),
        })
    }
}

fn spec(outlet: &Outlet) -> TensorSpec {
    let dtype = match outlet.dtype().tensor_type() {
        Some(TensorElementType::Float32) => Dtype::F32,
        Some(TensorElementType::Int64) => Dtype::I64,
        other => panic!("{}: {other:?}", outlet.name()),
    };
    let dims = outlet.dtype().tensor_shape().unwrap();
    let shape = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    TensorSpec { name: outlet.name().to_owned(), dtype, shape }
}

pub(crate) struct Network {
    session: Mutex<Session>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    metadata: BTreeMap<String, String>,
}

#[derive(Clone)]
pub(crate) struct OrtValue(Arc<DynValue>);

impl Value for OrtValue {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[i64] {
        self.0.dtype().tensor_shape().unwrap()
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(bytemuck::cast_slice(self.0.try_extract_tensor::<f32>().unwrap().1)))
    }
}

impl TensorRunner for Network {
    type Value = OrtValue;

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<OrtValue, Error> {
        let shape = tensor.shape.to_vec();
        let value = match tensor.dtype {
            Dtype::F32 => {
                Tensor::from_array((shape, elements(tensor.data, f32::from_ne_bytes))).unwrap().into_dyn()
            }
            Dtype::I64 => {
                Tensor::from_array((shape, elements(tensor.data, i64::from_ne_bytes))).unwrap().into_dyn()
            }
            other => panic!("{other:?}"),
        };
        Ok(OrtValue(Arc::new(value)))
    }

    fn run(&self, inputs: &[(&str, &OrtValue)], outputs: &[&str]) -> Result<Vec<OrtValue>, Error> {
        let wanted = outputs.iter().fold(OutputSelector::no_default(), |wanted, name| wanted.with(*name));
        let options = RunOptions::new().unwrap().with_outputs(wanted);
        let values: Vec<(&str, SessionInputValue<'_>)> =
            inputs.iter().map(|(name, value)| (*name, (&*value.0).into())).collect();
        let mut session = self.session.lock().unwrap();
        let results =
            session.run_with_options(values, &options).map_err(|e| Error::internal(e.to_string()))?;
        let mut results: BTreeMap<String, DynValue> =
            results.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(outputs.iter().map(|name| OrtValue(Arc::new(results.remove(*name).unwrap()))).collect())
    }
}

fn elements<T, const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| element(*bytes)).collect()
}
