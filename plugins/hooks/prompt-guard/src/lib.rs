//! Refuses prompts by their words and their size.

mod rules;

use bindings::exports::pajamas::hook::text::{self, Context, Guest, Piece, Verdict};
use bindings::pajamas::hook::log;

pub use rules::{Message, Refusal, Rules};

hook_common::hook! {
    world: "text-hook",
    name: "prompt-guard",
    summary: "Refuses prompts by their words and their size."
}

impl Guest for Hook {
    fn input(_: Context, messages: Vec<text::Message>) -> Verdict {
        check(&messages).map_or_else(Verdict::Reject, |()| Verdict::Pass)
    }

    fn output(_: Context, _: u32, _: String, _: bool) -> Piece {
        Piece::Pass
    }
}

/// The error is what the client is told.
fn check(messages: &[text::Message]) -> Result<(), String> {
    let seen: Vec<_> =
        messages.iter().map(|message| Message { role: &message.role, content: &message.content }).collect();
    match rules()?.check(&seen) {
        None => Ok(()),
        Some(Refusal { message, reason }) => {
            log::write(log::Level::Info, &format!("refused: {reason}"));
            Err(message)
        }
    }
}
