//! Gives chats a system message.

mod bindings;
mod rules;

use std::sync::OnceLock;

use bindings::exports::pajamas::hook::info::{Description, Guest as Info};
use bindings::exports::pajamas::hook::text::{self, Context, Guest as Text, Piece, Verdict};
use bindings::pajamas::hook::config;

pub use rules::{Message, Rules};

/// The hook.
pub struct Hook;

fn rules() -> &'static Result<Rules, String> {
    static RULES: OnceLock<Result<Rules, String>> = OnceLock::new();
    RULES.get_or_init(|| Rules::parse(&config::get()))
}

impl Info for Hook {
    fn describe() -> Result<Description, String> {
        rules().as_ref().map_err(String::clone)?;
        Ok(Description {
            name: "system-prompt".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Gives chats a system message, or changes the one that they have.".to_owned(),
        })
    }
}

impl Text for Hook {
    fn input(context: Context, messages: Vec<text::Message>) -> Verdict {
        let rules = match rules() {
            Ok(rules) => rules,
            Err(error) => return Verdict::Reject(error.clone()),
        };
        let messages = messages.into_iter().map(Message::from).collect();
        match rules.apply(&context.task, &context.model, messages) {
            None => Verdict::Pass,
            Some(messages) => Verdict::Change(messages.into_iter().map(text::Message::from).collect()),
        }
    }

    fn output(_: Context, _: u32, _: String, _: bool) -> Piece {
        Piece::Pass
    }
}

impl From<text::Message> for Message {
    fn from(text::Message { source, role, content }: text::Message) -> Self {
        Self { source, role, content }
    }
}

impl From<Message> for text::Message {
    fn from(Message { source, role, content }: Message) -> Self {
        Self { source, role, content }
    }
}
