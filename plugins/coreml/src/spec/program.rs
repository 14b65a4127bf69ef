//! `MIL.proto`'s `Program`: what the description of a program leaves out. Converters leave out the shapes of outputs, and
//! the names of classes are an argument of the last operation.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use pajamas_pipelines::protobuf::{Field, ProtobufError, Wire};

use super::{
    DIMENSIONS_MAX, ENTRIES_MAX, FeatureKind, LABELS_MAX, Spec, TEXT_BYTES_MAX, content, integers, push,
};

/// The shapes of the outputs of functions: by function, then by output.
pub(super) type Shapes = BTreeMap<String, BTreeMap<String, Vec<Option<usize>>>>;

/// Most values of one function; larger programs are refused.
const VALUES_MAX: usize = 1_000_000;

/// `Program`.
pub(super) fn read<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    labels: &mut Vec<String>,
    shapes: &mut Shapes,
) -> Result<(), ProtobufError> {
    wire.message(end, |wire, number, field| {
        let (2, Field::Bytes(end)) = (number, field) else { return Ok(()) };
        let mut name = String::new();
        let mut outputs = BTreeMap::new();
        wire.message(end, |wire, number, field| match (number, field) {
            (1, Field::Bytes(end)) => {
                name = wire.text(end, TEXT_BYTES_MAX)?;
                Ok(())
            }
            (2, Field::Bytes(end)) => function(wire, end, labels, &mut outputs),
            _ => Ok(()),
        })?;
        if shapes.len() == ENTRIES_MAX {
            return Err(content(format!("has more than {ENTRIES_MAX} functions")));
        }
        shapes.insert(name, outputs);
        Ok(())
    })
}

/// Gives outputs of unknown shape the shape that the program has for them.
pub(super) fn complete(spec: &mut Spec, shapes: &Shapes) {
    for function in std::iter::once(&mut spec.main).chain(&mut spec.functions) {
        let name = if function.name.is_empty() { "main" } else { function.name.as_str() };
        let Some(shapes) = shapes.get(name) else { continue };
        for output in &mut function.outputs {
            if let (Some(FeatureKind::Array(array)), Some(shape)) =
                (&mut output.kind, shapes.get(&output.name))
                && array.shape.is_empty()
            {
                array.shape.clone_from(shape);
            }
        }
    }
}

/// `Function`: a block for each version of the operators, of which converters write one.
fn function<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    labels: &mut Vec<String>,
    outputs: &mut BTreeMap<String, Vec<Option<usize>>>,
) -> Result<(), ProtobufError> {
    wire.message(end, |wire, number, field| match (number, field) {
        // An entry of `block_specializations`.
        (3, Field::Bytes(end)) => wire.message(end, |wire, number, field| match (number, field) {
            (2, Field::Bytes(end)) => block(wire, end, labels, outputs),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

/// `Block`.
fn block<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    labels: &mut Vec<String>,
    outputs: &mut BTreeMap<String, Vec<Option<usize>>>,
) -> Result<(), ProtobufError> {
    let mut names = Vec::new();
    let mut values = BTreeMap::new();
    wire.message(end, |wire, number, field| match (number, field) {
        (2, Field::Bytes(end)) => push(&mut names, wire.text(end, TEXT_BYTES_MAX)?, ENTRIES_MAX),
        (3, Field::Bytes(end)) => operation(wire, end, labels, &mut values),
        _ => Ok(()),
    })?;
    outputs.extend(names.into_iter().filter_map(|name| values.remove_entry(&name)));
    Ok(())
}

/// `Operation`.
fn operation<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    labels: &mut Vec<String>,
    values: &mut BTreeMap<String, Vec<Option<usize>>>,
) -> Result<(), ProtobufError> {
    let mut kind = String::new();
    wire.message(end, |wire, number, field| match (number, field) {
        (1, Field::Bytes(end)) => {
            kind = wire.text(end, TEXT_BYTES_MAX)?;
            Ok(())
        }
        (2, Field::Bytes(end)) if kind == "classify" => classes(wire, end, labels),
        (3, Field::Bytes(end)) if kind != "const" => {
            let (name, shape) = named_value_type(wire, end)?;
            if values.len() == VALUES_MAX {
                return Err(content(format!("has more than {VALUES_MAX} values in one function")));
            }
            values.insert(name, shape);
            Ok(())
        }
        _ => Ok(()),
    })
}

/// An entry of `Operation.inputs`: the argument `classes` holds a list of texts or integers.
fn classes<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    labels: &mut Vec<String>,
) -> Result<(), ProtobufError> {
    let mut name = String::new();
    wire.message(end, |wire, number, field| match (number, field) {
        (1, Field::Bytes(end)) => {
            name = wire.text(end, TEXT_BYTES_MAX)?;
            Ok(())
        }
        (2, Field::Bytes(end)) if name == "classes" => {
            labels.clear();
            // `Argument`, a list of `Binding`, each a name or a value.
            nested(wire, end, &[1, 2], &mut |wire, end| value(wire, end, labels, 0))
        }
        _ => Ok(()),
    })
}

/// `Value`: a tensor of texts or integers, or a list of values.
fn value<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    labels: &mut Vec<String>,
    depth: u32,
) -> Result<(), ProtobufError> {
    // `immediateValue`.
    nested(wire, end, &[3], &mut |wire, end| {
        wire.message(end, |wire, number, field| match (number, field) {
            (1, Field::Bytes(end)) => tensor(wire, end, labels),
            (3, Field::Bytes(end)) if depth == 0 => {
                nested(wire, end, &[1], &mut |wire, end| value(wire, end, labels, 1))
            }
            _ => Ok(()),
        })
    })
}

/// `TensorValue`.
fn tensor<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    labels: &mut Vec<String>,
) -> Result<(), ProtobufError> {
    wire.message(end, |wire, number, field| match (number, field) {
        (4, Field::Bytes(end)) => nested(wire, end, &[1], &mut |wire, end| {
            push(labels, wire.text(end, TEXT_BYTES_MAX)?, LABELS_MAX)
        }),
        (2 | 5, Field::Bytes(end)) => wire.message(end, |wire, number, field| {
            integers(wire, number, field, |number| push(labels, number.to_string(), LABELS_MAX))
        }),
        _ => Ok(()),
    })
}

/// `NamedValueType`: a name and the dimensions of its tensor.
fn named_value_type<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
) -> Result<(String, Vec<Option<usize>>), ProtobufError> {
    let (mut name, mut shape) = (String::new(), Vec::new());
    wire.message(end, |wire, number, field| match (number, field) {
        (1, Field::Bytes(end)) => {
            name = wire.text(end, TEXT_BYTES_MAX)?;
            Ok(())
        }
        // `ValueType`, `TensorType`, its dimensions.
        (2, Field::Bytes(end)) => nested(wire, end, &[1, 3], &mut |wire, end| {
            let mut dim = None;
            // `ConstantDimension`.
            nested(wire, end, &[1], &mut |wire, end| {
                wire.message(end, |_, number, field| {
                    if let (1, Field::Varint(size)) = (number, field) {
                        dim = usize::try_from(size).ok();
                    }
                    Ok(())
                })
            })?;
            push(&mut shape, dim, DIMENSIONS_MAX)
        }),
        _ => Ok(()),
    })?;
    Ok((name, shape))
}

/// What is done with a message that ends at a position.
type Visit<'a, S> = dyn FnMut(&mut Wire<S>, u64) -> Result<(), ProtobufError> + 'a;

/// Visits the messages at the end of a path of field numbers.
fn nested<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    path: &[u64],
    visit: &mut Visit<'_, S>,
) -> Result<(), ProtobufError> {
    let Some((first, rest)) = path.split_first() else { return visit(wire, end) };
    wire.message(end, |wire, number, field| match field {
        Field::Bytes(end) if number == *first => nested(wire, end, rest, visit),
        _ => Ok(()),
    })
}
