//! Gives chats a system message.

mod rules;

use bindings::exports::pajamas::hook::text::{self, Context, Guest, Piece, Verdict};

pub use rules::{Message, Rules};

hook_common::hook! {
    world: "text-hook",
    name: "system-prompt",
    summary: "Gives chats a system message, or changes the one that they have."
}

impl Guest for Hook {
    fn input(context: Context, messages: Vec<text::Message>) -> Verdict {
        let rules = match rules() {
            Ok(rules) => rules,
            Err(error) => return Verdict::Reject(error),
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
