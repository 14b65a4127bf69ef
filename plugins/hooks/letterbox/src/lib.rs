//! Makes a model's input tensor of a picture.

mod bindings;
mod canvas;
mod rules;

use std::sync::OnceLock;

use bindings::exports::pajamas::hook::info::{Description, Guest as Info};
use bindings::exports::pajamas::hook::tensor::{
    Context, Dtype, Guest as Tensor, NamedTensor, Source, Verdict,
};
use bindings::pajamas::hook::config;
use hook_common::picture::Rgb;

pub use rules::{Element, Rules};

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
            name: "letterbox".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Makes a model's input tensor of a picture, centred and padded.".to_owned(),
        })
    }
}

impl Tensor for Hook {
    fn convert(_: Context, name: String, source: Source) -> Verdict {
        let Source::Picture(picture) = source else { return Verdict::Pass };
        let rules = match rules() {
            Ok(rules) => rules,
            Err(error) => return Verdict::Reject(error.clone()),
        };
        let Some(picture) = Rgb::new(picture.width, picture.height, &picture.pixels) else {
            return Verdict::Reject("the picture has another size than it says".to_owned());
        };
        let dtype = match rules.element() {
            Element::F32 => Dtype::F32,
            Element::F16 => Dtype::F16,
            Element::U8 => Dtype::U8,
        };
        let name = rules.name().map_or(name, str::to_owned);
        Verdict::Tensors(vec![NamedTensor { name, dtype, shape: rules.shape(), data: rules.tensor(picture) }])
    }
}
