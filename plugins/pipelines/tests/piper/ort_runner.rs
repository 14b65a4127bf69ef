//! ONNX Runtime as an engine for these tests, no more than Piper needs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, Tensor, TensorElementType};
use pajamas_pipelines::{Networks, TensorRunner, TensorSpec, Value};
use pajamas_plugin_api::{Dtype, Error, TensorView};

pub(crate) struct OrtNetworks {
    environment: Environment,
    ids: SeenIds,
}

/// The ids of each run.
type SeenIds = Arc<Mutex<Vec<Vec<i64>>>>;

impl OrtNetworks {
    /// Loads the library that `PAJAMAS_TEST_ONNXRUNTIME` names.
    pub(crate) fn from_environment() -> Option<Self> {
        let Some(library) = std::env::var_os("PAJAMAS_TEST_ONNXRUNTIME") else {
            eprintln!("skipped: PAJAMAS_TEST_ONNXRUNTIME does not name the library of ONNX Runtime");
            return None;
        };
        let environment = ort::init_from(library).unwrap().build().unwrap();
        Some(Self { environment, ids: Arc::default() })
    }

    /// The ids of all runs since the last call.
    pub(crate) fn take_ids(&self) -> Vec<Vec<i64>> {
        std::mem::take(&mut self.ids.lock().unwrap())
    }
}

impl Networks for OrtNetworks {
    type Runner = OrtRunner;

    fn open(&self, file: &Path) -> Result<OrtRunner, Error> {
        let session = Session::builder(&self.environment)
            .unwrap()
            .with_intra_threads(2)
            .unwrap()
            .commit_from_file(file)
            .unwrap();
        let spec = |outlet: &Outlet| TensorSpec {
            name: outlet.name().to_owned(),
            dtype: match outlet.dtype().tensor_type() {
                Some(TensorElementType::Int64) => Dtype::I64,
                _ => Dtype::F32,
            },
            shape: vec![],
        };
        let inputs = session.inputs().iter().map(spec).collect();
        let outputs = session.outputs().iter().map(spec).collect();
        let ids = Arc::clone(&self.ids);
        Ok(OrtRunner { session: Mutex::new(session), inputs, outputs, metadata: BTreeMap::new(), ids })
    }
}

pub(crate) struct OrtRunner {
    session: Mutex<Session>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    metadata: BTreeMap<String, String>,
    ids: SeenIds,
}

#[derive(Clone)]
pub(crate) struct HostTensor {
    dtype: Dtype,
    shape: Vec<i64>,
    data: Arc<[u8]>,
}

impl Value for HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[i64] {
        &self.shape
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.data))
    }
}

impl HostTensor {
    fn i64s(&self) -> Vec<i64> {
        self.data.as_chunks().0.iter().map(|bytes| i64::from_ne_bytes(*bytes)).collect()
    }

    fn to_ort(&self) -> SessionInputValue<'static> {
        let shape = self.shape.clone();
        match self.dtype {
            Dtype::I64 => Tensor::from_array((shape, self.i64s())).unwrap().into(),
            _ => {
                let data: Vec<_> =
                    self.data.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
                Tensor::from_array((shape, data)).unwrap().into()
            }
        }
    }
}

impl TensorRunner for OrtRunner {
    type Value = HostTensor;

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<HostTensor, Error> {
        Ok(HostTensor { dtype: tensor.dtype, shape: tensor.shape.to_vec(), data: tensor.data.into() })
    }

    fn run(&self, inputs: &[(&str, &HostTensor)], outputs: &[&str]) -> Result<Vec<HostTensor>, Error> {
        let ids = inputs.iter().find(|(name, _)| *name == "input").map(|(_, value)| value.i64s());
        self.ids.lock().unwrap().extend(ids);
        let inputs: Vec<_> =
            inputs.iter().map(|(name, value)| (Cow::from((*name).to_owned()), value.to_ort())).collect();
        let mut session = self.session.lock().unwrap();
        let results = session.run(inputs).unwrap();
        let copied = outputs.iter().map(|name| {
            let (shape, data) = results[*name].try_extract_tensor::<f32>().unwrap();
            let data: Vec<u8> = data.iter().flat_map(|number| number.to_ne_bytes()).collect();
            HostTensor { dtype: Dtype::F32, shape: shape.to_vec(), data: data.into() }
        });
        Ok(copied.collect())
    }
}
