//! What an operator wants to have taken out.

use hook_common::config::{Entry, Fields};
use hook_common::pattern::{Outcome, Pattern};

use crate::kinds::{Finding, Kind, LEN_MAX, Tail, may_begin};

/// A match of an operator's own pattern is shorter than this, in bytes.
const PATTERN_LEN_MAX: usize = 256;

/// No text waits longer than this many bytes of it, whatever is looked for.
pub const HELD_BYTES_MAX: usize = if LEN_MAX > PATTERN_LEN_MAX { LEN_MAX } else { PATTERN_LEN_MAX };

/// What is looked for, and what comes in its place.
#[derive(Debug)]
pub struct Rules {
    /// In the order in which they are asked, each with its replacement.
    kinds: Vec<(Kind, String)>,
    patterns: Vec<(Pattern, String)>,
    /// Which bytes a kind or a pattern may begin with.
    begins: [bool; 256],
    in_input: bool,
    in_output: bool,
}

impl Rules {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When something is wrong in it; the message says what.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(json)?;
        let wanted = fields.choices("kinds", &Kind::ALL)?;
        let replacements = replacements(fields.table("replacements")?)?;
        let mut patterns = Vec::new();
        for entry in fields.entries("patterns")?.unwrap_or_default() {
            patterns.push(pattern(entry)?);
        }
        let in_input = fields.flag("input")?.unwrap_or(true);
        let in_output = fields.flag("output")?.unwrap_or(true);
        fields.finish()?;
        let kinds = Kind::ASKED
            .into_iter()
            .filter(|kind| wanted.as_ref().is_none_or(|wanted| wanted.contains(kind)))
            .filter_map(|kind| replacements.iter().find(|(other, _)| *other == kind).cloned())
            .collect::<Vec<_>>();
        let begins = std::array::from_fn(|code| {
            let byte = code as u8;
            !kinds.is_empty() && may_begin(&[byte], 0)
                || patterns.iter().any(|(pattern, _)| pattern.may_begin_with(byte))
        });
        Ok(Self { kinds, patterns, begins, in_input, in_output })
    }

    /// Whether prompts are looked at.
    #[must_use]
    pub fn in_input(&self) -> bool {
        self.in_input
    }

    /// Whether answers are looked at.
    #[must_use]
    pub fn in_output(&self) -> bool {
        self.in_output
    }

    /// The next place from `at` on where something may begin.
    pub(crate) fn next_place(&self, text: &str, at: usize) -> usize {
        let is_place = |byte: &u8| self.begins[usize::from(*byte)];
        let found = text.as_bytes()[at..].iter().position(is_place);
        // A pattern may begin with any byte that is not ASCII; a character begins with its first.
        found.map_or(text.len(), |skipped| text.floor_char_boundary(at + skipped))
    }

    /// What begins at byte `at`, and its replacement.
    pub(crate) fn at(&self, text: &str, at: usize, end: bool) -> (Finding, &str) {
        for (pattern, replacement) in &self.patterns {
            if !pattern.may_begin_with(text.as_bytes()[at]) {
                continue;
            }
            match pattern.longest_at(text, at, PATTERN_LEN_MAX, end) {
                Outcome::No => {}
                Outcome::More => return (Finding::More, ""),
                Outcome::Found(len) => return (Finding::Found(len, Tail::None), replacement),
            }
        }
        if may_begin(text.as_bytes(), at) {
            for (kind, replacement) in &self.kinds {
                match kind.at(text.as_bytes(), at, end) {
                    Finding::No => {}
                    finding => return (finding, replacement),
                }
            }
        }
        (Finding::No, "")
    }
}

/// For each kind, `[KIND]` or what the operator wrote.
fn replacements(table: Option<Fields>) -> Result<Vec<(Kind, String)>, String> {
    let mut own = table;
    let mut all = Vec::new();
    for (name, kind) in Kind::ALL {
        let text = own.as_mut().map_or(Ok(None), |table| table.text(name))?;
        all.push((kind, text.unwrap_or_else(|| format!("[{}]", name.to_ascii_uppercase()))));
    }
    own.map_or(Ok(()), Fields::finish)?;
    Ok(all)
}

/// A text as it stands, or a table with `text` or `regex`.
fn pattern(entry: Entry) -> Result<(Pattern, String), String> {
    const REPLACEMENT: &str = "[REDACTED]";
    let mut table = match entry {
        Entry::Text(text) if text.is_empty() => return Err("a text in `patterns` is empty".to_owned()),
        Entry::Text(text) => return Ok((Pattern::literal(&text, false), REPLACEMENT.to_owned())),
        Entry::Table(table) => table,
    };
    let (text, regex) = (table.text("text")?, table.text("regex")?);
    let ignore_case = table.flag("ignore_case")?.unwrap_or(false);
    let replacement = table.text("replacement")?.unwrap_or_else(|| REPLACEMENT.to_owned());
    let pattern = match (text, regex) {
        (Some(text), None) if !text.is_empty() => Pattern::literal(&text, ignore_case),
        (None, Some(regex)) => Pattern::regex(&regex, ignore_case)
            .map_err(|error| format!("`{}` is wrong: {error}", table.place("regex")))?,
        _ => {
            return Err(format!(
                "`{}` needs either `text` or `regex`",
                table.place("").trim_end_matches('.')
            ));
        }
    };
    table.finish()?;
    Ok((pattern, replacement))
}
