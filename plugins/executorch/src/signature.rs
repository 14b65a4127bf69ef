//! A method's tensors as pipelines see them: named, and with the dimensions that a run may choose left open.

use std::collections::{BTreeMap, BTreeSet};

use pajamas_pipelines::{Header, TensorSpec};
use pajamas_plugin_api::Error;

use crate::options::{DynamicDims, Options};
use crate::program::{Port, Program, Slot};

/// What the tensors of a method are called, and where they are.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    /// All inputs, in the method's order.
    pub(crate) inputs: Vec<Port>,
    /// Their specifications, in the same order.
    pub(crate) input_specs: Vec<TensorSpec>,
    /// Where the outputs that are tensors lie among all outputs.
    pub(crate) output_indices: Vec<usize>,
    /// Their specifications, in the same order.
    pub(crate) output_specs: Vec<TensorSpec>,
}

impl Signature {
    /// Of the method that the options choose.
    ///
    /// # Errors
    /// There is no such method, an input is no tensor, or names are missing or double.
    pub(crate) fn of(program: &Program, options: &Options) -> Result<Self, Error> {
        let method = program.method(options.method.as_deref())?;
        let place = |index| format!("{} of method `{}`: input {index}", program.path.display(), method.name);
        let mut inputs = Vec::with_capacity(method.inputs.len());
        for (index, slot) in method.inputs.iter().enumerate() {
            let what = match slot {
                Slot::Tensor(port) => {
                    inputs.push(port.clone());
                    continue;
                }
                Slot::Constant(value) => format!("the number or text {value}"),
                Slot::Other(what) => (*what).to_owned(),
            };
            return Err(Error::unsupported(format!(
                "{} is {what}, and only tensors can be sent: export the program with a tensor there, or with the \
                 value fixed",
                place(index)
            )));
        }
        let (output_indices, outputs): (Vec<usize>, Vec<&Port>) = method
            .outputs
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| match slot {
                Slot::Tensor(port) => Some((index, port)),
                Slot::Constant(_) | Slot::Other(_) => None,
            })
            .unzip();
        // Pipelines of pictures want to know a picture's size and what comes out.
        let takes_pictures = inputs.iter().any(|port| port.sizes.len() == 4);
        let dynamic = match options.dynamic_dims {
            DynamicDims::Auto if takes_pictures => DynamicDims::First,
            given => given,
        };
        let metadata = program.metadata();
        let input_ports: Vec<_> = inputs.iter().collect();
        let input_names = Names { option: "input_names", prefix: "input", given: &options.input_names };
        let output_names = Names { option: "output_names", prefix: "output", given: &options.output_names };
        let input_specs = input_names.specs(&input_ports, dynamic, &metadata)?;
        let output_specs = output_names.specs(&outputs, dynamic, &metadata)?;
        Ok(Self { input_specs, output_specs, output_indices, inputs })
    }

    /// What pipelines need to know.
    pub(crate) fn header(&self, metadata: BTreeMap<String, String>) -> Header {
        Header { inputs: self.input_specs.clone(), outputs: self.output_specs.clone(), metadata }
    }

    /// Most rows that all inputs have room for; `None` where they have no rows.
    pub(crate) fn rows_max(&self) -> Option<usize> {
        let bounds = self.inputs.iter().zip(&self.input_specs).map(|(port, spec)| {
            let is_open = spec.shape.first().is_some_and(Option::is_none);
            if is_open { port.sizes.first().copied() } else { None }
        });
        bounds.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Checks that a tensor of this shape has room in the memory plan.
    ///
    /// # Errors
    /// A dimension is larger than its upper bound.
    pub(crate) fn check_bounds(&self, index: usize, shape: &[i64]) -> Result<(), Error> {
        let (Some(port), Some(spec)) = (self.inputs.get(index), self.input_specs.get(index)) else {
            return Err(Error::internal("an input is unknown"));
        };
        if shape.len() != port.sizes.len() {
            let (given, expected) = (shape.len(), port.sizes.len());
            return Err(Error::invalid(format!(
                "input `{}` has {given} dimensions, expected {expected}",
                spec.name
            )));
        }
        for (dim, (given, bound)) in shape.iter().zip(&port.sizes).enumerate() {
            if usize::try_from(*given).is_ok_and(|given| given <= *bound) {
                continue;
            }
            return Err(Error::invalid(format!(
                "input `{}` has the shape {shape:?}, and the program was exported for at most {bound} in dimension \
                 {dim}: send less, or export it with a larger upper bound",
                spec.name
            )));
        }
        Ok(())
    }
}

/// Where names come from: the option, the program's constant method of the same name, the program itself, or numbers.
struct Names<'a> {
    option: &'static str,
    prefix: &'static str,
    given: &'a [String],
}

impl Names<'_> {
    fn specs(
        &self,
        ports: &[&Port],
        dynamic: DynamicDims,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Vec<TensorSpec>, Error> {
        let listed: Vec<String> = match (self.given, metadata.get(self.option)) {
            ([], Some(text)) => text.split(',').map(|name| name.trim().to_owned()).collect(),
            (given, _) => given.to_vec(),
        };
        if !listed.is_empty() && listed.len() != ports.len() {
            return Err(Error::invalid(format!(
                "`{}` has {} names, and the method has {} {}s that are tensors",
                self.option,
                listed.len(),
                ports.len(),
                self.prefix
            )));
        }
        let mut seen = BTreeSet::new();
        let spec = |(index, port): (usize, &&Port)| {
            let numbered = || format!("{}_{index}", self.prefix);
            let name = listed.get(index).or(port.name.as_ref()).cloned().unwrap_or_else(numbered);
            if !seen.insert(name.clone()) {
                return Err(Error::invalid(format!("`{}` has `{name}` twice", self.option)));
            }
            Ok(TensorSpec { name, dtype: port.dtype, shape: open_shape(port, dynamic) })
        };
        ports.iter().enumerate().map(spec).collect()
    }
}

/// The dimensions, those left open that may vary. What is at most 1 does not vary, and neither do the channels of pictures.
fn open_shape(port: &Port, dynamic: DynamicDims) -> Vec<Option<usize>> {
    let channels = match *port.sizes.as_slice() {
        [_, 3, _, _] => Some(1),
        [_, _, _, 3] => Some(3),
        _ => None,
    };
    let may_vary = |dim: usize, size: usize| {
        let is_free = match dynamic {
            DynamicDims::Auto | DynamicDims::All => Some(dim) != channels,
            DynamicDims::First => dim == 0,
        };
        port.is_dynamic && size > 1 && is_free
    };
    port.sizes.iter().enumerate().map(|(dim, size)| (!may_vary(dim, *size)).then_some(*size)).collect()
}
