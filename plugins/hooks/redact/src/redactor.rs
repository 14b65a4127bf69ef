//! Takes things out of a text that comes in pieces.

use crate::kinds::{Finding, Tail};
use crate::rules::Rules;

/// So much of what has gone out already is kept: whether something begins may depend on what is in front of it.
const CONTEXT_CHARS: usize = 2;

/// The state of one text.
#[derive(Debug)]
pub struct Redactor {
    /// The end of what has gone out, and then what waits.
    kept: String,
    /// How many bytes of it have gone out.
    context: usize,
    /// What is being swallowed.
    tail: Tail,
}

impl Default for Redactor {
    fn default() -> Self {
        Self { kept: String::new(), context: 0, tail: Tail::None }
    }
}

/// A text at once.
#[must_use]
pub fn redact(rules: &Rules, text: &str) -> String {
    Redactor::default().push(rules, text, true)
}

impl Redactor {
    /// Takes the next piece, and returns what may go out. With `last` the text ends, and nothing is held back.
    pub fn push(&mut self, rules: &Rules, piece: &str, last: bool) -> String {
        let joined;
        let text = if self.kept.is_empty() {
            piece
        } else {
            joined = std::mem::take(&mut self.kept) + piece;
            &joined
        };
        let mut out = String::with_capacity(text.len());
        let done = self.scan(rules, text, last, &mut out);
        let context = text[..done].char_indices().rev().nth(CONTEXT_CHARS - 1).map_or(0, |(at, _)| at);
        self.context = done - context;
        self.kept = text[context..].to_owned();
        out
    }

    /// How many bytes wait for more text.
    #[must_use]
    pub fn held(&self) -> usize {
        self.kept.len() - self.context
    }

    /// Writes what may go out of `text` behind its context. Returns up to where the text is done.
    fn scan(&mut self, rules: &Rules, text: &str, last: bool, out: &mut String) -> usize {
        let mut at = self.context;
        // What is between here and `at` goes out unchanged.
        let mut plain = at;
        loop {
            if self.tail != Tail::None {
                let (len, is_done) = self.tail.swallow(text.as_bytes(), at, last);
                at += len;
                plain = at;
                if !is_done {
                    return at;
                }
                self.tail = Tail::None;
            }
            at = rules.next_place(text, at);
            if at == text.len() {
                break;
            }
            match rules.at(text, at, last) {
                (Finding::No, _) => at = text.ceil_char_boundary(at + 1),
                (Finding::More, _) => break,
                (Finding::Found(len, tail), replacement) => {
                    out.push_str(&text[plain..at]);
                    out.push_str(replacement);
                    at += len;
                    plain = at;
                    self.tail = tail;
                }
            }
        }
        out.push_str(&text[plain..at]);
        at
    }
}
