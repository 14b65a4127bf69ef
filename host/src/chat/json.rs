//! JSON as Python's `json.dumps` writes it, because models were trained on prompts that it wrote.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CharEscape, Formatter};

use super::trust;

/// How a value is laid out: the keyword arguments of `json.dumps`.
#[derive(Debug, Clone)]
pub(super) struct Style {
    /// Between the items of a list or the members of an object.
    pub(super) item_separator: String,
    /// Between a key and its value.
    pub(super) key_separator: String,
    /// What one level is indented by; `None` keeps everything on one line.
    pub(super) indent: Option<String>,
    /// Whether characters outside ASCII are written as `\uXXXX`.
    pub(super) ensure_ascii: bool,
}

impl Default for Style {
    /// What `json.dumps(value, ensure_ascii=False)` writes.
    fn default() -> Self {
        Self { item_separator: ", ".into(), key_separator: ": ".into(), indent: None, ensure_ascii: false }
    }
}

/// Writes `value` in `style`.
pub(super) fn dumps(value: &Value, style: &Style) -> String {
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, Python { style, depth: 0, empty: true });
    // Neither a `Value` nor a `Vec` can fail; were it otherwise, the text would only be cut short.
    let _infallible = value.serialize(&mut serializer);
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Python<'a> {
    style: &'a Style,
    depth: usize,
    /// Whether the innermost open list or object has no items yet.
    empty: bool,
}

impl Python<'_> {
    fn open<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(bracket)
    }

    fn close<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.new_line(writer)?;
        }
        self.empty = false;
        writer.write_all(bracket)
    }

    fn item<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.style.item_separator.as_bytes())?;
        }
        self.empty = false;
        self.new_line(writer)
    }

    fn new_line<W: Write + ?Sized>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = &self.style.indent else { return Ok(()) };
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(indent.as_bytes()))
    }
}

impl Formatter for Python<'_> {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.style.key_separator.as_bytes())
    }

    fn write_f64<W: Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.style.ensure_ascii || fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            // The marks of untrusted text must survive, or its end would be lost.
            if c.is_ascii() || trust::is_mark(c) {
                write!(writer, "{c}")?;
            } else {
                c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: Write + ?Sized>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

/// `repr` of a finite Python float: an exponent only below 1e-4 and from 1e16 on, with a sign and two digits at least.
fn python_float(value: f64) -> String {
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Expected texts are what Python 3.11 printed.
    #[test]
    fn values_are_written_as_python_writes_them() {
        let pretty = Style { item_separator: ",".into(), indent: Some("  ".into()), ..Style::default() };
        let ascii = Style { ensure_ascii: true, ..Style::default() };
        let plain = Style::default();
        let table = [
            (json!({"b": [1, true, null], "a": {}}), &plain, r#"{"b": [1, true, null], "a": {}}"#),
            (
                json!("<a> & 'b' \u{e9}\n\u{1}\u{7f}\"\\/"),
                &plain,
                "\"<a> & 'b' \u{e9}\\n\\u0001\u{7f}\\\"\\\\/\"",
            ),
            (json!("\u{e9}\u{1f600}"), &ascii, r#""\u00e9\ud83d\ude00""#),
            (
                json!([1.0, 0.1, 1e16, 1.5e-5, 1e300, -0.0, 123456789.5]),
                &plain,
                "[1.0, 0.1, 1e+16, 1.5e-05, 1e+300, -0.0, 123456789.5]",
            ),
            (
                json!({"a": [1, {"b": []}], "c": {}}),
                &pretty,
                "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {}\n}",
            ),
        ];
        for (value, style, expected) in table {
            assert_eq!(dumps(&value, style), expected);
        }
    }
}
