//! Reads the configuration that an operator wrote, with errors that name the field and say what belongs there.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// The fields of a table. Each is taken once; [`Fields::finish`] complains about those that nobody asked for.
pub struct Fields {
    /// Where the table is, for messages: empty, or a path that ends in a dot.
    place: String,
    values: Map<String, Value>,
    asked: Vec<&'static str>,
}

/// Something that a list holds: a text, or a table that says more.
pub enum Entry {
    /// A text.
    Text(String),
    /// A table.
    Table(Fields),
}

impl Fields {
    /// Reads the text that the host hands out.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(json: &str) -> Result<Self, String> {
        let value =
            serde_json::from_str(json).map_err(|error| format!("the configuration is no JSON: {error}"))?;
        match value {
            Value::Object(values) => Ok(Self::new(String::new(), values)),
            _ => Err("the configuration is no table".to_owned()),
        }
    }

    fn new(place: String, values: Map<String, Value>) -> Self {
        Self { place, values, asked: Vec::new() }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.values.remove(name)
    }

    fn wrong(&self, name: &str, value: &Value, expected: impl Display) -> String {
        format!("`{}{name}` is {value}; expected {expected}", self.place)
    }

    /// Reads a field by a function that returns nothing for a value of the wrong kind.
    fn read<T>(
        &mut self,
        name: &'static str,
        expected: impl Display,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.wrong(name, &value, expected)),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, String> {
        self.read(name, "a text", |value| value.as_str().map(str::to_owned))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&mut self, name: &'static str) -> Result<Option<bool>, String> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// When it is something else, or out of bounds.
    pub fn whole(&mut self, name: &'static str, bounds: RangeInclusive<u32>) -> Result<Option<u32>, String> {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.read(name, expected, |value| {
            let number = u32::try_from(value.as_u64()?).ok()?;
            bounds.contains(&number).then_some(number)
        })
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// When it is something else, or out of bounds.
    pub fn number(&mut self, name: &'static str, bounds: RangeInclusive<f64>) -> Result<Option<f64>, String> {
        let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
        self.read(name, expected, |value| value.as_f64().filter(|number| bounds.contains(number)))
    }

    /// Three numbers within bounds, or one that stands for all three.
    ///
    /// # Errors
    /// When it is something else, or out of bounds.
    pub fn three(
        &mut self,
        name: &'static str,
        bounds: RangeInclusive<f64>,
    ) -> Result<Option<[f64; 3]>, String> {
        let expected = format!("a number from {} to {}, or a list of three", bounds.start(), bounds.end());
        let one = |value: &Value| value.as_f64().filter(|number| bounds.contains(number));
        self.read(name, expected, |value| match value {
            Value::Array(list) => match list.as_slice() {
                [a, b, c] => Some([one(a)?, one(b)?, one(c)?]),
                _ => None,
            },
            value => one(value).map(|number| [number; 3]),
        })
    }

    /// One of several words.
    ///
    /// # Errors
    /// When it is something else.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, String> {
        let expected = format!("one of {}", quoted(choices.iter().map(|(word, _)| *word)));
        self.read(name, expected, |value| {
            let word = value.as_str()?;
            choices.iter().find(|(other, _)| *other == word).map(|(_, choice)| *choice)
        })
    }

    /// A list of some of several words.
    ///
    /// # Errors
    /// When it is something else.
    pub fn choices<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Result<Option<Vec<T>>, String> {
        let expected = format!("a list of {}", quoted(choices.iter().map(|(word, _)| *word)));
        self.read(name, expected, |value| {
            let find = |word: &Value| choices.iter().find(|(other, _)| Some(*other) == word.as_str());
            value.as_array()?.iter().map(|word| find(word).map(|(_, choice)| *choice)).collect()
        })
    }

    /// A list of texts and tables.
    ///
    /// # Errors
    /// When it is something else.
    pub fn entries(&mut self, name: &'static str) -> Result<Option<Vec<Entry>>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let expected = "a list of texts and tables";
        let Value::Array(list) = value else { return Err(self.wrong(name, &value, expected)) };
        let entry = |(number, value)| match value {
            Value::String(text) => Ok(Entry::Text(text)),
            Value::Object(values) => {
                Ok(Entry::Table(Self::new(format!("{}{name}[{number}].", self.place), values)))
            }
            value => Err(self.wrong(name, &value, expected)),
        };
        list.into_iter().enumerate().map(entry).collect::<Result<_, _>>().map(Some)
    }

    /// A table in this one.
    ///
    /// # Errors
    /// When it is something else.
    pub fn table(&mut self, name: &'static str) -> Result<Option<Self>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self::new(format!("{}{name}.", self.place), values))),
            Some(value) => Err(self.wrong(name, &value, "a table")),
        }
    }

    /// All fields of a table whose names are the operator's, and whose values are texts.
    ///
    /// # Errors
    /// When a value is something else.
    pub fn into_texts(self) -> Result<Vec<(String, String)>, String> {
        let Self { place, values, .. } = self;
        let text = |(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            value => Err(format!("`{place}{name}` is {value}; expected a text")),
        };
        values.into_iter().map(text).collect()
    }

    /// Where a field of this table is, for messages.
    #[must_use]
    pub fn place(&self, name: &str) -> String {
        format!("{}{name}", self.place)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When a field is left that nobody asked for.
    pub fn finish(self) -> Result<(), String> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => {
                let known = quoted(self.asked.iter().copied());
                Err(format!("unknown field `{}{name}`; expected one of {known}", self.place))
            }
        }
    }
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reading fields `side`, `name`, `mode`, `pad` and `list` says about a configuration.
    fn error_of(json: &str) -> String {
        let read = || {
            let mut fields = Fields::parse(json)?;
            fields.whole("side", 1..=10)?;
            fields.text("name")?;
            fields.choice("mode", &[("on", 1), ("off", 2)])?;
            fields.three("pad", 0.0..=1.0)?;
            fields.entries("list")?;
            if let Some(mut inner) = fields.table("inner")? {
                inner.flag("deep")?;
                inner.finish()?;
            }
            fields.finish()
        };
        read().err().unwrap_or_default()
    }

    #[test]
    fn errors_name_the_field_and_what_was_expected() {
        for (json, error) in [
            ("{}", ""),
            (r#"{"side": 10, "name": "n", "mode": "on", "pad": [0, 0.5, 1], "list": ["a", {}]}"#, ""),
            ("[]", "the configuration is no table"),
            (r#"{"side": 11}"#, "`side` is 11; expected a whole number from 1 to 10"),
            (r#"{"side": 1.5}"#, "`side` is 1.5; expected a whole number from 1 to 10"),
            (r#"{"name": 1}"#, "`name` is 1; expected a text"),
            (r#"{"mode": "x"}"#, r#"`mode` is "x"; expected one of `on`, `off`"#),
            (r#"{"pad": [1, 1]}"#, "`pad` is [1,1]; expected a number from 0 to 1, or a list of three"),
            (r#"{"list": [1]}"#, "`list` is 1; expected a list of texts and tables"),
            (r#"{"inner": {"deep": 1}}"#, "`inner.deep` is 1; expected true or false"),
            (r#"{"inner": {"x": 1}}"#, "unknown field `inner.x`; expected one of `deep`"),
            (
                r#"{"sid": 1}"#,
                "unknown field `sid`; expected one of `side`, `name`, `mode`, `pad`, `list`, `inner`",
            ),
        ] {
            assert_eq!(error_of(json), error, "{json}");
        }
    }

    #[test]
    fn a_configuration_that_is_no_json_says_where() {
        assert_eq!(
            error_of("{"),
            "the configuration is no JSON: EOF while parsing an object at line 1 column 1"
        );
    }
}
