//! Takes addresses, numbers and keys out of what goes into a model and what comes out of it.

mod kinds;
mod redactor;
mod rules;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bindings::exports::pajamas::hook::text::{Context, Guest, Message, Piece, Verdict};

pub use kinds::Kind;
pub use redactor::{Redactor, redact};
pub use rules::{HELD_BYTES_MAX, Rules};

hook_common::hook! {
    world: "text-hook",
    name: "redact",
    summary: "Takes addresses, numbers and keys out of prompts and answers."
}

/// The texts that this request's answers are, by number.
static ANSWERS: Mutex<BTreeMap<u32, Redactor>> = Mutex::new(BTreeMap::new());

impl Guest for Hook {
    fn input(_: Context, mut messages: Vec<Message>) -> Verdict {
        let rules = match rules() {
            Ok(rules) if rules.in_input() => rules,
            Ok(_) => return Verdict::Pass,
            Err(error) => return Verdict::Reject(error),
        };
        let mut is_changed = false;
        for message in &mut messages {
            let redacted = redact(rules, &message.content);
            is_changed |= redacted != message.content;
            message.content = redacted;
        }
        if is_changed { Verdict::Change(messages) } else { Verdict::Pass }
    }

    fn output(_: Context, answer: u32, text: String, last: bool) -> Piece {
        let rules = match rules() {
            Ok(rules) if rules.in_output() => rules,
            Ok(_) => return Piece::Pass,
            Err(error) => return Piece::Reject(error),
        };
        let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        let out = answers.entry(answer).or_default().push(rules, &text, last);
        if last {
            answers.remove(&answer);
        }
        if out == text { Piece::Pass } else { Piece::Change(out) }
    }
}
