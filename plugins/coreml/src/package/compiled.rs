//! `metadata.json`, which Apple's compiler writes into a `.mlmodelc`: the same facts as in a specification, as texts. A list
//! of one object; numbers and truth values are texts, shapes are JSON in a text (`"[1, 3, 224, 224]"`).

use std::collections::BTreeMap;
use std::path::Path;

use pajamas_plugin_api::{Dtype, Error};
use serde::Deserialize;

use super::{bad, read_json};
use crate::spec::{Array, Color, Feature, FeatureKind, Function, Image, Spec};

/// Most inputs, outputs and so on of each kind.
const ENTRIES_MAX: usize = 4096;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    specification_version: u64,
    model_type: ModelType,
    input_schema: Vec<Schema>,
    output_schema: Vec<Schema>,
    state_schema: Vec<Schema>,
    class_labels: Vec<serde_json::Value>,
    predicted_feature_name: String,
    short_description: String,
    version: String,
    author: String,
    license: String,
    user_defined_metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ModelType {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Schema {
    name: String,
    short_description: String,
    #[serde(rename = "type")]
    kind: String,
    is_optional: String,
    data_type: String,
    shape: String,
    has_shape_flexibility: String,
    shape_range: String,
    enumerated_shapes: String,
    width: String,
    height: String,
    is_color: String,
    has_size_flexibility: String,
}

/// Reads the file.
///
/// # Errors
/// It is missing, no JSON, or has another structure.
pub(super) fn read(file: &Path) -> Result<Spec, Error> {
    let damaged = |error: &dyn std::fmt::Display| bad(file, &format!("is damaged: {error}"));
    let models: Vec<Metadata> = serde_json::from_slice(&read_json(file)?).map_err(|error| damaged(&error))?;
    let Some(model) = models.into_iter().next() else { return Err(damaged(&"it describes no model")) };
    let lists = [&model.input_schema, &model.output_schema, &model.state_schema];
    if lists.iter().any(|list| list.len() > ENTRIES_MAX) {
        return Err(damaged(&format!("it has more than {ENTRIES_MAX} inputs or outputs")));
    }
    let features = |list: Vec<Schema>| list.into_iter().map(Schema::feature).collect::<Vec<_>>();
    let outputs = features(model.output_schema);
    let probabilities = outputs.iter().find(|output| output.kind == Some(FeatureKind::Dictionary));
    let main = Function {
        name: String::new(),
        inputs: features(model.input_schema),
        states: features(model.state_schema),
        predicted: model.predicted_feature_name,
        probabilities: probabilities.map(|output| output.name.clone()).unwrap_or_default(),
        outputs,
    };
    let mut metadata = model.user_defined_metadata;
    for (name, text) in [
        ("description", model.short_description),
        ("version", model.version),
        ("author", model.author),
        ("license", model.license),
    ] {
        if !text.is_empty() {
            metadata.insert(name.to_owned(), text);
        }
    }
    let label = |label: serde_json::Value| label.as_str().map_or_else(|| label.to_string(), str::to_owned);
    Ok(Spec {
        version: model.specification_version,
        kind: crate::spec::kind_named(model.model_type.name.trim_start_matches("MLModelType_")),
        main,
        functions: Vec::new(),
        metadata,
        labels: model.class_labels.into_iter().map(label).collect(),
    })
}

impl Schema {
    fn feature(self) -> Feature {
        let kind = match self.kind.as_str() {
            "MultiArray" | "State" => {
                self.dtype().map(|dtype| FeatureKind::Array(Array { dtype, shape: self.shape() }))
            }
            "Image" => Some(FeatureKind::Image(self.image())),
            "Int64" => Some(FeatureKind::Int64),
            "Double" => Some(FeatureKind::Double),
            "String" => Some(FeatureKind::Text),
            "Dictionary" => Some(FeatureKind::Dictionary),
            "Sequence" => Some(FeatureKind::Sequence),
            _ => None,
        };
        Feature {
            name: self.name,
            description: self.short_description,
            kind,
            is_optional: self.is_optional == "1",
        }
    }

    fn dtype(&self) -> Option<Dtype> {
        Some(match self.data_type.as_str() {
            "Float16" => Dtype::F16,
            "Float32" => Dtype::F32,
            "Double" | "Float64" => Dtype::F64,
            "Int32" => Dtype::I32,
            "Int8" => Dtype::I8,
            _ => return None,
        })
    }

    /// The dimensions that all allowed shapes share.
    fn shape(&self) -> Vec<Option<usize>> {
        let sizes: Vec<i64> = serde_json::from_str(&self.shape).unwrap_or_default();
        let ranges: Vec<[i64; 2]> = serde_json::from_str(&self.shape_range).unwrap_or_default();
        let others: Vec<Vec<i64>> = serde_json::from_str(&self.enumerated_shapes).unwrap_or_default();
        let is_flexible = self.has_shape_flexibility == "1";
        let is_known = !ranges.is_empty() || !others.is_empty();
        let dim = |(index, size): (usize, &i64)| {
            let varies = ranges.get(index).is_some_and(|[least, most]| least != most)
                || others.iter().any(|other| other.get(index).is_some_and(|other| other != size))
                || (is_flexible && !is_known);
            usize::try_from(*size).ok().filter(|size| !varies && *size > 0)
        };
        sizes.iter().enumerate().map(dim).collect()
    }

    fn image(&self) -> Image {
        let pixels = |text: &str| text.parse().ok().filter(|_| self.has_size_flexibility != "1");
        let color = match (self.is_color.as_str(), self.data_type.as_str()) {
            ("0", "Float16") => Color::GrayF16,
            ("0", _) => Color::Gray,
            _ => Color::Rgb,
        };
        Image { width: pixels(&self.width), height: pixels(&self.height), color }
    }
}
