//! Networks that are a closure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pajamas_pipelines::{Networks, TensorRunner, TensorSpec, Value};
use pajamas_plugin_api::{Dtype, Error, ErrorKind, TensorView};

/// A tensor in memory.
#[derive(Clone, Debug)]
pub(crate) struct FakeValue {
    dtype: Dtype,
    pub(crate) shape: Vec<i64>,
    data: Arc<Vec<u8>>,
}

impl FakeValue {
    pub(crate) fn f32s(shape: &[i64], numbers: &[f32]) -> Self {
        let data = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), data: Arc::new(data) }
    }

    pub(crate) fn as_f32s(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        self.data.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
    }

    pub(crate) fn as_u8s(&self) -> &[u8] {
        assert_eq!(self.dtype, Dtype::U8);
        &self.data
    }

    pub(crate) fn as_i64s(&self) -> Vec<i64> {
        assert_eq!(self.dtype, Dtype::I64);
        self.data.as_chunks().0.iter().map(|bytes| i64::from_ne_bytes(*bytes)).collect()
    }
}

impl Value for FakeValue {
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

type Compute = dyn Fn(&BTreeMap<&str, &FakeValue>, &str) -> FakeValue + Send + Sync;

/// A network whose outputs are computed by a closure, from the inputs by name and the output's name.
#[derive(Clone)]
pub(crate) struct FakeNetwork {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    metadata: BTreeMap<String, String>,
    compute: Arc<Compute>,
}

impl FakeNetwork {
    pub(crate) fn new(
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
        compute: impl Fn(&BTreeMap<&str, &FakeValue>, &str) -> FakeValue + Send + Sync + 'static,
    ) -> Self {
        Self { inputs, outputs, metadata: BTreeMap::new(), compute: Arc::new(compute) }
    }

    /// A network that is opened, but never run.
    pub(crate) fn idle(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Self {
        Self::new(inputs, outputs, |_, output| panic!("{output} was computed"))
    }

    pub(crate) fn with_metadata(mut self, pairs: &[(&str, &str)]) -> Self {
        self.metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self
    }
}

impl TensorRunner for FakeNetwork {
    type Value = FakeValue;

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<FakeValue, Error> {
        let data = Arc::new(tensor.data.to_vec());
        Ok(FakeValue { dtype: tensor.dtype, shape: tensor.shape.to_vec(), data })
    }

    fn run(&self, inputs: &[(&str, &FakeValue)], outputs: &[&str]) -> Result<Vec<FakeValue>, Error> {
        for spec in &self.inputs {
            let (_, value) = inputs.iter().find(|(name, _)| *name == spec.name).expect("every input is fed");
            assert_eq!(value.dtype, spec.dtype, "{}", spec.name);
            let fits = value.shape.iter().zip(&spec.shape).all(|(a, b)| b.is_none_or(|b| *a == b as i64));
            assert!(
                fits && value.shape.len() == spec.shape.len(),
                "{} has shape {:?}",
                spec.name,
                value.shape
            );
        }
        assert_eq!(inputs.len(), self.inputs.len());
        let inputs = inputs.iter().copied().collect();
        Ok(outputs.iter().map(|output| (self.compute)(&inputs, output)).collect())
    }
}

/// Networks by the name of their file.
#[derive(Clone, Default)]
pub(crate) struct FakeNetworks(BTreeMap<String, FakeNetwork>);

impl FakeNetworks {
    /// Puts an empty file there for each network.
    pub(crate) fn new(folder: &Path, networks: &[(&str, FakeNetwork)]) -> Self {
        for (name, _) in networks {
            std::fs::write(folder.join(name), "").unwrap();
        }
        Self(networks.iter().map(|(name, network)| ((*name).to_owned(), network.clone())).collect())
    }
}

impl Networks for FakeNetworks {
    type Runner = FakeNetwork;

    fn open(&self, file: &Path) -> Result<FakeNetwork, Error> {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        self.0
            .get(&name)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no network {name}")))
    }
}

/// A declared tensor; 0 stands for a dimension that is not known.
pub(crate) fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
    let shape = shape.iter().map(|dim| (*dim > 0).then_some(*dim)).collect();
    TensorSpec { name: name.to_owned(), dtype, shape }
}
