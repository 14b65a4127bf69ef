//! Cuts silence off both ends of sound.

mod bindings;
mod rules;

use std::sync::OnceLock;

use bindings::exports::pajamas::hook::audio::{Changed, Context, Guest as Audio, Sound, Verdict};
use bindings::exports::pajamas::hook::info::{Description, Guest as Info};
use bindings::pajamas::hook::config;

pub use rules::{Cut, Rules, keep};

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
            name: "trim-silence".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Cuts silence off both ends of sound.".to_owned(),
        })
    }
}

impl Audio for Hook {
    fn input(_: Context, mut sound: Sound) -> Verdict {
        let rules = match rules() {
            Ok(rules) => rules,
            Err(error) => return Verdict::Reject(error.clone()),
        };
        match rules.cut(sound.sample_rate_hz, &sound.samples) {
            Cut::Pass => Verdict::Pass,
            Cut::Reject(message) => Verdict::Reject(message),
            Cut::Keep(range) => {
                let starts_at_s = range.start as f64 / f64::from(sound.sample_rate_hz);
                keep(&mut sound.samples, range);
                Verdict::Change(Changed { sound, starts_at_s })
            }
        }
    }
}
