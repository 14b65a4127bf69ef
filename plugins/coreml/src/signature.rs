//! A network's inputs and outputs as tensors: what pipelines and `infer` see of CoreML's types of features.

use pajamas_pipelines::TensorSpec;
use pajamas_plugin_api::Dtype;

use crate::spec::{Color, Feature, FeatureKind, Function};

/// The inputs and outputs of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Inputs that a run needs.
    pub(crate) inputs: Vec<Port>,
    /// Outputs that are numbers.
    pub(crate) outputs: Vec<Port>,
    /// The first dimension of all is the number of rows, each of which CoreML computes as a prediction of its own. The
    /// network itself says 1 there, or, for pictures and probabilities, nothing.
    pub(crate) has_rows: bool,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// How it looks from outside.
    pub(crate) spec: TensorSpec,
    /// What CoreML takes or gives.
    pub(crate) kind: PortKind,
}

/// What CoreML takes or gives for a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortKind {
    /// A tensor of the same shape.
    Array,
    /// A picture; the tensor has its rows, columns and channels.
    Image(Color),
    /// One integer.
    Integer,
    /// One number.
    Number,
    /// Probabilities by the names of classes; the tensor has them in this order.
    Probabilities(Vec<String>),
}

impl Signature {
    /// The signature of a function with classes of these names.
    ///
    /// # Errors
    /// It needs an input that is no tensor, picture or number; the reason is for the end of "MODEL has".
    pub(crate) fn of(function: &Function, labels: &[String]) -> Result<Self, String> {
        let mut inputs = Vec::new();
        for feature in function.inputs.iter().filter(|feature| !feature.is_optional) {
            let port = Port::of(feature, &[]).filter(|port| !matches!(port.kind, PortKind::Probabilities(_)));
            inputs.push(port.ok_or_else(|| {
                format!(
                    "the input `{}`, which is no tensor, picture or number; such models are not supported",
                    feature.name
                )
            })?);
        }
        // The name of the best class is no number, or is a number that says less than the probabilities.
        let outputs = function.outputs.iter().filter(|output| output.name != function.predicted);
        let mut signature = Self {
            inputs,
            outputs: outputs.filter_map(|output| Port::of(output, labels)).collect(),
            has_rows: false,
        };
        signature.has_rows = function.states.is_empty()
            && !signature.inputs.is_empty()
            && signature.ports().all(|port| port.has_row());
        if signature.has_rows {
            for port in signature.inputs.iter_mut().chain(&mut signature.outputs) {
                if let Some(dim) = port.spec.shape.first_mut() {
                    *dim = None;
                }
            }
        }
        Ok(signature)
    }

    /// Gives probabilities of unknown classes their names.
    pub(crate) fn name_classes(&mut self, labels: &[String]) {
        for port in &mut self.outputs {
            if let PortKind::Probabilities(names) = &mut port.kind
                && names.is_empty()
                && !labels.is_empty()
            {
                *names = labels.to_vec();
                if let Some(count) = port.spec.shape.last_mut() {
                    *count = Some(labels.len());
                }
            }
        }
    }

    fn ports(&self) -> impl Iterator<Item = &Port> {
        self.inputs.iter().chain(&self.outputs)
    }
}

impl Port {
    /// `None` for what is no number.
    fn of(feature: &Feature, labels: &[String]) -> Option<Self> {
        let (dtype, shape, kind) = match feature.kind.as_ref()? {
            FeatureKind::Array(array) => (array.dtype, array.shape.clone(), PortKind::Array),
            FeatureKind::Image(image) => {
                let (dtype, channels) = match image.color {
                    Color::Rgb => (Dtype::U8, 3),
                    Color::Gray => (Dtype::U8, 1),
                    Color::GrayF16 => (Dtype::F16, 1),
                };
                let shape = vec![Some(1), image.height, image.width, Some(channels)];
                (dtype, shape, PortKind::Image(image.color))
            }
            FeatureKind::Int64 => (Dtype::I64, Vec::new(), PortKind::Integer),
            FeatureKind::Double => (Dtype::F64, Vec::new(), PortKind::Number),
            FeatureKind::Dictionary => {
                let count = (!labels.is_empty()).then_some(labels.len());
                (Dtype::F32, vec![Some(1), count], PortKind::Probabilities(labels.to_vec()))
            }
            FeatureKind::Text | FeatureKind::Sequence => return None,
        };
        Some(Self { spec: TensorSpec { name: feature.name.clone(), dtype, shape }, kind })
    }

    /// Whether it has a first dimension of 1, and others, so that several may lie below each other.
    fn has_row(&self) -> bool {
        self.spec.shape.len() >= 2 && self.spec.shape.first() == Some(&Some(1))
    }
}

#[cfg(test)]
#[path = "signature/tests.rs"]
mod tests;
