//! Networks as headers of files: for models that are only looked at.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pajamas_plugin_api::{Dtype, Error, TensorView};

use crate::open::Header;
use crate::runner::{TensorRunner, TensorSpec, Value};

/// A network that was not loaded and does not run.
#[derive(Clone, Debug)]
pub struct HeaderRunner(Header);

impl HeaderRunner {
    /// A network that is known by what its file says: enough for a pipeline to tell what the model is, without the engine.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self(header)
    }
}

/// The value that a network which was not loaded never has.
#[derive(Clone, Debug)]
pub enum NoValue {}

impl Value for NoValue {
    fn dtype(&self) -> Dtype {
        match *self {}
    }

    fn shape(&self) -> &[i64] {
        match *self {}
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        match *self {}
    }
}

impl TensorRunner for HeaderRunner {
    type Value = NoValue;

    fn inputs(&self) -> &[TensorSpec] {
        &self.0.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.0.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    fn value(&self, _: &TensorView<'_>) -> Result<NoValue, Error> {
        Err(not_loaded())
    }

    fn run(&self, _: &[(&str, &NoValue)], _: &[&str]) -> Result<Vec<NoValue>, Error> {
        Err(not_loaded())
    }
}

fn not_loaded() -> Error {
    Error::internal("a model that is only inspected does not run")
}
