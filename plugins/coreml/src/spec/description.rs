//! `ModelDescription`: inputs, outputs, states, metadata.

use std::io::{Read, Seek};

use pajamas_pipelines::protobuf::{Field, ProtobufError, Wire};
use pajamas_plugin_api::Dtype;

use super::{
    Array, Color, DIMENSIONS_MAX, ENTRIES_MAX, Feature, FeatureKind, Function, Image, Spec, TEXT_BYTES_MAX,
    content, integers, push,
};

/// `ModelDescription`.
pub(super) fn read<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    spec: &mut Spec,
) -> Result<(), ProtobufError> {
    let mut default_name = String::new();
    let mut functions = Vec::new();
    let main = &mut spec.main;
    wire.message(end, |wire, number, field| {
        let Field::Bytes(end) = field else { return Ok(()) };
        match number {
            1 => push(&mut main.inputs, feature(wire, end)?, ENTRIES_MAX),
            10 => push(&mut main.outputs, feature(wire, end)?, ENTRIES_MAX),
            13 => push(&mut main.states, feature(wire, end)?, ENTRIES_MAX),
            11 => set(&mut main.predicted, wire, end),
            12 => set(&mut main.probabilities, wire, end),
            20 => push(&mut functions, function(wire, end)?, ENTRIES_MAX),
            21 => set(&mut default_name, wire, end),
            100 => metadata(wire, end, &mut spec.metadata),
            _ => Ok(()),
        }
    })?;
    // A package with several functions keeps its inputs and outputs in these.
    let default = functions.iter().position(|function: &Function| function.name == default_name);
    if let Some(index) = default.or((!functions.is_empty()).then_some(0)) {
        spec.main = functions.remove(index);
    }
    spec.functions = functions;
    Ok(())
}

/// `FunctionDescription`.
fn function<S: Read + Seek>(wire: &mut Wire<S>, end: u64) -> Result<Function, ProtobufError> {
    let mut function = Function::default();
    wire.message(end, |wire, number, field| {
        let Field::Bytes(end) = field else { return Ok(()) };
        match number {
            1 => set(&mut function.name, wire, end),
            2 => push(&mut function.inputs, feature(wire, end)?, ENTRIES_MAX),
            3 => push(&mut function.outputs, feature(wire, end)?, ENTRIES_MAX),
            6 => push(&mut function.states, feature(wire, end)?, ENTRIES_MAX),
            4 => set(&mut function.predicted, wire, end),
            5 => set(&mut function.probabilities, wire, end),
            _ => Ok(()),
        }
    })?;
    Ok(function)
}

/// `Metadata`; entries of the author's own do not replace the format's.
fn metadata<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    metadata: &mut std::collections::BTreeMap<String, String>,
) -> Result<(), ProtobufError> {
    wire.message(end, |wire, number, field| {
        let Field::Bytes(end) = field else { return Ok(()) };
        let name = match number {
            1 => "description",
            2 => "version",
            3 => "author",
            4 => "license",
            100 => {
                let (mut key, mut value) = (String::new(), String::new());
                wire.message(end, |wire, number, field| match (number, field) {
                    (1, Field::Bytes(end)) => set(&mut key, wire, end),
                    (2, Field::Bytes(end)) => set(&mut value, wire, end),
                    _ => Ok(()),
                })?;
                if metadata.len() == ENTRIES_MAX {
                    return Err(content(format!("has more than {ENTRIES_MAX} entries of metadata")));
                }
                metadata.entry(key).or_insert(value);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let text = wire.text(end, TEXT_BYTES_MAX)?;
        if !text.is_empty() {
            metadata.insert(name.to_owned(), text);
        }
        Ok(())
    })
}

/// `FeatureDescription`.
fn feature<S: Read + Seek>(wire: &mut Wire<S>, end: u64) -> Result<Feature, ProtobufError> {
    let mut feature = Feature::default();
    wire.message(end, |wire, number, field| match (number, field) {
        (1, Field::Bytes(end)) => set(&mut feature.name, wire, end),
        (2, Field::Bytes(end)) => set(&mut feature.description, wire, end),
        // `FeatureType`.
        (3, Field::Bytes(end)) => wire.message(end, |wire, number, field| {
            match (number, field) {
                (1, _) => feature.kind = Some(FeatureKind::Int64),
                (2, _) => feature.kind = Some(FeatureKind::Double),
                (3, _) => feature.kind = Some(FeatureKind::Text),
                (4, Field::Bytes(end)) => feature.kind = Some(FeatureKind::Image(image(wire, end)?)),
                (5, Field::Bytes(end)) => feature.kind = array(wire, end)?.map(FeatureKind::Array),
                (6, _) => feature.kind = Some(FeatureKind::Dictionary),
                (7, _) => feature.kind = Some(FeatureKind::Sequence),
                // `StateFeatureType` wraps an array.
                (8, Field::Bytes(end)) => wire.message(end, |wire, number, field| {
                    if let (1, Field::Bytes(end)) = (number, field) {
                        feature.kind = array(wire, end)?.map(FeatureKind::Array);
                    }
                    Ok(())
                })?,
                (1000, Field::Varint(optional)) => feature.is_optional = optional != 0,
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    Ok(feature)
}

/// `ImageFeatureType`.
fn image<S: Read + Seek>(wire: &mut Wire<S>, end: u64) -> Result<Image, ProtobufError> {
    let (mut width, mut height, mut color) = (Flexible::default(), Flexible::default(), Color::default());
    wire.message(end, |wire, number, field| {
        match (number, field) {
            (1, Field::Varint(pixels)) => width.allow(pixels.cast_signed()),
            (2, Field::Varint(pixels)) => height.allow(pixels.cast_signed()),
            (3, Field::Varint(10)) => color = Color::Gray,
            (3, Field::Varint(40)) => color = Color::GrayF16,
            // `EnumeratedImageSizes`, a list of `ImageSize`.
            (21, Field::Bytes(end)) => wire.message(end, |wire, number, field| match (number, field) {
                (1, Field::Bytes(end)) => wire.message(end, |_, number, field| {
                    match (number, field) {
                        (1, Field::Varint(pixels)) => width.allow(pixels.cast_signed()),
                        (2, Field::Varint(pixels)) => height.allow(pixels.cast_signed()),
                        _ => {}
                    }
                    Ok(())
                }),
                _ => Ok(()),
            })?,
            // `ImageSizeRange`.
            (31, Field::Bytes(end)) => wire.message(end, |wire, number, field| {
                match (number, field) {
                    (1, Field::Bytes(end)) => width.range(size_range(wire, end)?),
                    (2, Field::Bytes(end)) => height.range(size_range(wire, end)?),
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Image { width: width.dim(), height: height.dim(), color })
}

/// `ArrayFeatureType`; `None` for an element type of a newer format.
fn array<S: Read + Seek>(wire: &mut Wire<S>, end: u64) -> Result<Option<Array>, ProtobufError> {
    let mut dtype = None;
    let (mut shape, mut others, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
    wire.message(end, |wire, number, field| match (number, field) {
        (1, _) => integers(wire, number, field, |dim| push(&mut shape, dim, DIMENSIONS_MAX)),
        (2, Field::Varint(kind)) => {
            dtype = dtype_of(kind);
            Ok(())
        }
        // `EnumeratedShapes`, a list of `Shape`.
        (21, Field::Bytes(end)) => wire.message(end, |wire, number, field| match (number, field) {
            (1, Field::Bytes(end)) => {
                let mut shape = Vec::new();
                wire.message(end, |wire, number, field| {
                    integers(wire, number, field, |dim| push(&mut shape, dim, DIMENSIONS_MAX))
                })?;
                push(&mut others, shape, ENTRIES_MAX)
            }
            _ => Ok(()),
        }),
        // `ShapeRange`, a list of `SizeRange`.
        (31, Field::Bytes(end)) => wire.message(end, |wire, number, field| match (number, field) {
            (1, Field::Bytes(end)) => push(&mut ranges, size_range(wire, end)?, DIMENSIONS_MAX),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;
    Ok(dtype.map(|dtype| Array { dtype, shape: flexible_shape(&shape, &others, &ranges) }))
}

/// The dimensions that all allowed shapes share; the rank is the default shape's, else what the others agree on.
fn flexible_shape(shape: &[i64], others: &[Vec<i64>], ranges: &[(i64, i64)]) -> Vec<Option<usize>> {
    let rank = [shape.len(), ranges.len(), others.first().map_or(0, Vec::len)];
    let Some(rank) = rank.into_iter().find(|rank| *rank > 0) else { return Vec::new() };
    let dim = |index: usize| {
        let mut dim = Flexible::default();
        match ranges.get(index) {
            // A range says all that is allowed; the shape beside it is the default.
            Some(range) => dim.range(*range),
            None => shape.get(index).into_iter().for_each(|size| dim.allow(*size)),
        }
        others.iter().filter_map(|other| other.get(index)).for_each(|size| dim.allow(*size));
        dim.dim()
    };
    (0..rank).map(dim).collect()
}

/// `SizeRange`: the least and the most, which is negative where there is none.
fn size_range<S: Read + Seek>(wire: &mut Wire<S>, end: u64) -> Result<(i64, i64), ProtobufError> {
    let (mut least, mut most) = (0, 0);
    wire.message(end, |_, number, field| {
        match (number, field) {
            (1, Field::Varint(bound)) => least = bound.cast_signed(),
            (2, Field::Varint(bound)) => most = bound.cast_signed(),
            _ => {}
        }
        Ok(())
    })?;
    Ok((least, most))
}

/// A dimension of which several values are allowed.
#[derive(Default)]
struct Flexible {
    only: Option<i64>,
    varies: bool,
}

impl Flexible {
    fn allow(&mut self, size: i64) {
        self.varies |= self.only.is_some_and(|only| only != size);
        self.only = Some(size);
    }

    /// Sets what is allowed.
    fn range(&mut self, (least, most): (i64, i64)) {
        *self = Self { only: Some(least), varies: least != most };
    }

    fn dim(&self) -> Option<usize> {
        // What is not positive stands for an unknown size.
        self.only.filter(|size| !self.varies && *size > 0).and_then(|size| usize::try_from(size).ok())
    }
}

fn set<S: Read + Seek>(place: &mut String, wire: &mut Wire<S>, end: u64) -> Result<(), ProtobufError> {
    *place = wire.text(end, TEXT_BYTES_MAX)?;
    Ok(())
}

/// `ArrayFeatureType.ArrayDataType`.
fn dtype_of(kind: u64) -> Option<Dtype> {
    Some(match kind {
        0x1_0010 => Dtype::F16,
        0x1_0020 => Dtype::F32,
        0x1_0040 => Dtype::F64,
        0x2_0008 => Dtype::I8,
        0x2_0020 => Dtype::I32,
        _ => return None,
    })
}
