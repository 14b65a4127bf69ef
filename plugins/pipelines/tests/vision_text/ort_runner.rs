//! ONNX Runtime as an engine for the tests of numbers; a plugin's engine does much more.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType};
use pajamas_pipelines::{Networks, TensorRunner, TensorSpec, Value};
use pajamas_plugin_api::{Dtype, Error, TensorView};

/// ONNX Runtime's library, from the environment variable `PAJAMAS_TEST_ONNXRUNTIME`.
pub(crate) struct OrtNetworks(Environment);

impl OrtNetworks {
    /// `None`, said loudly, if the variable is not set.
    pub(crate) fn from_env() -> Option<&'static Self> {
        // A process has one environment.
        static NETWORKS: OnceLock<OrtNetworks> = OnceLock::new();
        let Some(path) = std::env::var_os("PAJAMAS_TEST_ONNXRUNTIME") else {
            println!("skipped: PAJAMAS_TEST_ONNXRUNTIME does not name the library of ONNX Runtime");
            return None;
        };
        Some(NETWORKS.get_or_init(|| Self(ort::init_from(path).unwrap().build().unwrap())))
    }
}

impl Networks for OrtNetworks {
    type Runner = OrtNetwork;

    fn open(&self, file: &Path) -> Result<OrtNetwork, Error> {
        let session = Session::builder(&self.0).and_then(|mut builder| builder.commit_from_file(file));
        let session = session.map_err(|error| Error::bad_model(error.to_string()))?;
        let metadata = metadata(&session);
        let (inputs, outputs) = (specs(session.inputs()), specs(session.outputs()));
        Ok(OrtNetwork { inputs, outputs, metadata, session: Mutex::new(session) })
    }
}

fn metadata(session: &Session) -> BTreeMap<String, String> {
    let metadata = session.metadata().unwrap();
    let keys = metadata.custom_keys().unwrap();
    keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect()
}

fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| number(*bytes)).collect()
}

fn specs(outlets: &[Outlet]) -> Vec<TensorSpec> {
    let spec = |outlet: &Outlet| TensorSpec {
        name: outlet.name().to_owned(),
        dtype: dtype(outlet.dtype().tensor_type().unwrap()),
        shape: outlet.dtype().tensor_shape().unwrap().iter().map(|dim| usize::try_from(*dim).ok()).collect(),
    };
    outlets.iter().map(spec).collect()
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
        let (_, numbers) = self.0.try_extract_tensor::<f32>().map_err(|e| Error::internal(e.to_string()))?;
        Ok(Cow::Borrowed(bytemuck::cast_slice(numbers)))
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
        let value = match tensor.dtype {
            Dtype::F32 => Tensor::from_array((tensor.shape, numbers(tensor.data, f32::from_ne_bytes)))
                .map(Tensor::into_dyn),
            _ => Tensor::from_array((tensor.shape, numbers(tensor.data, i64::from_ne_bytes)))
                .map(Tensor::into_dyn),
        };
        value.map(|value| OrtValue(Arc::new(value))).map_err(|error| Error::internal(error.to_string()))
    }

    fn run(&self, inputs: &[(&str, &OrtValue)], outputs: &[&str]) -> Result<Vec<OrtValue>, Error> {
        let inputs: Vec<(&str, SessionInputValue<'_>)> =
            inputs.iter().map(|(name, value)| (*name, (&*value.0).into())).collect();
        let mut session = self.session.lock().unwrap();
        let mut results = session.run(inputs).map_err(|error| Error::internal(error.to_string()))?;
        let take = |name: &&str| OrtValue(Arc::new(results.remove(*name).expect("the output is there")));
        Ok(outputs.iter().map(take).collect())
    }
}
