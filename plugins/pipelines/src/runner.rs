//! What a pipeline needs of an engine: named tensors in, named tensors out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pajamas_plugin_api::{Dtype, Error, TensorView};

/// An input or output of a network, as the network declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions; `None` for one that is known only at run time.
    pub shape: Vec<Option<usize>>,
}

/// A tensor where the engine wants it: in host memory or on a device. Clones share the elements.
pub trait Value: Clone + Send + Sync + 'static {
    /// Element type.
    fn dtype(&self) -> Dtype;

    /// Dimensions.
    fn shape(&self) -> &[i64];

    /// The elements in native byte order, row-major; copied if they lie on a device.
    ///
    /// # Errors
    /// The device failed.
    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error>;
}

/// One network that is ready to run. Any thread may call any method, also at the same time; an engine that can run
/// only one call at once makes the others wait, or runs them as one batch.
pub trait TensorRunner: Send + Sync + 'static {
    /// The engine's tensors. What a run returns can be fed to the next run without a copy: this is how a KV cache
    /// stays where it is.
    type Value: Value;

    /// The network's inputs.
    fn inputs(&self) -> &[TensorSpec];

    /// The network's outputs.
    fn outputs(&self) -> &[TensorSpec];

    /// What the file says about itself, such as `names` and `stride` of an exported YOLO.
    fn metadata(&self) -> &BTreeMap<String, String>;

    /// Copies a tensor of the caller's to where the engine wants it. The view's name is not used.
    ///
    /// # Errors
    /// The data do not fill the shape, or memory does not suffice.
    fn value(&self, tensor: &TensorView<'_>) -> Result<Self::Value, Error>;

    /// Says that the rows of this network, the first dimension of all inputs and outputs, are inputs independent of each
    /// other, as pictures or texts are: from now on the engine may run the rows of several callers as one batch.
    fn rows_are_independent(&self) {}

    /// Runs the network once. `inputs` are in any order, `outputs` names what is wanted; the results have its order.
    ///
    /// # Errors
    /// An input or output of a wrong name, type or shape, which the message names with what was expected; or the
    /// engine failed.
    fn run(&self, inputs: &[(&str, &Self::Value)], outputs: &[&str]) -> Result<Vec<Self::Value>, Error>;
}
