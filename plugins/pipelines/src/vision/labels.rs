//! The names of classes.

use serde_json::{Map, Value};

/// Most names that are read; what comes later has no name.
const LABELS_MAX: usize = 100_000;

/// The names of classes, by class id. A class without a name is called `class_` and its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels(Vec<String>);

impl Labels {
    /// Given names.
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// The names in Hugging Face's `id2label`, such as `{"0": "cat", "1": "dog"}`.
    pub(crate) fn from_id2label(map: &Map<String, Value>) -> Self {
        Self::from_pairs(map.iter().filter_map(|(id, name)| {
            Some((id.parse().ok()?, name.as_str().map_or_else(|| name.to_string(), str::to_owned)))
        }))
    }

    /// The names in the metadata of an ultralytics export: a Python dict such as `{0: 'cat', 1: "dog's"}`, or a list as
    /// older versions wrote it. `None` if the text is neither.
    pub(crate) fn from_python(text: &str) -> Option<Self> {
        let mut reader = Python { rest: text };
        let names = match reader.rest.trim_start().chars().next()? {
            '{' => Self::from_pairs(reader.items('{', '}', Python::pair)?.into_iter()),
            _ => Self(reader.items('[', ']', Python::string)?),
        };
        reader.rest.trim().is_empty().then_some(names)
    }

    fn from_pairs(pairs: impl Iterator<Item = (usize, String)>) -> Self {
        let mut names = Vec::new();
        for (id, name) in pairs.filter(|(id, _)| *id < LABELS_MAX) {
            if names.len() <= id {
                names.resize(id + 1, String::new());
            }
            names[id] = name;
        }
        Self(names)
    }

    /// How many classes have a name, gaps included.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no class has a name.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of a class.
    pub(crate) fn name(&self, class: usize) -> String {
        match self.0.get(class) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("class_{class}"),
        }
    }

    /// The names of the classes 0 to `count`.
    pub(crate) fn names(&self, count: usize) -> Vec<String> {
        (0..count).map(|class| self.name(class)).collect()
    }
}

/// A reader of the Python literals that occur in `names`.
struct Python<'a> {
    rest: &'a str,
}

impl Python<'_> {
    fn skip(&mut self, expected: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(expected)?;
        Some(())
    }

    /// Items between two brackets, with commas between them.
    fn items<T>(
        &mut self,
        opening: char,
        closing: char,
        item: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.skip(opening)?;
        let mut items = Vec::new();
        while self.skip(closing).is_none() {
            if !items.is_empty() {
                self.skip(',')?;
                if self.skip(closing).is_some() {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Some(items)
    }

    fn pair(&mut self) -> Option<(usize, String)> {
        let text = self.rest.trim_start();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let id = text[..digits].parse().ok()?;
        self.rest = &text[digits..];
        self.skip(':')?;
        Some((id, self.string()?))
    }

    /// A string in either kind of quotes, with the escapes that `repr` writes.
    fn string(&mut self) -> Option<String> {
        let text = self.rest.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut chars = text[1..].char_indices();
        let mut string = String::new();
        while let Some((index, char)) = chars.next() {
            match char {
                '\\' => {
                    let escaped = chars.next()?.1;
                    let digits = match escaped {
                        'x' => 2,
                        'u' => 4,
                        'U' => 8,
                        _ => 0,
                    };
                    let hex: String = chars.by_ref().take(digits).map(|(_, digit)| digit).collect();
                    string.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'x' | 'u' | 'U' => char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?,
                        other => other,
                    });
                }
                _ if char == quote => {
                    self.rest = &text[1 + index + 1..];
                    return Some(string);
                }
                _ => string.push(char),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_exports_are_read() {
        let cases: [(&str, Option<&[&str]>); 9] = [
            ("{0: 'person', 1: 'bicycle'}", Some(&["person", "bicycle"])),
            (r#"{0: "driver's seat", 1: 'a \'b\' \\ \x41\u00e9',}"#, Some(&["driver's seat", r"a 'b' \ Aé"])),
            ("{1: 'b', 0: 'a'}", Some(&["a", "b"])),
            ("{2: 'c'}", Some(&["class_0", "class_1", "c"])),
            ("['a', \"b\"]", Some(&["a", "b"])),
            ("{}", Some(&[])),
            ("{0: 'a'", None),
            ("{0: 'a'} x", None),
            ("person", None),
        ];
        for (text, expected) in cases {
            let found = Labels::from_python(text).map(|labels| labels.names(labels.len()));
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn id2label_is_read() {
        let map = serde_json::from_str(r#"{"1": "dog", "0": "cat", "x": "none"}"#).unwrap();
        assert_eq!(Labels::from_id2label(&map).names(3), ["cat", "dog", "class_2"]);
    }

    proptest! {
        #[test]
        fn no_text_is_fatal(text in r#"[\[\]{}0-9'":,\\xunU a-c]{0,40}"#) {
            let _labels = Labels::from_python(&text);
        }

        #[test]
        fn what_repr_writes_is_read(names in prop::collection::vec("[a-z' \"\\\\]{1,8}", 0..6)) {
            let repr: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(id, name)| format!("{id}: '{}'", name.replace('\\', "\\\\").replace('\'', "\\'")))
                .collect();
            let labels = Labels::from_python(&format!("{{{}}}", repr.join(", "))).unwrap();
            prop_assert_eq!(labels.names(names.len()), names);
        }
    }
}
