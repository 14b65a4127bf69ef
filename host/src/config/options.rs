//! A plugin's own options: any TOML that JSON can express too.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Map, Value};

/// The options of a plugin, as `[plugins.NAME] options` and `model.toml` have them. The plugin judges their meaning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        to_map(table).map(Self).map_err(D::Error::custom)
    }
}

fn to_map(table: toml::Table) -> Result<Map<String, Value>, String> {
    let entry = |(key, value)| match to_json(value) {
        Ok(value) => Ok((key, value)),
        Err(problem) => Err(format!("option \"{key}\" {problem}")),
    };
    table.into_iter().map(entry).collect()
}

fn to_json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => match serde_json::Number::from_f64(number) {
            Some(number) => Value::Number(number),
            None => return Err(format!("is {number}: expected a finite number")),
        },
        toml::Value::Boolean(boolean) => Value::Bool(boolean),
        toml::Value::Datetime(time) => return Err(format!("is the date {time}: expected a text in quotes")),
        toml::Value::Array(values) => {
            Value::Array(values.into_iter().map(to_json).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => Value::Object(to_map(table)?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_keep_types_and_nesting() {
        let text =
            "context = 4096\nkv_type = \"f16\"\nmmap = true\nscale = 0.5\nsplit = [1, 2]\n[lora]\nalpha = 1";
        let options: Options = toml::from_str(text).unwrap();
        let expected = json!({
            "context": 4096, "kv_type": "f16", "mmap": true, "scale": 0.5, "split": [1, 2], "lora": {"alpha": 1}
        });
        assert_eq!(Value::Object(options.0), expected);
    }

    #[test]
    fn what_json_lacks_is_refused_by_name() {
        for (text, expected) in [
            ("since = 2024-05-01", "option \"since\" is the date 2024-05-01: expected a text in quotes"),
            ("[a]\nscale = nan", "option \"a\" option \"scale\" is NaN: expected a finite number"),
        ] {
            let error = toml::from_str::<Options>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
