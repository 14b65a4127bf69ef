//! The task `infer`: named tensors go through a network as they are.

use std::collections::BTreeSet;

use pajamas_plugin_api::{
    Error, Event, Finish, InferParams, Job, ModelInfo, Part, Request, Task, Tensor, TensorInfo, TensorView,
    Usage,
};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::open::Kind;
use crate::options;
use crate::pipeline::Pipeline;
use crate::runner::{TensorRunner, TensorSpec, Value};

/// A network without a pipeline: it answers `infer` and nothing else.
pub(crate) struct Tensors<R> {
    network: R,
}

/// This pipeline has no options.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {}

impl<R: TensorRunner> Tensors<R> {
    /// The pipeline of `network`.
    ///
    /// # Errors
    /// There are options.
    pub(crate) fn open(network: R, options: &Map<String, Json>) -> Result<Self, Error> {
        options::parse::<Options>(Kind::Tensors, options)?;
        Ok(Self { network })
    }
}

impl<R: TensorRunner> Pipeline for Tensors<R> {
    fn describe(&self, info: &mut ModelInfo) {
        describe(&self.network, info);
    }

    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        match request.task {
            Task::Infer => infer(&self.network, request, job),
            ref other => Err(unsupported(other, Kind::Tensors)),
        }
    }
}

/// Tells which tensors `infer` takes and gives.
pub(crate) fn describe<R: TensorRunner>(network: &R, info: &mut ModelInfo) {
    let tensor = |spec: &TensorSpec| TensorInfo {
        name: spec.name.clone(),
        dtype: spec.dtype,
        shape: spec
            .shape
            .iter()
            .map(|dim| dim.and_then(|dim| i64::try_from(dim).ok()).unwrap_or(-1))
            .collect(),
    };
    info.inputs = network.inputs().iter().map(tensor).collect();
    info.outputs = network.outputs().iter().map(tensor).collect();
}

/// The error for a task that a model of this kind does not offer.
pub(crate) fn unsupported(task: &Task, kind: Kind) -> Error {
    let offered: Vec<_> = kind.tasks().iter().map(|task| task.name().to_owned()).collect();
    Error::unsupported(format!("this model does not offer the task {task}; it offers {}", offered.join(", ")))
}

/// Does an `infer` request on any network.
///
/// # Errors
/// A tensor or an output has a name, type or shape that the network has not, or the engine failed.
pub(crate) fn infer<R: TensorRunner>(
    network: &R,
    request: &Request,
    job: &Job,
) -> Result<(Finish, Usage), Error> {
    let params: InferParams = request.params()?;
    let outputs = wanted(network, &params.outputs)?;
    let tensors = given(network, &request.parts)?;
    let values: Vec<_> =
        tensors.iter().map(|tensor| network.value(&tensor.view())).collect::<Result<_, _>>()?;
    let inputs: Vec<_> = tensors.iter().map(|tensor| tensor.name.as_str()).zip(&values).collect();
    if job.is_cancelled() {
        return Ok((Finish::Cancelled, Usage::default()));
    }
    let results = network.run(&inputs, &outputs)?;
    let bytes: Vec<_> = results.iter().map(Value::bytes).collect::<Result<_, _>>()?;
    let views = outputs.iter().zip(&results).zip(&bytes).map(|((name, value), data)| TensorView {
        name,
        dtype: value.dtype(),
        shape: value.shape(),
        data,
    });
    job.push(&Event::Tensors(views.collect()));
    Ok((Finish::Stop, Usage::default()))
}

/// The outputs that a request wants: all of them if it names none.
fn wanted<'a, R: TensorRunner>(network: &'a R, names: &'a [String]) -> Result<Vec<&'a str>, Error> {
    let specs = network.outputs();
    let Some(unknown) = names.iter().find(|name| specs.iter().all(|spec| spec.name != **name)) else {
        let all = || specs.iter().map(|spec| spec.name.as_str()).collect();
        return Ok(if names.is_empty() { all() } else { names.iter().map(String::as_str).collect() });
    };
    Err(Error::invalid(format!("there is no output `{unknown}`; the network has {}", list(specs))))
}

/// The tensors of a request, each of which fits an input, and none of which is missing.
fn given<'a, R: TensorRunner>(network: &R, parts: &'a [Part]) -> Result<Vec<&'a Tensor>, Error> {
    let specs = network.inputs();
    let mut seen = BTreeSet::new();
    let mut tensors = Vec::with_capacity(parts.len());
    for part in parts {
        let Part::Tensor(tensor) = part else {
            return Err(Error::invalid("infer takes tensors; another kind of part was sent"));
        };
        let spec = specs.iter().find(|spec| spec.name == tensor.name).ok_or_else(|| {
            Error::invalid(format!("there is no input `{}`; the network has {}", tensor.name, list(specs)))
        })?;
        if !seen.insert(tensor.name.as_str()) {
            return Err(Error::invalid(format!("the input `{}` was sent twice", tensor.name)));
        }
        if !fits(tensor, spec) {
            let sent = tensor.shape.iter().map(|dim| Some(dim.to_string()));
            return Err(Error::invalid(format!(
                "the input `{}` was sent as {}, and the network takes {}",
                tensor.name,
                shape_text(tensor.dtype, sent),
                spec_text(spec)
            )));
        }
        tensors.push(tensor);
    }
    match specs.iter().find(|spec| !seen.contains(spec.name.as_str())) {
        Some(missing) => {
            Err(Error::invalid(format!("the input `{}` is missing: {}", missing.name, spec_text(missing))))
        }
        None => Ok(tensors),
    }
}

fn fits(tensor: &Tensor, spec: &TensorSpec) -> bool {
    tensor.dtype == spec.dtype
        && tensor.shape.len() == spec.shape.len()
        && tensor.shape.iter().zip(&spec.shape).all(|(sent, expected)| {
            usize::try_from(*sent).is_ok_and(|sent| expected.is_none_or(|expected| sent == expected))
        })
}

/// Inputs or outputs, for a message.
pub(crate) fn list(specs: &[TensorSpec]) -> String {
    let texts: Vec<_> = specs.iter().map(|spec| format!("`{}` ({})", spec.name, spec_text(spec))).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

fn spec_text(spec: &TensorSpec) -> String {
    shape_text(spec.dtype, spec.shape.iter().map(|dim| dim.map(|dim| dim.to_string())))
}

/// A type and shape such as `f32[?, 3, 640, 640]`.
fn shape_text(dtype: pajamas_plugin_api::Dtype, dims: impl Iterator<Item = Option<String>>) -> String {
    let dims: Vec<_> = dims.map(|dim| dim.unwrap_or_else(|| "?".to_owned())).collect();
    format!("{}[{}]", format!("{dtype:?}").to_lowercase(), dims.join(", "))
}
