//! Takes addresses, numbers and keys out of what goes into a model and what comes out of it.

mod bindings;
mod kinds;
mod redactor;
mod rules;

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use bindings::exports::pajamas::hook::info::{Description, Guest as Info};
use bindings::exports::pajamas::hook::text::{Context, Guest as Text, Message, Piece, Verdict};
use bindings::pajamas::hook::config;

pub use kinds::Kind;
pub use redactor::{Redactor, redact};
pub use rules::{HELD_BYTES_MAX, Rules};

/// The hook.
pub struct Hook;

fn rules() -> &'static Result<Rules, String> {
    static RULES: OnceLock<Result<Rules, String>> = OnceLock::new();
    RULES.get_or_init(|| Rules::parse(&config::get()))
}

/// The texts that this request's answers are, by number.
static ANSWERS: Mutex<BTreeMap<u32, Redactor>> = Mutex::new(BTreeMap::new());

impl Info for Hook {
    fn describe() -> Result<Description, String> {
        rules().as_ref().map_err(String::clone)?;
        Ok(Description {
            name: "redact".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Takes addresses, numbers and keys out of prompts and answers.".to_owned(),
        })
    }
}

impl Text for Hook {
    fn input(_: Context, mut messages: Vec<Message>) -> Verdict {
        let rules = match rules() {
            Ok(rules) if rules.in_input() => rules,
            Ok(_) => return Verdict::Pass,
            Err(error) => return Verdict::Reject(error.clone()),
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
            Err(error) => return Piece::Reject(error.clone()),
        };
        let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        let out = answers.entry(answer).or_default().push(rules, &text, last);
        if last {
            answers.remove(&answer);
        }
        if out == text { Piece::Pass } else { Piece::Change(out) }
    }
}
