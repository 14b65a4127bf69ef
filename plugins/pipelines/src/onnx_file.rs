//! What an ONNX file says about its network, read without its weights.
//!
//! An ONNX file is one protobuf message, `ModelProto` of <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>; field
//! numbers below are from there. Weights are skipped, so that a file of gigabytes takes milliseconds. Files come from
//! strangers: every length is checked against what encloses it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Component, Path, PathBuf};

use pajamas_plugin_api::{Dtype, Error, ErrorKind};

use crate::open::Header;
use crate::protobuf::{Field, ProtobufError, Wire};
use crate::runner::TensorSpec;

/// Longest name or entry of the metadata; a longer one is an error.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Most dimensions of a tensor.
const DIMENSIONS_MAX: usize = 64;

/// `TensorProto.DataLocation.EXTERNAL`.
const LOCATION_EXTERNAL: u64 = 1;

/// The header of an ONNX file whose parts are all there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnnxFile {
    /// What the file says about itself (`metadata_props`).
    pub metadata: BTreeMap<String, String>,
    /// The inputs that a run needs.
    pub inputs: Vec<TensorSpec>,
    /// The outputs, those left out that are no tensors of a type that this API has.
    pub outputs: Vec<TensorSpec>,
    /// Numbers in the weights, indices and shapes left out.
    pub parameters: u64,
    /// Name of the element type that most weights have, such as `F32` or `INT8`.
    pub weight_type: Option<&'static str>,
    /// Activations are quantised by their range over all rows of a run, so that a row's result depends on its company.
    pub has_dynamic_ranges: bool,
    /// Bytes of the file and of those that it keeps weights in.
    pub bytes: u64,
    /// The files beside it that it keeps weights in, in the order of their names.
    pub weight_files: Vec<PathBuf>,
}

/// Weights that are kept in another file: its path, relative to the model's folder, and how long it must be.
type External = BTreeMap<String, u64>;

impl OnnxFile {
    /// Opens a file and checks it, and that the files are there that it keeps its weights in.
    ///
    /// # Errors
    /// The file is missing, not ONNX, cut off or damaged, has an input of an unsupported type, or lacks a file of its
    /// weights; the message names the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open = || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            Ok::<_, std::io::Error>((file, metadata))
        };
        let (file, metadata) = open().map_err(|error| {
            Error::new(ErrorKind::NotFound, format!("{} cannot be read: {error}", path.display()))
        })?;
        if !metadata.is_file() {
            return Err(bad(path, "is not a file"));
        }
        let (mut header, external) =
            Self::read(file, metadata.len()).map_err(|e| bad(path, &e.to_string()))?;
        header.bytes = metadata.len();
        for (location, len) in external {
            let (file, len) = external_file(path, &location, len)?;
            header.bytes = header.bytes.saturating_add(len);
            header.weight_files.push(file);
        }
        Ok(header)
    }

    /// The part that pipelines ask for.
    #[must_use]
    pub fn header(&self) -> Header {
        Header { inputs: self.inputs.clone(), outputs: self.outputs.clone(), metadata: self.metadata.clone() }
    }

    /// Reads a header of a file of `len` bytes, without the files beside it.
    fn read(source: impl Read + Seek, len: u64) -> Result<(Self, External), ProtobufError> {
        let mut reader = Reader::default();
        let mut wire = Wire::new(source, len);
        wire.message(len, |wire, number, field| {
            match (number, field) {
                (1, Field::Varint(version)) => reader.ir_version = version,
                (7, Field::Bytes(end)) => reader.graph(wire, end)?,
                (14, Field::Bytes(end)) => {
                    let (key, value) = entry(wire, end)?;
                    reader.metadata.insert(key, value);
                }
                _ => {}
            }
            Ok(())
        })?;
        reader.finish()
    }
}

/// A file of weights, and its length.
fn external_file(model: &Path, location: &str, len_min: u64) -> Result<(PathBuf, u64), Error> {
    let relative = Path::new(location);
    // A model must not read what lies elsewhere on this machine.
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(bad(
            model,
            &format!("keeps weights in `{location}`, which is not inside its own folder"),
        ));
    }
    let path = model.with_file_name("").join(relative);
    let len = path.metadata().map_err(|error| {
        let what = format!("keeps its weights in {}, which cannot be read: {error}", path.display());
        Error::new(ErrorKind::NotFound, format!("{} {what}", model.display()))
    })?;
    if len.len() < len_min {
        let found = format!("is cut off: {} bytes, {} needs {len_min}", len.len(), model.display());
        return Err(bad(&path, &found));
    }
    Ok((path, len.len()))
}

fn bad(path: &Path, reason: &str) -> Error {
    Error::bad_model(format!("{} {reason}", path.display()))
}

/// An input or output as declared.
struct Declared {
    name: String,
    /// `None` for a sequence, a map or an element type that this API does not have.
    dtype: Option<Dtype>,
    shape: Vec<Option<usize>>,
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    ir_version: u64,
    has_graph: bool,
    metadata: BTreeMap<String, String>,
    inputs: Vec<Declared>,
    outputs: Vec<Declared>,
    /// Names of the weights: older files list these among the inputs too.
    initializers: BTreeSet<String>,
    has_dynamic_ranges: bool,
    /// Numbers in the weights by element type.
    elements: BTreeMap<u64, u64>,
    external: External,
}

impl Reader {
    /// `GraphProto`.
    fn graph<S: Read + Seek>(&mut self, wire: &mut Wire<S>, end: u64) -> Result<(), ProtobufError> {
        self.has_graph = true;
        wire.message(end, |wire, number, field| {
            match (number, field) {
                (1, Field::Bytes(end)) => self.node(wire, end)?,
                (5, Field::Bytes(end)) => self.initializer(wire, end)?,
                (11, Field::Bytes(end)) => self.inputs.push(value_info(wire, end)?),
                (12, Field::Bytes(end)) => self.outputs.push(value_info(wire, end)?),
                _ => {}
            }
            Ok(())
        })
    }

    /// `NodeProto`.
    fn node<S: Read + Seek>(&mut self, wire: &mut Wire<S>, end: u64) -> Result<(), ProtobufError> {
        wire.message(end, |wire, number, field| {
            if let (4, Field::Bytes(end)) = (number, field) {
                // `DynamicQuantizeLinear`, and what ONNX Runtime's tools make of it.
                self.has_dynamic_ranges |= wire.text(end, TEXT_BYTES_MAX)?.starts_with("DynamicQuantize");
            }
            Ok(())
        })
    }

    /// `TensorProto`.
    fn initializer<S: Read + Seek>(&mut self, wire: &mut Wire<S>, end: u64) -> Result<(), ProtobufError> {
        let (mut dims, mut data_type, mut is_external) = (Vec::new(), 0, false);
        let (mut location, mut offset, mut length) = (String::new(), 0_u64, 0_u64);
        wire.message(end, |wire, number, field| {
            match (number, field) {
                (1, Field::Varint(dim)) => dims.push(dim),
                (1, Field::Bytes(end)) => wire.packed(end, |dim| dims.push(dim))?,
                (2, Field::Varint(kind)) => data_type = kind,
                (8, Field::Bytes(end)) => {
                    self.initializers.insert(wire.text(end, TEXT_BYTES_MAX)?);
                }
                (13, Field::Bytes(end)) => {
                    let (key, value) = entry(wire, end)?;
                    match key.as_str() {
                        "location" => location = value,
                        "offset" => offset = number_of(&key, &value)?,
                        "length" => length = number_of(&key, &value)?,
                        _ => {}
                    }
                }
                (14, Field::Varint(place)) => is_external = place == LOCATION_EXTERNAL,
                _ => {}
            }
            if dims.len() > DIMENSIONS_MAX {
                return Err(ProtobufError::Content("has weights of too many dimensions".to_owned()));
            }
            Ok(())
        })?;
        let count = dims.iter().try_fold(1_u64, |count, dim| count.checked_mul(*dim));
        let count =
            count.ok_or_else(|| ProtobufError::Content("has weights of an impossible size".to_owned()))?;
        let elements = self.elements.entry(data_type).or_default();
        *elements = elements.saturating_add(count);
        if is_external {
            let needed = self.external.entry(location).or_default();
            *needed = (*needed).max(offset.saturating_add(length));
        }
        Ok(())
    }

    fn finish(self) -> Result<(OnnxFile, External), ProtobufError> {
        let content = |problem: String| Err(ProtobufError::Content(problem));
        if self.ir_version == 0 || !self.has_graph {
            return content("is not an ONNX model".to_owned());
        }
        let mut inputs = Vec::new();
        for input in self.inputs {
            if self.initializers.contains(&input.name) {
                continue;
            }
            let Some(dtype) = input.dtype else {
                return content(format!(
                    "has the input `{}`, which is no tensor of numbers; such models are not supported",
                    input.name
                ));
            };
            inputs.push(TensorSpec { name: input.name, dtype, shape: input.shape });
        }
        let spec = |output: Declared| {
            let (name, shape) = (output.name, output.shape);
            output.dtype.map(|dtype| TensorSpec { name, dtype, shape })
        };
        let weights = || self.elements.iter().filter_map(|(kind, count)| Some((weight_type(*kind)?, *count)));
        let file = OnnxFile {
            parameters: weights().fold(0, |sum, (_, count)| sum.saturating_add(count)),
            weight_type: weights()
                .filter(|(_, count)| *count > 0)
                .max_by_key(|(_, count)| *count)
                .map(|(name, _)| name),
            metadata: self.metadata,
            has_dynamic_ranges: self.has_dynamic_ranges,
            inputs,
            outputs: self.outputs.into_iter().filter_map(spec).collect(),
            bytes: 0,
            weight_files: Vec::new(),
        };
        Ok((file, self.external))
    }
}

/// `ValueInfoProto`.
fn value_info<S: Read + Seek>(wire: &mut Wire<S>, end: u64) -> Result<Declared, ProtobufError> {
    let mut declared = Declared { name: String::new(), dtype: None, shape: Vec::new() };
    wire.message(end, |wire, number, field| match (number, field) {
        (1, Field::Bytes(end)) => {
            declared.name = wire.text(end, TEXT_BYTES_MAX)?;
            Ok(())
        }
        // `TypeProto`, of which only `tensor_type` is of interest.
        (2, Field::Bytes(end)) => wire.message(end, |wire, number, field| match (number, field) {
            (1, Field::Bytes(end)) => tensor_type(wire, end, &mut declared),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;
    Ok(declared)
}

/// `TypeProto.Tensor`.
fn tensor_type<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    declared: &mut Declared,
) -> Result<(), ProtobufError> {
    wire.message(end, |wire, number, field| match (number, field) {
        (1, Field::Varint(kind)) => {
            declared.dtype = dtype(kind);
            Ok(())
        }
        // `TensorShapeProto`, a list of dimensions.
        (2, Field::Bytes(end)) => wire.message(end, |wire, number, field| {
            if let (1, Field::Bytes(end)) = (number, field) {
                declared.shape.push(dimension(wire, end)?);
                if declared.shape.len() > DIMENSIONS_MAX {
                    let problem = format!("has `{}` of more than {DIMENSIONS_MAX} dimensions", declared.name);
                    return Err(ProtobufError::Content(problem));
                }
            }
            Ok(())
        }),
        _ => Ok(()),
    })
}

/// `TensorShapeProto.Dimension`: a number, or a name for one that is known only at run time.
fn dimension<S: Read + Seek>(wire: &mut Wire<S>, end: u64) -> Result<Option<usize>, ProtobufError> {
    let mut dimension = None;
    wire.message(end, |_, number, field| {
        if let (1, Field::Varint(dim)) = (number, field) {
            // A negative number stands for an unknown one, as in ONNX Runtime.
            dimension = usize::try_from(dim.cast_signed()).ok();
        }
        Ok(())
    })?;
    Ok(dimension)
}

/// `StringStringEntryProto`.
fn entry<S: Read + Seek>(wire: &mut Wire<S>, end: u64) -> Result<(String, String), ProtobufError> {
    let (mut key, mut value) = (String::new(), String::new());
    wire.message(end, |wire, number, field| {
        match (number, field) {
            (1, Field::Bytes(end)) => key = wire.text(end, TEXT_BYTES_MAX)?,
            (2, Field::Bytes(end)) => value = wire.text(end, TEXT_BYTES_MAX)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, value))
}

fn number_of(key: &str, value: &str) -> Result<u64, ProtobufError> {
    let problem =
        || ProtobufError::Content(format!("has weights in another file whose `{key}` is `{value}`"));
    value.parse().map_err(|_| problem())
}

/// `TensorProto.DataType`.
fn dtype(kind: u64) -> Option<Dtype> {
    Some(match kind {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::Bool,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        16 => Dtype::Bf16,
        _ => return None,
    })
}

/// The name of an element type that weights have; indices, shapes and texts are none.
fn weight_type(kind: u64) -> Option<&'static str> {
    Some(match kind {
        1 => "F32",
        2 => "UINT8",
        3 => "INT8",
        10 => "F16",
        11 => "F64",
        16 => "BF16",
        17..=20 => "FP8",
        21 => "UINT4",
        22 => "INT4",
        23 => "FP4",
        _ => return None,
    })
}

#[cfg(test)]
#[path = "onnx_file/tests.rs"]
mod tests;
