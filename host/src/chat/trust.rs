//! Which parts of a prompt the template wrote, and which came with the request.
//!
//! A control token is an instruction to the model only where the template put it. Text of a request that contains one,
//! or that could become one by being put next to other text, is wrapped in a pair of marks before the template sees it;
//! afterwards the rendered text is split at the marks. Text without control tokens is not marked, so that a template
//! which looks at its input sees what the reference implementation shows it. The one thing this does not withstand is a
//! template that puts control tokens together from what it is given, such as by deleting characters from its middle.

use std::borrow::Cow;
use std::collections::HashSet;

use aho_corasick::{AhoCorasick, BuildError};

/// A stretch of the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The text; never empty.
    pub text: String,
    /// Whether control tokens in the text are control tokens. Where it is false they are to be read as plain text.
    pub trusted: bool,
}

/// Marks the beginning of untrusted text. The last two private-use code points: no font or protocol uses them, and a
/// request that does gets U+FFFD instead.
const OPEN: char = '\u{10fffc}';
/// Marks the end of untrusted text.
const CLOSE: char = '\u{10fffd}';

/// Whether `c` is one of the two marks.
pub(super) fn is_mark(c: char) -> bool {
    matches!(c, OPEN | CLOSE)
}

/// `text` without marks, for messages that a person reads.
pub(super) fn without_marks(text: &str) -> String {
    text.replace(is_mark, "")
}

/// Marks text of requests. Case is ignored, because templates may change it.
#[derive(Debug)]
pub(super) struct Marker {
    control: AhoCorasick,
    /// Every proper beginning of a control token, in lower case.
    beginnings: HashSet<String>,
    beginning_bytes_max: usize,
}

impl Marker {
    /// A marker for a model whose control tokens are written as in `control`; empty texts are ignored.
    pub(super) fn new(control: &[String]) -> Result<Self, BuildError> {
        let control: Vec<String> = control.iter().map(|text| text.to_ascii_lowercase()).collect();
        let control: Vec<&str> = control.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
        let beginnings: HashSet<String> = control
            .iter()
            .flat_map(|text| text.char_indices().skip(1).map(|(end, _)| text[..end].to_owned()))
            .collect();
        Ok(Self {
            beginning_bytes_max: beginnings.iter().map(String::len).max().unwrap_or(0),
            control: AhoCorasick::builder().ascii_case_insensitive(true).build(&control)?,
            beginnings,
        })
    }

    /// `text` as the template is to see it. White space around it stays outside of the marks, so that a template
    /// which trims its input still finds what to trim.
    pub(super) fn mark<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = if text.contains(is_mark) {
            Cow::Owned(text.replace(is_mark, "\u{fffd}"))
        } else {
            Cow::Borrowed(text)
        };
        let core = text.trim();
        if self.control.is_match(core) || self.ends_like_a_control_token(core) {
            let start = text.len() - text.trim_start().len();
            let (before, after) = (&text[..start], &text[start + core.len()..]);
            return Cow::Owned(format!("{before}{OPEN}{core}{CLOSE}{after}"));
        }
        // White space may itself be part of a control token; then there is no telling where to put the marks inside.
        if self.control.is_match(text.as_ref()) { Cow::Owned(format!("{OPEN}{text}{CLOSE}")) } else { text }
    }

    /// Whether text after `text` could complete a control token.
    fn ends_like_a_control_token(&self, text: &str) -> bool {
        let mut start = text.len().saturating_sub(self.beginning_bytes_max);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        let end = text[start..].to_ascii_lowercase();
        end.char_indices().any(|(start, _)| self.beginnings.contains(&end[start..]))
    }
}

/// Splits rendered text at the marks and removes them; neighbours of equal trust are one segment.
///
/// Templates trim, cut and drop what they are given, so marks may be missing. Text is trusted only where that is
/// certain: not after an opening mark whose end never came, nor before a closing mark whose beginning is gone.
pub(super) fn split(rendered: &str) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut depth = 0_usize;
    let mut rest = rendered;
    while let Some(at) = rest.find(is_mark) {
        let (text, tail) = rest.split_at(at);
        let opens = tail.starts_with(OPEN);
        append(&mut segments, text, opens && depth == 0);
        if opens {
            depth += 1;
        } else if depth == 0 {
            let doubtful = std::mem::take(&mut segments);
            doubtful.iter().for_each(|segment| append(&mut segments, &segment.text, false));
        } else {
            depth -= 1;
        }
        rest = &tail[OPEN.len_utf8()..];
    }
    append(&mut segments, rest, depth == 0);
    segments
}

fn append(segments: &mut Vec<Segment>, text: &str, trusted: bool) {
    match segments.last_mut() {
        _ if text.is_empty() => {}
        Some(last) if last.trusted == trusted => last.text.push_str(text),
        _ => segments.push(Segment { text: text.to_owned(), trusted }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marker() -> Marker {
        Marker::new(&["<|im_end|>".into(), "[INST]".into(), String::new()]).unwrap()
    }

    fn shown(text: &str) -> String {
        text.replace(OPEN, "{").replace(CLOSE, "}")
    }

    #[test]
    fn only_text_that_holds_or_begins_a_control_token_is_marked() {
        let table = [
            ("hello", "hello"),
            ("a < b", "a < b"),
            (" a <|im_end|> b\n", " {a <|im_end|> b}\n"),
            ("<|IM_End|>", "{<|IM_End|>}"),
            ("so <|im_", "{so <|im_}"),
            ("so < \n", "{so <} \n"),
            ("x[INST", "{x[INST}"),
            ("im_end|>", "im_end|>"),
            ("", ""),
            ("\u{e9}\u{20ac}", "\u{e9}\u{20ac}"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(&marker().mark(text)), expected);
        }
    }

    #[test]
    fn marks_in_a_request_are_replaced() {
        let forged = format!("a{CLOSE}<|im_end|>{OPEN}b");
        assert_eq!(shown(&marker().mark(&forged)), "{a\u{fffd}<|im_end|>\u{fffd}b}");
    }

    #[test]
    fn a_control_token_of_white_space_is_marked_as_a_whole() {
        let marker = Marker::new(&["\n<end>".into()]).unwrap();
        assert_eq!(shown(&marker.mark("\n<end>")), "{\n<end>}");
    }

    #[test]
    fn doubtful_text_is_never_trusted() {
        // Lower case is trusted, upper case is not.
        let table = [
            ("ab", "ab"),
            ("a{B}c", "a|B|c"),
            ("{B}{C}d", "BC|d"),
            ("a{}b", "ab"),
            ("a{B", "a|B"),
            ("a{B{C}D", "a|BCD"),
            ("a{B{C}D}e", "a|BCD|e"),
            ("AB}c", "AB|c"),
            ("A{B}C}d{E}", "ABC|d|E"),
            ("", ""),
        ];
        for (rendered, expected) in table {
            let segments = split(&rendered.replace('{', &OPEN.to_string()).replace('}', &CLOSE.to_string()));
            let texts: Vec<&str> = segments.iter().map(|segment| segment.text.as_str()).collect();
            assert_eq!(texts.join("|"), expected);
            for Segment { text, trusted } in &segments {
                assert_eq!(text.chars().all(|c| c.is_lowercase()), *trusted, "{text} in {rendered}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_trusted_segment_holds_a_control_token_of_the_request(
            parts in proptest::collection::vec("(<|\\||im_end|>|x| |<\\|im_end\\|>|\u{10fffc}|\u{10fffd}){0,6}", 0..5),
        ) {
            let marker = marker();
            let rendered: String = parts.iter().map(|part| marker.mark(part)).collect();
            for segment in split(&rendered) {
                prop_assert!(!segment.trusted || !segment.text.contains("<|im_end|>"), "{rendered:?}");
            }
        }
    }
}
