//! Turns and shrinks pictures on their way into a model.

mod bindings;
mod rules;

use std::sync::OnceLock;

use bindings::exports::pajamas::hook::image::{self, Context, Guest as Image, Picture, Placement, Verdict};
use bindings::exports::pajamas::hook::info::{Description, Guest as Info};
use bindings::pajamas::hook::config;
use hook_common::picture::Rgb;

pub use rules::{Changed, Rules};

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
            name: "auto-orient-resize".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Turns pictures to landscape or portrait and limits their size.".to_owned(),
        })
    }
}

impl Image for Hook {
    fn input(_: Context, picture: Picture) -> Verdict {
        let rules = match rules() {
            Ok(rules) => rules,
            Err(error) => return Verdict::Reject(error.clone()),
        };
        let Some(picture) = Rgb::new(picture.width, picture.height, &picture.pixels) else {
            return Verdict::Reject("the picture has another size than it says".to_owned());
        };
        let Some(changed) = rules.apply(picture) else { return Verdict::Pass };
        let ([xx, xy, x0], [yx, yy, y0]) = changed.placement();
        let Changed { width, height, pixels, .. } = changed;
        Verdict::Change(image::Changed {
            picture: Picture { width, height, pixels },
            placement: Some(Placement { xx, xy, x0, yx, yy, y0 }),
        })
    }
}
