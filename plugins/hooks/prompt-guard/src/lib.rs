//! Refuses prompts by their words and their size.

mod bindings;
mod rules;

use std::sync::OnceLock;

use bindings::exports::pajamas::hook::info::{Description, Guest as Info};
use bindings::exports::pajamas::hook::text::{self, Context, Guest as Text, Piece, Verdict};
use bindings::pajamas::hook::{config, log};

pub use rules::{Message, Refusal, Rules};

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
            name: "prompt-guard".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Refuses prompts by their words and their size.".to_owned(),
        })
    }
}

impl Text for Hook {
    fn input(_: Context, messages: Vec<text::Message>) -> Verdict {
        let rules = match rules() {
            Ok(rules) => rules,
            Err(error) => return Verdict::Reject(error.clone()),
        };
        let seen: Vec<_> = messages
            .iter()
            .map(|message| Message { role: &message.role, content: &message.content })
            .collect();
        match rules.check(&seen) {
            None => Verdict::Pass,
            Some(Refusal { message, reason }) => {
                log::write(log::Level::Info, &format!("refused: {reason}"));
                Verdict::Reject(message)
            }
        }
    }

    fn output(_: Context, _: u32, _: String, _: bool) -> Piece {
        Piece::Pass
    }
}
