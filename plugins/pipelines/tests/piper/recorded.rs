//! An engine that remembers which ids it was given.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pajamas_pipelines::{Networks, TensorRunner, TensorSpec, Value as _};
use pajamas_plugin_api::{Error, TensorView};

use crate::ort::{OrtNetwork, OrtNetworks, OrtValue};

/// The ids of each run.
type Runs = Arc<Mutex<Vec<Vec<i64>>>>;

pub(crate) struct RecordedNetworks {
    networks: &'static OrtNetworks,
    runs: Runs,
}

impl RecordedNetworks {
    pub(crate) fn new(networks: &'static OrtNetworks) -> Self {
        Self { networks, runs: Arc::default() }
    }

    /// The ids of all runs since the last call.
    pub(crate) fn take_ids(&self) -> Vec<Vec<i64>> {
        std::mem::take(&mut self.runs.lock().unwrap())
    }
}

impl Networks for RecordedNetworks {
    type Runner = RecordedNetwork;

    fn open(&self, file: &Path) -> Result<RecordedNetwork, Error> {
        Ok(RecordedNetwork { network: self.networks.open(file)?, runs: Arc::clone(&self.runs) })
    }
}

pub(crate) struct RecordedNetwork {
    network: OrtNetwork,
    runs: Runs,
}

impl TensorRunner for RecordedNetwork {
    type Value = OrtValue;

    fn inputs(&self) -> &[TensorSpec] {
        self.network.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.network.outputs()
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        self.network.metadata()
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<OrtValue, Error> {
        self.network.value(tensor)
    }

    fn run(&self, inputs: &[(&str, &OrtValue)], outputs: &[&str]) -> Result<Vec<OrtValue>, Error> {
        if let Some((_, ids)) = inputs.iter().find(|(name, _)| *name == "input") {
            self.runs.lock().unwrap().push(bytemuck::pod_collect_to_vec(&ids.bytes()?));
        }
        self.network.run(inputs, outputs)
    }
}
