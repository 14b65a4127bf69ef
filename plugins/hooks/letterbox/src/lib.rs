//! Makes a model's input tensor of a picture.

mod canvas;
mod rules;

use bindings::exports::pajamas::hook::tensor::{
    Context, Dtype, Guest, NamedTensor, Picture, Source, Verdict,
};

pub use rules::{Element, Rules};

hook_common::hook! {
    world: "tensor-hook",
    name: "letterbox",
    summary: "Makes a model's input tensor of a picture, centred and padded."
}

impl Guest for Hook {
    fn convert(_: Context, name: String, source: Source) -> Verdict {
        match source {
            Source::Picture(picture) => tensor(name, picture).map_or_else(Verdict::Reject, Verdict::Tensors),
            Source::Sound(_) => Verdict::Pass,
        }
    }
}

fn tensor(name: String, picture: Picture) -> Result<Vec<NamedTensor>, String> {
    let rules = rules()?;
    let data = rules.tensor(picture.width, picture.height, picture.pixels)?;
    let dtype = match rules.element() {
        Element::F32 => Dtype::F32,
        Element::F16 => Dtype::F16,
        Element::U8 => Dtype::U8,
    };
    let name = rules.name().map_or(name, str::to_owned);
    Ok(vec![NamedTensor { name, dtype, shape: rules.shape(), data }])
}
