//! ONNX Runtime as an engine for the tests of numbers: on the CPU, as the plugin for it does, without its options.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use ort::environment::Environment;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType};
use pajamas_pipelines::{Networks, TensorRunner, TensorSpec, Value};
use pajamas_plugin_api::{Dtype, Error, TensorView};

/// The library, `onnxruntime/capi/libonnxruntime.so.*` of the Python package `onnxruntime`.
const LIBRARY: &str = "PAJAMAS_TEST_ONNXRUNTIME";
/// Threads of a run.
const THREADS: usize = 2;

/// ONNX Runtime.
pub(crate) struct OrtNetworks(Environment);

impl OrtNetworks {
    /// `None`, said loudly, without the library.
    pub(crate) fn from_environment() -> Option<&'static Self> {
        // A process has one environment.
        static NETWORKS: OnceLock<OrtNetworks> = OnceLock::new();
        let Some(library) = std::env::var_os(LIBRARY) else {
            eprintln!("skipped: {LIBRARY} does not name the library of ONNX Runtime");
            return None;
        };
        Some(NETWORKS.get_or_init(|| Self(ort::init_from(library).unwrap().build().unwrap())))
    }
}

impl Networks for OrtNetworks {
    type Runner = OrtNetwork;

    fn open(&self, file: &Path) -> Result<OrtNetwork, Error> {
        let session = Session::builder(&self.0).unwrap().with_intra_threads(THREADS).unwrap();
        let session = session.with_intra_op_spinning(false).unwrap();
        let session = session.with_log_level(ort::logging::LogLevel::Error).unwrap().commit_from_file(file);
        let session = session.map_err(|error| Error::bad_model(error.to_string()))?;
        let metadata = metadata(&session);
        let specs = |outlets: &[Outlet]| outlets.iter().map(spec).collect();
        let (inputs, outputs) = (specs(session.inputs()), specs(session.outputs()));
        Ok(OrtNetwork { inputs, outputs, metadata, session: Mutex::new(session) })
    }
}

fn metadata(session: &Session) -> BTreeMap<String, String> {
    let metadata = session.metadata().unwrap();
    let keys = metadata.custom_keys().unwrap();
    keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect()
}

fn spec(outlet: &Outlet) -> TensorSpec {
    let dims = outlet.dtype().tensor_shape().unwrap();
    TensorSpec {
        name: outlet.name().to_owned(),
        dtype: dtype(outlet.dtype().tensor_type().unwrap()),
        shape: dims.iter().map(|dim| usize::try_from(*dim).ok()).collect(),
    }
}

fn dtype(kind: TensorElementType) -> Dtype {
    match kind {
        TensorElementType::Float32 => Dtype::F32,
        TensorElementType::Int64 => Dtype::I64,
        other => panic!("the test networks have no {other}"),
    }
}

/// An open network.
pub(crate) struct OrtNetwork {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    metadata: BTreeMap<String, String>,
    session: Mutex<Session>,
}

/// A tensor of ONNX Runtime's.
#[derive(Clone)]
pub(crate) struct OrtValue(Arc<DynValue>);

impl Value for OrtValue {
    fn dtype(&self) -> Dtype {
        dtype(self.0.dtype().tensor_type().unwrap())
    }

    fn shape(&self) -> &[i64] {
        self.0.dtype().tensor_shape().unwrap()
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        let error = |error: ort::Error| Error::internal(error.to_string());
        Ok(Cow::Borrowed(match self.dtype() {
            Dtype::I64 => bytemuck::cast_slice(self.0.try_extract_tensor::<i64>().map_err(error)?.1),
            _ => bytemuck::cast_slice(self.0.try_extract_tensor::<f32>().map_err(error)?.1),
        }))
    }
}

impl TensorRunner for OrtNetwork {
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
        let value =
            match tensor.dtype {
                Dtype::F32 => Tensor::from_array((shape, numbers(tensor.data, f32::from_ne_bytes)))
                    .map(Tensor::into_dyn),
                Dtype::I64 => Tensor::from_array((shape, numbers(tensor.data, i64::from_ne_bytes)))
                    .map(Tensor::into_dyn),
                other => panic!("the test networks have no {other:?}"),
            };
        value.map(|value| OrtValue(Arc::new(value))).map_err(|error| Error::internal(error.to_string()))
    }

    fn run(&self, inputs: &[(&str, &OrtValue)], outputs: &[&str]) -> Result<Vec<OrtValue>, Error> {
        let wanted = outputs.iter().fold(OutputSelector::no_default(), |wanted, name| wanted.with(*name));
        let options = RunOptions::new().unwrap().with_outputs(wanted);
        let inputs: Vec<(&str, SessionInputValue<'_>)> =
            inputs.iter().map(|(name, value)| (*name, (&*value.0).into())).collect();
        let mut session = self.session.lock().unwrap();
        let results = session.run_with_options(inputs, &options);
        let mut results = results.map_err(|error| Error::internal(error.to_string()))?;
        let take = |name: &&str| OrtValue(Arc::new(results.remove(*name).expect("the output is there")));
        Ok(outputs.iter().map(take).collect())
    }
}

fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| number(*bytes)).collect()
}
