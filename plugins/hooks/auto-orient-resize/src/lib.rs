//! Turns and shrinks pictures on their way into a model.

mod rules;

use bindings::exports::pajamas::hook::image::{self, Context, Guest, Picture, Placement, Verdict};
use hook_common::picture::Rgb;

pub use rules::{Changed, Rules};

hook_common::hook! {
    world: "image-hook",
    name: "auto-orient-resize",
    summary: "Turns pictures to landscape or portrait and limits their size."
}

impl Guest for Hook {
    fn input(_: Context, picture: Picture) -> Verdict {
        change(&picture).unwrap_or_else(Verdict::Reject)
    }
}

fn change(picture: &Picture) -> Result<Verdict, String> {
    let picture = Rgb::new(picture.width, picture.height, &picture.pixels)?;
    let Some(changed) = rules()?.apply(picture) else { return Ok(Verdict::Pass) };
    let ([xx, xy, x0], [yx, yy, y0]) = changed.placement();
    let Changed { width, height, pixels, .. } = changed;
    Ok(Verdict::Change(image::Changed {
        picture: Picture { width, height, pixels },
        placement: Some(Placement { xx, xy, x0, yx, yy, y0 }),
    }))
}
