//! Reading the options of a pipeline, so that a misspelt one is an error that names it.

use pajamas_plugin_api::Error;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::open::Kind;

/// The options of a pipeline as `O`, whose type denies unknown fields.
///
/// # Errors
/// An option is unknown or has a wrong value; the message names it and what is allowed.
pub(crate) fn parse<O: DeserializeOwned>(kind: Kind, options: &Map<String, Value>) -> Result<O, Error> {
    serde_path_to_error::deserialize(Value::Object(options.clone())).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        match path.as_str() {
            "." => Error::invalid(format!("options of the {kind} pipeline: {reason}")),
            path => Error::invalid(format!("option `{path}` of the {kind} pipeline: {reason}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        labels: Vec<String>,
        image_size: u32,
    }

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        let cases = [
            (r#"{"lables": []}"#, "unknown field `lables`, expected `labels` or `image_size`"),
            (r#"{"image_size": "big"}"#, "option `image_size` of the yolo pipeline: invalid type: string"),
            (r#"{"labels": ["a", 3]}"#, "option `labels[1]` of the yolo pipeline: invalid type: integer"),
        ];
        for (options, expected) in cases {
            let options: Map<String, Value> = serde_json::from_str(options).unwrap();
            let message = parse::<Sample>(Kind::Yolo, &options).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let options: Map<String, Value> =
            serde_json::from_str(r#"{"labels": ["a"], "image_size": 64}"#).unwrap();
        let sample: Sample = parse(Kind::Yolo, &options).unwrap();
        assert_eq!((sample.labels.len(), sample.image_size), (1, 64));
    }
}
