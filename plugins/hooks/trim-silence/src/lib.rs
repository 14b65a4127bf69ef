//! Cuts silence off both ends of sound.

mod rules;

use bindings::exports::pajamas::hook::audio::{Changed, Context, Guest, Sound, Verdict};

pub use rules::{Cut, Rules, keep};

hook_common::hook! {
    world: "audio-hook",
    name: "trim-silence",
    summary: "Cuts silence off both ends of sound."
}

impl Guest for Hook {
    fn input(_: Context, mut sound: Sound) -> Verdict {
        let rules = match rules() {
            Ok(rules) => rules,
            Err(error) => return Verdict::Reject(error),
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
