//! Whether the tensors of a run fit the network: the engine's own messages name neither what was meant nor what to do.

use pajamas_plugin_api::Error;

use crate::runner::{TensorSpec, Value};

/// Checks the inputs of a run.
///
/// # Errors
/// One is missing, unknown, given twice, or of a wrong type or shape; the message names it and what is expected.
pub fn check_inputs<V: Value>(specs: &[TensorSpec], inputs: &[(&str, &V)]) -> Result<(), Error> {
    for (index, (name, value)) in inputs.iter().enumerate() {
        let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
            return Err(Error::invalid(format!(
                "the network has no input `{name}`; it has {}",
                names(specs)
            )));
        };
        if inputs[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(Error::invalid(format!("input `{name}` is given twice")));
        }
        if value.dtype() != spec.dtype {
            return Err(Error::invalid(format!(
                "input `{name}` has the type {:?}, expected {:?}",
                value.dtype(),
                spec.dtype
            )));
        }
        if !fits(&spec.shape, value.shape()) {
            return Err(Error::invalid(format!(
                "input `{name}` has the shape {:?}, expected {}",
                value.shape(),
                shape(&spec.shape)
            )));
        }
    }
    match specs.iter().find(|spec| inputs.iter().all(|(name, _)| *name != spec.name)) {
        None => Ok(()),
        Some(missing) => Err(Error::invalid(format!(
            "input `{}` is missing, a tensor of type {:?} and shape {}",
            missing.name,
            missing.dtype,
            shape(&missing.shape)
        ))),
    }
}

/// Checks the names of the wanted outputs.
///
/// # Errors
/// One is unknown.
pub fn check_outputs(specs: &[TensorSpec], outputs: &[&str]) -> Result<(), Error> {
    match outputs.iter().find(|name| specs.iter().all(|spec| spec.name != **name)) {
        None => Ok(()),
        Some(unknown) => {
            Err(Error::invalid(format!("the network has no output `{unknown}`; it has {}", names(specs))))
        }
    }
}

/// A network that declares no dimensions at all takes any shape: the engine does not tell it from a scalar.
fn fits(expected: &[Option<usize>], shape: &[i64]) -> bool {
    expected.is_empty()
        || (expected.len() == shape.len()
            && expected.iter().zip(shape).all(|(expected, dim)| {
                expected.is_none_or(|expected| usize::try_from(*dim).is_ok_and(|dim| dim == expected))
            }))
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| format!("`{}`", spec.name)).collect::<Vec<_>>().join(", ")
}

/// `[?, 3, 224, 224]`, with `?` for any number.
fn shape(dims: &[Option<usize>]) -> String {
    let dims = dims.iter().map(|dim| dim.map_or_else(|| "?".to_owned(), |dim| dim.to_string()));
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}
