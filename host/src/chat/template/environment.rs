//! A Jinja environment that behaves as the one in which Hugging Face renders chat templates.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::TEMPLATE_NAME;
use crate::chat::json::{self, Style};

/// How deep values may be nested that a template turns into JSON. Requests are limited by their JSON parser to 128
/// levels; only a template could build more.
const JSON_DEPTH_MAX: usize = 256;
/// The widest indentation that a template may ask for, in spaces.
const INDENT_MAX: usize = 64;

/// The message that a template passed to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RaisedError(pub(super) String);

/// Compiles `source` into an environment of its own.
///
/// As in `apply_chat_template`: `trim_blocks`, `lstrip_blocks`, no trailing line break, loop controls, nothing is
/// escaped, and Python's methods on strings, lists and dictionaries. `strftime_now` depends on the request and is
/// part of its context, and how much work a rendering may cost is the caller's to set.
pub(super) fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
    // Otherwise errors hold on to the values of a request.
    environment.set_debug(false);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", tojson);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_template_owned(TEMPLATE_NAME, without_generation_tags(source).into_owned())?;
    Ok(environment)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception was called")
        .with_source(RaisedError(message)))
}

/// Python's strings and dictionaries have a length and can be indexed, so Jinja calls them sequences.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
}

/// Python's `None` cannot be iterated over.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// `tojson` of `apply_chat_template`: `json.dumps` without escapes for HTML, the order of keys kept.
fn tojson(state: &State<'_, '_>, value: &Value, options: Kwargs) -> Result<String, Error> {
    let mut style = Style {
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        ..Style::default()
    };
    if let Some(indent) = options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
        style.indent = Some(indentation(&indent)?);
        ",".clone_into(&mut style.item_separator);
    }
    if let Some(separators) = options.get::<Option<Vec<String>>>("separators")? {
        let [item, key] =
            <[String; 2]>::try_from(separators).map_err(|_| invalid("separators takes two strings"))?;
        (style.item_separator, style.key_separator) = (item, key);
    }
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut value = to_json(state, value, JSON_DEPTH_MAX)?;
    if sort_keys {
        value.sort_all_objects();
    }
    Ok(json::dumps(&value, &style))
}

fn indentation(indent: &Value) -> Result<String, Error> {
    match indent.as_str() {
        Some(text) if text.len() <= INDENT_MAX => Ok(text.to_owned()),
        Some(_) => Err(invalid("indent is too wide")),
        None => match usize::try_from(indent.clone())? {
            width @ ..=INDENT_MAX => Ok(" ".repeat(width)),
            _ => Err(invalid("indent is too wide")),
        },
    }
}

fn to_json(state: &State<'_, '_>, value: &Value, depth_left: usize) -> Result<serde_json::Value, Error> {
    state.consume_fuel(1)?;
    let depth_left =
        depth_left.checked_sub(1).ok_or_else(|| invalid("tojson: the value is nested too deeply"))?;
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(serde_json::Value::Null),
        ValueKind::Bool => Ok(value.is_true().into()),
        ValueKind::Number => number(value),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            state.consume_fuel(text.len() as u64 / 64)?;
            Ok(text.into())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.checked().map(|item| to_json(state, &item?, depth_left));
            items.collect::<Result<Vec<_>, _>>().map(serde_json::Value::Array)
        }
        ValueKind::Map => {
            let members = value.try_iter()?.checked().map(|key| {
                let key = key?;
                Ok((key_text(&key)?, to_json(state, &value.get_item(&key)?, depth_left)?))
            });
            members.collect::<Result<serde_json::Map<_, _>, Error>>().map(serde_json::Value::Object)
        }
        other => Err(invalid(format!("tojson: a value of type {other} has no JSON form"))),
    }
}

fn number(value: &Value) -> Result<serde_json::Value, Error> {
    if !value.is_integer() {
        return Ok(f64::try_from(value.clone())?.into());
    }
    let unsigned = || u64::try_from(value.clone()).map(serde_json::Value::from);
    i64::try_from(value.clone()).map(serde_json::Value::from).or_else(|_| unsigned())
}

/// A key as `json.dumps` writes it: strings as they are, numbers and constants as JSON.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String | ValueKind::Number => Ok(key.to_string()),
        ValueKind::Bool => Ok(key.to_string().to_lowercase()),
        ValueKind::None => Ok("null".to_owned()),
        other => Err(invalid(format!("tojson: a value of type {other} cannot be a key"))),
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Replaces the tags `{% generation %}` and `{% endgeneration %}`, which mark the assistant's words for training, by
/// tags that do nothing. What they say about white space is kept.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (text, tag) = rest.split_at(at);
        output.push_str(text);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, tail) = tag.split_at(end);
        let is_sign = |c| matches!(c, '{' | '}' | '%' | '-' | '+');
        match tag.trim_matches(is_sign).trim() {
            "generation" => output.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => output.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => output.push_str(tag),
        }
        rest = tail;
    }
    output.push_str(rest);
    Cow::Owned(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        let environment = compile(source).unwrap();
        environment.get_template(TEMPLATE_NAME).unwrap().render(()).unwrap()
    }

    /// Expected texts are what Python's Jinja2 3.1 renders in the environment of `apply_chat_template`.
    #[test]
    fn expressions_mean_what_they_mean_in_python() {
        let table = [
            ("{{ {'b': 1, 'a': '<é>'} | tojson }}", r#"{"b": 1, "a": "<é>"}"#),
            ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", r#"{"a":2,"b":1}"#),
            ("{{ [1.0, none, true] | tojson(indent=2) }}", "[\n  1.0,\n  null,\n  true\n]"),
            ("{{ 'é' | tojson(ensure_ascii=true) }}", r#""\u00e9""#),
            ("{{ {1: 2, none: 3, false: 4} | tojson }}", r#"{"1": 2, "null": 3, "false": 4}"#),
            ("{{ 'x' is sequence }}{{ {} is sequence }}{{ 1 is sequence }}", "TrueTrueFalse"),
            ("{{ 'x' is iterable }}{{ none is iterable }}{{ {} is mapping }}", "TrueFalseTrue"),
            ("{{ ' a b '.strip().split(' ')[-1].upper() }}", "B"),
            ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
            (
                "{% set ns = namespace(n=0) %}{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}\
              {% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
                "4",
            ),
            ("{{ [1, 2, 3][1:] }}{{ [1, 2, 3][::-1] }}{{ 'abc'[:-1] }}", "[2, 3][3, 2, 1]ab"),
            ("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"),
            ("{{ none }} {{ true }} {{ missing }}", "None True "),
            ("{{ {'a': ['x', 1.5]} }}", "{'a': ['x', 1.5]}"),
            ("a {%- generation -%} b {%- endgeneration %} c", "ab c"),
        ];
        for (source, expected) in table {
            assert_eq!(render(source), expected, "{source}");
        }
    }

    #[test]
    fn json_of_bottomless_values_is_an_error() {
        let source = "{% set ns = namespace(v=[]) %}{% for i in range(300) %}{% set ns.v = [ns.v] %}{% endfor %}\
                      {{ ns.v | tojson }}";
        let environment = compile(source).unwrap();
        let error = environment.get_template(TEMPLATE_NAME).unwrap().render(()).unwrap_err();
        assert!(error.to_string().contains("nested too deeply"), "{error}");
    }
}
