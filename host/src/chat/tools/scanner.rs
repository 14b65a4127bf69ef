//! Finds the end of a JSON value while it streams, and notices at once when it is not JSON.

/// The deepest nesting of a value; a deeper one counts as invalid.
const DEPTH_MAX: usize = 128;

/// Reads one JSON value (RFC 8259) character by character.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    expect: Expect,
    open: Vec<Container>,
}

/// What a character meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// It belongs to the value, which goes on.
    More,
    /// It ends the value.
    Complete,
    /// The value, a number, was complete before it; the character is not part of it.
    CompleteBefore,
    /// The text is not JSON.
    Invalid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    /// The rest of a string.
    String {
        is_key: bool,
    },
    /// The character after a backslash.
    Escape {
        is_key: bool,
    },
    /// So many hexadecimal digits.
    Hex {
        is_key: bool,
        left: u8,
    },
    /// The rest of `true`, `false` or `null`.
    Word(&'static str),
    Number(Digits),
}

/// The parts of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Sign,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentTail,
}

impl Scanner {
    /// A scanner that waits for the first character of a value.
    pub(super) fn new() -> Self {
        Self { expect: Expect::Value, open: Vec::new() }
    }

    /// Takes the next character. Not to be called again once it returned anything but [`Scan::More`].
    pub(super) fn push(&mut self, c: char) -> Scan {
        match self.expect {
            Expect::String { is_key } => self.in_string(c, is_key),
            Expect::Escape { is_key } => match c {
                'u' => self.then(Expect::Hex { is_key, left: 4 }),
                '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => self.then(Expect::String { is_key }),
                _ => Scan::Invalid,
            },
            Expect::Hex { is_key, left } if c.is_ascii_hexdigit() => match left {
                1 => self.then(Expect::String { is_key }),
                _ => self.then(Expect::Hex { is_key, left: left - 1 }),
            },
            Expect::Hex { .. } => Scan::Invalid,
            Expect::Word(rest) => match rest.strip_prefix(c) {
                Some("") => self.end_value(),
                Some(rest) => self.then(Expect::Word(rest)),
                None => Scan::Invalid,
            },
            Expect::Number(digits) => self.in_number(c, digits),
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => Scan::More,
            _ => self.between_tokens(c),
        }
    }

    fn between_tokens(&mut self, c: char) -> Scan {
        match (self.expect, c) {
            (Expect::ValueOrEnd, ']') | (Expect::KeyOrEnd, '}') => self.close(),
            (Expect::CommaOrEnd, ',') => match self.open.last() {
                Some(Container::Object) => self.then(Expect::Key),
                _ => self.then(Expect::Value),
            },
            (Expect::CommaOrEnd, ']') if self.open.last() == Some(&Container::Array) => self.close(),
            (Expect::CommaOrEnd, '}') if self.open.last() == Some(&Container::Object) => self.close(),
            (Expect::Key | Expect::KeyOrEnd, '"') => self.then(Expect::String { is_key: true }),
            (Expect::Colon, ':') => self.then(Expect::Value),
            (Expect::Value | Expect::ValueOrEnd, _) => self.begin_value(c),
            _ => Scan::Invalid,
        }
    }

    fn begin_value(&mut self, c: char) -> Scan {
        match c {
            '{' => self.enter(Container::Object, Expect::KeyOrEnd),
            '[' => self.enter(Container::Array, Expect::ValueOrEnd),
            '"' => self.then(Expect::String { is_key: false }),
            't' => self.then(Expect::Word("rue")),
            'f' => self.then(Expect::Word("alse")),
            'n' => self.then(Expect::Word("ull")),
            '-' => self.then(Expect::Number(Digits::Sign)),
            '0' => self.then(Expect::Number(Digits::Zero)),
            '1'..='9' => self.then(Expect::Number(Digits::Integer)),
            _ => Scan::Invalid,
        }
    }

    fn in_string(&mut self, c: char, is_key: bool) -> Scan {
        match c {
            '"' if is_key => self.then(Expect::Colon),
            '"' => self.end_value(),
            '\\' => self.then(Expect::Escape { is_key }),
            '\0'..='\u{1f}' => Scan::Invalid,
            _ => Scan::More,
        }
    }

    fn in_number(&mut self, c: char, digits: Digits) -> Scan {
        let next = match (digits, c) {
            (Digits::Sign, '0') => Digits::Zero,
            (Digits::Sign, '1'..='9') | (Digits::Integer, '0'..='9') => Digits::Integer,
            (Digits::Zero | Digits::Integer, '.') => Digits::Point,
            (Digits::Point | Digits::Fraction, '0'..='9') => Digits::Fraction,
            (Digits::Zero | Digits::Integer | Digits::Fraction, 'e' | 'E') => Digits::Exponent,
            (Digits::Exponent, '+' | '-') => Digits::ExponentSign,
            (Digits::Exponent | Digits::ExponentSign | Digits::ExponentTail, '0'..='9') => {
                Digits::ExponentTail
            }
            (Digits::Zero | Digits::Integer | Digits::Fraction | Digits::ExponentTail, _) => {
                return match self.end_value() {
                    Scan::Complete => Scan::CompleteBefore,
                    _ => self.push(c),
                };
            }
            _ => return Scan::Invalid,
        };
        self.then(Expect::Number(next))
    }

    fn then(&mut self, expect: Expect) -> Scan {
        self.expect = expect;
        Scan::More
    }

    fn enter(&mut self, container: Container, expect: Expect) -> Scan {
        if self.open.len() == DEPTH_MAX {
            return Scan::Invalid;
        }
        self.open.push(container);
        self.then(expect)
    }

    fn close(&mut self) -> Scan {
        self.open.pop();
        self.end_value()
    }

    fn end_value(&mut self) -> Scan {
        if self.open.is_empty() { Scan::Complete } else { self.then(Expect::CommaOrEnd) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The value at the beginning of `text`, and whether it ended.
    fn scan(text: &str) -> (&str, Scan) {
        let mut scanner = Scanner::new();
        for (at, c) in text.char_indices() {
            match scanner.push(c) {
                Scan::More => {}
                Scan::Complete => return (&text[..at + c.len_utf8()], Scan::Complete),
                other => return (&text[..at], other),
            }
        }
        (text, Scan::More)
    }

    #[test]
    fn values_end_where_json_says() {
        let table = [
            (
                r#"{"a": [1, {"b": "}\""}], "c": -1.5e+3} rest"#,
                r#"{"a": [1, {"b": "}\""}], "c": -1.5e+3}"#,
                Scan::Complete,
            ),
            ("12, 3", "12", Scan::CompleteBefore),
            ("0}", "0", Scan::CompleteBefore),
            (" nullx", " null", Scan::Complete),
            (r#""\u00e9" "#, r#""\u00e9""#, Scan::Complete),
            ("[]]", "[]", Scan::Complete),
            ("[1, ", "[1, ", Scan::More),
            ("{\"a\"", "{\"a\"", Scan::More),
        ];
        for (text, value, scanned) in table {
            assert_eq!(scan(text), (value, scanned));
        }
    }

    #[test]
    fn what_is_not_json_is_noticed_at_its_first_wrong_character() {
        let table = [
            ("[1,]", "[1,"),
            ("{,", "{"),
            ("{\"a\":}", "{\"a\":"),
            ("{a", "{"),
            ("01", "0"),
            ("trux", "tru"),
            ("\"\n", "\""),
            ("\"\\x", "\"\\"),
            ("[1}", "[1"),
            ("-x", "-"),
            ("1.x", "1."),
            ("{\"a\":1,}", "{\"a\":1,"),
            ("\"\\u00g", "\"\\u00"),
            ("'", ""),
        ];
        for (text, valid) in table {
            let (scanned, outcome) = scan(text);
            let expected = if text == "01" { Scan::CompleteBefore } else { Scan::Invalid };
            assert_eq!((scanned, outcome), (valid, expected), "{text}");
        }
        assert_eq!(scan(&"[".repeat(200)).1, Scan::Invalid);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_json_text_is_scanned_to_its_end(value in json()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let followed = format!("{text} x");
                prop_assert_eq!(scan(&followed).0, text);
            }
        }

        #[test]
        fn what_the_scanner_completes_is_json(text in "[-\\[\\]{}:,\"\\\\ a0-2.eEtrunl+]{0,12}") {
            let (scanned, outcome) = scan(&text);
            if matches!(outcome, Scan::Complete | Scan::CompleteBefore) {
                prop_assert!(serde_json::from_str::<serde_json::value::Value>(scanned).is_ok(), "{scanned}");
            }
        }
    }
}
