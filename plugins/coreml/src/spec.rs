//! What a CoreML specification (`model.mlmodel`) says about its network, read without its weights.
//!
//! The file is one protobuf message, `Model` of <https://github.com/apple/coremltools/tree/main/mlmodel/format>; field
//! numbers here are from its `Model.proto`, `FeatureTypes.proto`, `NeuralNetwork.proto` and `MIL.proto`. Files come from
//! strangers: every length is checked against what encloses it, and every list has an end.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use pajamas_pipelines::protobuf::{Field, ProtobufError, Wire};
use pajamas_plugin_api::Dtype;

mod description;
mod program;

/// Longest text that is read; a longer one is an error.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Most inputs, outputs, states, functions and metadata entries of each kind.
const ENTRIES_MAX: usize = 4096;
/// Most names of classes.
const LABELS_MAX: usize = 100_000;
/// Most dimensions of a tensor.
const DIMENSIONS_MAX: usize = 64;
/// Most models inside one another.
const DEPTH_MAX: u32 = 8;

/// A specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// The version of the format, which says what system it needs: 6 is macOS 12, 7 is 13, 8 is 14, 9 is 15.
    pub version: u64,
    /// What computes: `mlProgram`, `neuralNetwork`, `pipeline` and so on, as in `Model.proto`.
    pub kind: &'static str,
    /// The function that runs where none is named; the others follow in [`Spec::functions`].
    pub main: Function,
    /// Further functions by name, of a package with several.
    pub functions: Vec<Function>,
    /// Author, licence and so on, and whatever the author added.
    pub metadata: BTreeMap<String, String>,
    /// Names of classes, by class id.
    pub labels: Vec<String>,
}

/// Inputs, outputs and states of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Its name, empty where a package has only one.
    pub name: String,
    /// What goes in.
    pub inputs: Vec<Feature>,
    /// What comes out.
    pub outputs: Vec<Feature>,
    /// What is kept between runs.
    pub states: Vec<Feature>,
    /// The output with the best class's name.
    pub predicted: String,
    /// The output with the probability of each class.
    pub probabilities: String,
}

/// An input, output or state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// What it is, in the author's words.
    pub description: String,
    /// Its type; `None` for one of a newer format.
    pub kind: Option<FeatureKind>,
    /// A run needs no value for it.
    pub is_optional: bool,
}

/// The type of a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// One integer.
    Int64,
    /// One number.
    Double,
    /// A text.
    Text,
    /// A picture.
    Image(Image),
    /// A tensor.
    Array(Array),
    /// Numbers by class.
    Dictionary,
    /// A list of texts or integers.
    Sequence,
}

/// A picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels, if it is the same for all.
    pub width: Option<usize>,
    /// Height in pixels, if it is the same for all.
    pub height: Option<usize>,
    /// What a pixel is.
    pub color: Color,
}

/// What a pixel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// Three bytes. CoreML turns them round itself where a network wants blue first.
    #[default]
    Rgb,
    /// One byte.
    Gray,
    /// One number of half precision.
    GrayF16,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, `None` where each run chooses; empty where the file does not tell.
    pub shape: Vec<Option<usize>>,
}

impl Spec {
    /// Reads a specification of `len` bytes.
    ///
    /// # Errors
    /// The bytes are cut off, damaged or no specification, or something in them is larger than is allowed.
    pub fn read(source: impl Read + Seek, len: u64) -> Result<Self, ProtobufError> {
        let spec = read_model(&mut Wire::new(source, len), len, 0)?;
        if spec.version == 0 || spec.kind.is_empty() {
            return Err(content("is not a CoreML model"));
        }
        Ok(spec)
    }

    /// The function `name`, or the one that runs where none is named.
    #[must_use]
    pub fn function(&self, name: Option<&str>) -> Option<&Function> {
        match name {
            None => Some(&self.main),
            Some(name) => std::iter::once(&self.main)
                .chain(&self.functions)
                .find(|function| function.name == name && !name.is_empty()),
        }
    }
}

/// `Model`.
fn read_model<S: Read + Seek>(wire: &mut Wire<S>, end: u64, depth: u32) -> Result<Spec, ProtobufError> {
    let mut spec = Spec::default();
    let mut shapes = BTreeMap::new();
    wire.message(end, |wire, number, field| {
        match (number, field) {
            (1, Field::Varint(version)) => spec.version = version,
            (2, Field::Bytes(end)) => description::read(wire, end, &mut spec)?,
            (200..=202, Field::Bytes(end)) if number != 202 => {
                spec.kind = kind(number).unwrap_or_default();
                // A classifier's or regressor's pipeline is wrapped once more.
                wire.message(end, |wire, number, field| match (number, field) {
                    (1, Field::Bytes(end)) => read_pipeline(wire, end, depth, &mut spec.labels),
                    _ => Ok(()),
                })?;
            }
            (202, Field::Bytes(end)) => {
                spec.kind = "pipeline";
                read_pipeline(wire, end, depth, &mut spec.labels)?;
            }
            (502, Field::Bytes(end)) => {
                spec.kind = "mlProgram";
                program::read(wire, end, &mut spec.labels, &mut shapes)?;
            }
            (_, Field::Bytes(end)) => {
                if let Some(kind) = kind(number) {
                    spec.kind = kind;
                    read_labels(wire, end, number, &mut spec.labels)?;
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    program::complete(&mut spec, &shapes);
    Ok(spec)
}

/// `Pipeline`: the names of the classes are those of its last model that has some.
fn read_pipeline<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    depth: u32,
    labels: &mut Vec<String>,
) -> Result<(), ProtobufError> {
    if depth == DEPTH_MAX {
        return Err(content(format!("has more than {DEPTH_MAX} models inside one another")));
    }
    wire.message(end, |wire, number, field| {
        if let (1, Field::Bytes(end)) = (number, field) {
            let part = read_model(wire, end, depth + 1)?;
            if !part.labels.is_empty() {
                *labels = part.labels;
            }
        }
        Ok(())
    })
}

/// The names of the classes of a classifier that is no program.
fn read_labels<S: Read + Seek>(
    wire: &mut Wire<S>,
    end: u64,
    kind: u64,
    labels: &mut Vec<String>,
) -> Result<(), ProtobufError> {
    if !matches!(kind, 400..=404) {
        return Ok(());
    }
    wire.message(end, |wire, number, field| match (number, field) {
        // `StringVector` and `Int64Vector`.
        (100, Field::Bytes(end)) => wire.message(end, |wire, number, field| match (number, field) {
            (1, Field::Bytes(end)) => push(labels, wire.text(end, TEXT_BYTES_MAX)?, LABELS_MAX),
            _ => Ok(()),
        }),
        (101, Field::Bytes(end)) => wire.message(end, |wire, number, field| {
            integers(wire, number, field, |number| push(labels, number.to_string(), LABELS_MAX))
        }),
        _ => Ok(()),
    })
}

/// A repeated integer, field 1 of its message, packed or not.
fn integers<S: Read + Seek>(
    wire: &mut Wire<S>,
    number: u64,
    field: Field,
    mut visit: impl FnMut(i64) -> Result<(), ProtobufError>,
) -> Result<(), ProtobufError> {
    match (number, field) {
        (1, Field::Varint(value)) => visit(value.cast_signed()),
        (1, Field::Bytes(end)) => {
            let mut result = Ok(());
            wire.packed(end, |value| {
                if result.is_ok() {
                    result = visit(value.cast_signed());
                }
            })?;
            result
        }
        _ => Ok(()),
    }
}

fn push<T>(list: &mut Vec<T>, item: T, len_max: usize) -> Result<(), ProtobufError> {
    if list.len() == len_max {
        return Err(content(format!("has a list of more than {len_max} entries")));
    }
    list.push(item);
    Ok(())
}

fn content(problem: impl Into<String>) -> ProtobufError {
    ProtobufError::Content(problem.into())
}

/// `Model.Type`: the number of each field, and its name.
const KINDS: &[(u64, &str)] = &[
    (200, "pipelineClassifier"),
    (201, "pipelineRegressor"),
    (202, "pipeline"),
    (300, "glmRegressor"),
    (301, "supportVectorRegressor"),
    (302, "treeEnsembleRegressor"),
    (303, "neuralNetworkRegressor"),
    (304, "bayesianProbitRegressor"),
    (400, "glmClassifier"),
    (401, "supportVectorClassifier"),
    (402, "treeEnsembleClassifier"),
    (403, "neuralNetworkClassifier"),
    (404, "kNearestNeighborsClassifier"),
    (500, "neuralNetwork"),
    (501, "itemSimilarityRecommender"),
    (502, "mlProgram"),
    (555, "customModel"),
    (556, "linkedModel"),
    (560, "classConfidenceThresholding"),
    (600, "oneHotEncoder"),
    (601, "imputer"),
    (602, "featureVectorizer"),
    (603, "dictVectorizer"),
    (604, "scaler"),
    (606, "categoricalMapping"),
    (607, "normalizer"),
    (609, "arrayFeatureExtractor"),
    (610, "nonMaximumSuppression"),
    (900, "identity"),
    (2000, "textClassifier"),
    (2001, "wordTagger"),
    (2002, "visionFeaturePrint"),
    (2003, "soundAnalysisPreprocessing"),
    (2004, "gazetteer"),
    (2005, "wordEmbedding"),
    (2006, "audioFeaturePrint"),
    (3000, "serializedModel"),
];

fn kind(number: u64) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The kind of this name; empty for one of a newer format.
pub(crate) fn kind_named(name: &str) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == name).map_or("", |(_, known)| known)
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;
