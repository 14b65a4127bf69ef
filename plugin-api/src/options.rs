//! Reading the options of a model, so that a misspelt or wrong one is an error that names it and says what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Error;

/// The options as `O`, whose type has a default for every field and, unless it hands the rest on to somebody else, denies
/// unknown ones.
///
/// # Errors
/// An option is unknown or has a wrong type; the message names it and what was expected.
pub fn parse<O: DeserializeOwned>(options: &Map<String, Value>) -> Result<O, Error> {
    parse_for("", options)
}

/// As [`parse`], with words after the name of a wrong option that say whose it is, such as `" of the yolo pipeline"`.
///
/// # Errors
/// As [`parse`].
pub fn parse_for<O: DeserializeOwned>(whose: &str, options: &Map<String, Value>) -> Result<O, Error> {
    serde_path_to_error::deserialize(Value::Object(options.clone())).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        match path.as_str() {
            "." => Error::invalid(format!("options{whose}: {reason}")),
            path => Error::invalid(format!("option `{path}`{whose}: {reason}")),
        }
    })
}

/// Checks that numbers lie in their ranges; an option that has none may be left out.
///
/// # Errors
/// The first that does not, by its name.
pub fn check_ranges<T: PartialOrd + Display, const N: usize>(
    ranges: [(&str, Option<T>, RangeInclusive<T>); N],
) -> Result<(), Error> {
    for (name, value, allowed) in ranges {
        if let Some(value) = value.filter(|value| !allowed.contains(value)) {
            let (min, max) = (allowed.start(), allowed.end());
            return Err(Error::invalid(format!("option `{name}` is {value}, expected {min} to {max}")));
        }
    }
    Ok(())
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

    #[derive(Debug, serde::Deserialize)]
    struct Open {
        #[serde(default)]
        image_size: u32,
        #[serde(flatten)]
        rest: Map<String, Value>,
    }

    fn map(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        for (options, expected) in [
            (r#"{"lables": []}"#, "unknown field `lables`, expected `labels` or `image_size`"),
            (r#"{"image_size": "big"}"#, "option `image_size` of the owl: invalid type: string"),
            (r#"{"labels": ["a", 3]}"#, "option `labels[1]` of the owl: invalid type: integer"),
        ] {
            let message = parse_for::<Sample>(" of the owl", &map(options)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let sample: Sample = parse(&map(r#"{"labels": ["a"], "image_size": 64}"#)).unwrap();
        assert_eq!((sample.labels.len(), sample.image_size), (1, 64));
    }

    #[test]
    fn a_type_that_hands_the_rest_on_still_names_its_own() {
        let open: Open = parse(&map(r#"{"image_size": 3, "labels": ["a"]}"#)).unwrap();
        assert_eq!((open.image_size, Value::Object(open.rest)), (3, serde_json::json!({"labels": ["a"]})));
        let message = parse::<Open>(&map(r#"{"image_size": -1, "labels": []}"#)).unwrap_err().to_string();
        assert!(message.starts_with("option `image_size`: invalid value: integer `-1`"), "{message}");
    }

    #[test]
    fn ranges_include_their_ends_and_an_absent_option_has_none() {
        let check = |value| check_ranges([("slots", None, 1..=2), ("queue", value, 1..=256)]);
        for good in [None, Some(1), Some(256)] {
            check(good).unwrap();
        }
        for bad in [0, 257] {
            let message = check(Some(bad)).unwrap_err().to_string();
            assert_eq!(message, format!("option `queue` is {bad}, expected 1 to 256"));
        }
    }
}
