//! One network that is ready to run.

use std::collections::BTreeMap;

use pajamas_pipelines::{TensorRunner, TensorSpec, Value, check_inputs, check_outputs};
use pajamas_plugin_api::{Error, TensorView, shape_bytes};

use crate::engine::Engine;
use crate::profile::Range;
use crate::value::HostValue;

/// An engine with what its file says about itself. Runs share the streams of the engine; one more waits.
pub(crate) struct Session {
    engine: Engine,
    metadata: BTreeMap<String, String>,
    /// The dimensions that the engine was built for, where it was built here.
    ranges: BTreeMap<String, Range>,
}

impl Session {
    pub(crate) fn new(
        engine: Engine,
        metadata: BTreeMap<String, String>,
        ranges: BTreeMap<String, Range>,
    ) -> Self {
        Self { engine, metadata, ranges }
    }

    /// The engine beneath.
    #[cfg(not(feature = "enterprise"))]
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Runs once with zeros, in the shapes that the engine is fastest for: what the library compiles and allocates for the
    /// first run is then there. A network that does not take zeros is not the worse for it.
    pub(crate) fn warm_up(&self) {
        let zeros = |spec: &TensorSpec| {
            let shape = match self.ranges.get(&spec.name) {
                Some(range) => range.opt.clone(),
                None => spec.shape.iter().map(|dim| i64::try_from(dim.unwrap_or(1)).unwrap_or(1)).collect(),
            };
            let data = vec![0; shape_bytes(spec.dtype, &shape)?];
            HostValue::copy_of(&TensorView { name: "", dtype: spec.dtype, shape: &shape, data: &data }).ok()
        };
        let Some(values) = self.inputs().iter().map(zeros).collect::<Option<Vec<_>>>() else { return };
        let inputs: Vec<_> = self.inputs().iter().map(|spec| spec.name.as_str()).zip(&values).collect();
        if let Err(error) = self.engine.run(&inputs, &[]) {
            tracing::info!("no warm-up: {error}");
        }
    }
}

impl TensorRunner for Session {
    type Value = HostValue;

    fn inputs(&self) -> &[TensorSpec] {
        &self.engine.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.engine.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<HostValue, Error> {
        HostValue::copy_of(tensor)
    }

    fn run(&self, inputs: &[(&str, &HostValue)], outputs: &[&str]) -> Result<Vec<HostValue>, Error> {
        check_inputs(self.inputs(), inputs)?;
        check_outputs(self.outputs(), outputs)?;
        check_ranges(&self.ranges, inputs)?;
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        self.engine.run(inputs, outputs)
    }
}

/// Whether the engine was built for these shapes.
fn check_ranges<V: Value>(ranges: &BTreeMap<String, Range>, inputs: &[(&str, &V)]) -> Result<(), Error> {
    for (name, value) in inputs {
        if let Some(range) = ranges.get(*name).filter(|range| !range.allows(value.shape())) {
            return Err(Error::invalid(format!(
                "input `{name}` has the shape {:?}, and the engine was built for {:?} to {:?}: the options `batch_max` and \
                 `profiles` say for which shapes it is built",
                value.shape(),
                range.min,
                range.max
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::Dtype;

    use super::*;

    #[test]
    fn shapes_that_the_engine_was_not_built_for_are_refused_with_those_it_was() {
        let range = Range { min: vec![1, 3], opt: vec![4, 3], max: vec![8, 3] };
        let ranges = BTreeMap::from([("x".to_owned(), range)]);
        let value = |rows: i64| {
            let data = vec![0; shape_bytes(Dtype::F32, &[rows, 3]).unwrap()];
            HostValue::copy_of(&TensorView { name: "", dtype: Dtype::F32, shape: &[rows, 3], data: &data })
                .unwrap()
        };
        for (name, rows, is_good) in [("x", 1, true), ("x", 8, true), ("x", 9, false), ("y", 9, true)] {
            let checked = check_ranges(&ranges, &[(name, &value(rows))]);
            assert_eq!(checked.is_ok(), is_good, "{name} {rows}");
            if let Err(error) = checked {
                let message = error.message();
                assert!(message.contains("[9, 3]") && message.contains("[1, 3] to [8, 3]"), "{message}");
                assert!(message.contains("`batch_max`"), "{message}");
            }
        }
    }
}
