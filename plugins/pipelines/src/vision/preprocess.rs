//! What is done to a picture before a classifier or a CLIP sees it, as Hugging Face's `preprocessor_config.json` says.
//!
//! The fields are those of `transformers` 4.57's image processors: [`FIELDS`]. The order is theirs too: scale, crop,
//! rescale, normalise.

use pajamas_plugin_api::Error;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::input::{ImageInput, Normalization};
use super::picture::{Canvas, Filter, Picture};
use crate::files::Folder;

/// The file that says it.
const FILE: &str = "preprocessor_config.json";

/// The fields that are read; in the option `preprocess` others are an error.
const FIELDS: &[&str] = &[
    "crop_pct",
    "crop_size",
    "do_center_crop",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "include_top",
    "resample",
    "rescale_factor",
    "rescale_offset",
    "size",
];

/// ConvNeXt's processors cut a margin off below this size.
const CROP_PCT_BELOW: u32 = 384;

/// Mean and standard deviation of ImageNet's colours.
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Mean and standard deviation of the colours that OpenAI's CLIPs were trained with.
const CLIP: ([f64; 3], [f64; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]);

/// What is done to a picture.
#[derive(Clone, Debug)]
pub(super) struct Preprocess {
    scale: Option<Scale>,
    crop: Option<Size>,
    filter: Filter,
    pub(super) normalization: Normalization,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// To this size, whatever the picture's shape.
    To(Size),
    /// Until the shorter side has so many pixels.
    ShorterSide(u32),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    do_resize: Option<bool>,
    size: Option<SizeConfig>,
    resample: Option<Resample>,
    do_center_crop: Option<bool>,
    crop_size: Option<SizeConfig>,
    crop_pct: Option<f64>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    rescale_offset: bool,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    include_top: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, {height, width} or {shortest_edge}")]
enum SizeConfig {
    Number(u32),
    Sides { height: u32, width: u32 },
    Shortest { shortest_edge: u32 },
}

/// Pillow's numbers of its filters, or their names.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected Pillow's number of a filter, 0 to 5, or its name, such as \"bicubic\""
)]
enum Resample {
    Number(u8),
    Name(ResampleName),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResampleName {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Preprocess {
    /// What a model's `preprocessor_config.json` says, or `usual` where it has none; the fields of the option
    /// `preprocess` replace those of either. The pictures have the size that `input` takes.
    ///
    /// # Errors
    /// A field is unknown, has a wrong value, or does not fit another field or the network.
    pub(super) fn of_model(
        folder: Option<&Folder>,
        usual: &Map<String, Value>,
        option: &Map<String, Value>,
        input: &ImageInput,
    ) -> Result<Self, Error> {
        if let Some(unknown) = option.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(Error::invalid(format!(
                "option `preprocess`: unknown field `{unknown}`, possible are {}",
                FIELDS.join(", ")
            )));
        }
        let file = match folder {
            Some(folder) => folder.json::<Map<String, Value>>(FILE)?,
            None => None,
        };
        let planned = Self::of_layers([file.as_ref().unwrap_or(usual), option])
            .and_then(|plan| plan.check_fits(input).map(|()| plan));
        planned.map_err(|reason| match file {
            Some(_) if option.is_empty() => Error::bad_model(format!("{FILE}: {reason}")),
            _ => Error::invalid(format!("option `preprocess`: {reason}")),
        })
    }

    fn of_layers(layers: [&Map<String, Value>; 2]) -> Result<Self, String> {
        let mut merged = Map::new();
        for layer in layers {
            let known =
                layer.iter().filter(|(name, value)| FIELDS.contains(&name.as_str()) && !value.is_null());
            merged.extend(known.map(|(name, value)| (name.clone(), value.clone())));
        }
        let config: Config = serde_path_to_error::deserialize(Value::Object(merged))
            .map_err(|error| format!("`{}`: {}", error.path(), error.inner()))?;
        config.plan()
    }

    /// Checks that the network takes what comes out, which needs one size for all pictures.
    fn check_fits(&self, input: &ImageInput) -> Result<(), String> {
        let (width, height) = self
            .size()
            .ok_or("the model needs pictures of one size: set `size` to {height, width}, or `crop_size`")?;
        let fits = |fixed: Option<u32>, side: u32| fixed.is_none_or(|fixed| fixed == side);
        if fits(input.width, width) && fits(input.height, height) {
            return Ok(());
        }
        let side = |fixed: Option<u32>| fixed.map_or_else(|| "any".to_owned(), |side| side.to_string());
        Err(format!(
            "pictures become {width} by {height} pixels, and the network takes {} by {}",
            side(input.width),
            side(input.height)
        ))
    }

    /// Width and height of every picture that comes out; `None` if they differ.
    pub(super) fn size(&self) -> Option<(u32, u32)> {
        match (self.crop, self.scale) {
            (Some(size), _) | (None, Some(Scale::To(size))) => Some((size.width, size.height)),
            _ => None,
        }
    }

    /// Scales and crops a picture.
    ///
    /// # Errors
    /// The picture is so long and narrow that it would have more than 2^26 pixels.
    pub(super) fn apply(&self, picture: &Picture<'_>) -> Result<Canvas, Error> {
        let size = match self.scale {
            Some(Scale::To(size)) => size,
            Some(Scale::ShorterSide(pixels)) => shorter_side(picture, pixels),
            None => Size { width: picture.width, height: picture.height },
        };
        let scaled = picture.scaled(size.width, size.height, self.filter)?;
        match self.crop {
            Some(crop) => scaled.center_crop(crop.width, crop.height),
            None => Ok(scaled),
        }
    }
}

/// The size at which the shorter side has so many pixels; the longer one is rounded down, as `transformers` and
/// `torchvision` do.
fn shorter_side(picture: &Picture<'_>, pixels: u32) -> Size {
    let (short, long) = (picture.width.min(picture.height), picture.width.max(picture.height));
    let scaled = u64::from(pixels) * u64::from(long) / u64::from(short);
    let scaled = u32::try_from(scaled).unwrap_or(u32::MAX);
    if picture.width <= picture.height {
        Size { width: pixels, height: scaled }
    } else {
        Size { width: scaled, height: pixels }
    }
}

impl Config {
    fn plan(&self) -> Result<Preprocess, String> {
        let (scale, margin_crop) = self.scale()?;
        let crops = self.do_center_crop.unwrap_or(self.crop_size.is_some());
        let crop = match self.crop_size.filter(|_| crops) {
            Some(size) => Some(size.sides()?),
            None if crops => return Err("`do_center_crop` is set, and `crop_size` is missing".to_owned()),
            None => margin_crop,
        };
        Ok(Preprocess { scale, crop, filter: self.filter()?, normalization: self.normalization()? })
    }

    /// The scaling, and the crop that belongs to it where `crop_pct` is set.
    fn scale(&self) -> Result<(Option<Scale>, Option<Size>), String> {
        if !self.do_resize.unwrap_or(true) {
            return Ok((None, None));
        }
        let size = self.size.ok_or("`size` is missing")?;
        if let Some(part) = self.crop_pct {
            let side = size.shortest()?;
            let size = Size { width: side, height: side };
            if side >= CROP_PCT_BELOW {
                return Ok((Some(Scale::To(size)), None));
            }
            if !(0.1..=1.0).contains(&part) {
                return Err(format!("`crop_pct` is {part}, and 0.1 to 1 is possible"));
            }
            return Ok((Some(Scale::ShorterSide((f64::from(side) / part) as u32)), Some(size)));
        }
        let scale = match size {
            // Older files have one number: processors that crop mean the shorter side, the others both sides.
            SizeConfig::Number(side) if self.do_center_crop == Some(true) => Scale::ShorterSide(side),
            SizeConfig::Shortest { shortest_edge } => Scale::ShorterSide(shortest_edge),
            size => Scale::To(size.sides()?),
        };
        if scale == Scale::ShorterSide(0) {
            return Err("`size` is 0".to_owned());
        }
        Ok((Some(scale), None))
    }

    fn filter(&self) -> Result<Filter, String> {
        use ResampleName::{Bicubic, Bilinear, Box, Hamming, Lanczos, Nearest};
        Ok(match self.resample {
            Some(Resample::Number(0) | Resample::Name(Nearest)) => Filter::Nearest,
            Some(Resample::Number(1) | Resample::Name(Lanczos)) => Filter::Lanczos,
            None | Some(Resample::Number(2) | Resample::Name(Bilinear)) => Filter::Bilinear,
            Some(Resample::Number(3) | Resample::Name(Bicubic)) => Filter::Bicubic,
            Some(Resample::Number(4) | Resample::Name(Box)) => Filter::Box,
            Some(Resample::Number(5) | Resample::Name(Hamming)) => Filter::Hamming,
            Some(Resample::Number(other)) => {
                return Err(format!("`resample` is {other}, and 0 to 5 is possible"));
            }
        })
    }

    fn normalization(&self) -> Result<Normalization, String> {
        let factor =
            if self.do_rescale.unwrap_or(true) { self.rescale_factor.unwrap_or(1.0 / 255.0) } else { 1.0 };
        let offset = if self.rescale_offset { -1.0 } else { 0.0 };
        let (mut mean, mut std) = ([0.0; 3], [1.0; 3]);
        if self.do_normalize.unwrap_or(true) {
            mean = self.image_mean.ok_or("`image_mean` is missing")?;
            std = self.image_std.ok_or("`image_std` is missing")?;
        }
        if self.include_top {
            // EfficientNet's processor divides a second time.
            let again = self.image_std.ok_or("`image_std` is missing")?;
            for (std, again) in std.iter_mut().zip(again) {
                *std *= again;
            }
        }
        if std.contains(&0.0) {
            return Err("`image_std` has a 0".to_owned());
        }
        Ok(Normalization::new(factor, offset, mean, std))
    }
}

impl SizeConfig {
    fn sides(self) -> Result<Size, String> {
        let size = match self {
            Self::Number(side) => Size { width: side, height: side },
            Self::Sides { height, width } => Size { width, height },
            Self::Shortest { shortest_edge } => Size { width: shortest_edge, height: shortest_edge },
        };
        if size.width == 0 || size.height == 0 { Err("a size is 0".to_owned()) } else { Ok(size) }
    }

    fn shortest(self) -> Result<u32, String> {
        let size = self.sides()?;
        Ok(size.width.min(size.height))
    }
}

/// The usual evaluation of ImageNet classifiers, for a network that comes without a file: the shorter side becomes 256
/// for an input of 224, and the middle is cut out.
pub(super) fn imagenet_fields(side: u32) -> Map<String, Value> {
    fields(u32::try_from(u64::from(side) * 256 / 224).unwrap_or(side), side, "bilinear", IMAGENET)
}

/// The preprocessing of OpenAI's CLIPs.
pub(super) fn clip_fields(side: u32) -> Map<String, Value> {
    fields(side, side, "bicubic", CLIP)
}

/// The preprocessing of ultralytics' classifiers.
pub(super) fn ultralytics_fields(side: u32) -> Map<String, Value> {
    fields(side, side, "bilinear", ([0.0; 3], [1.0; 3]))
}

fn fields(shortest: u32, crop: u32, resample: &str, colours: ([f64; 3], [f64; 3])) -> Map<String, Value> {
    let fields = json!({
        "size": { "shortest_edge": shortest },
        "do_center_crop": true,
        "crop_size": { "height": crop, "width": crop },
        "resample": resample,
        "image_mean": colours.0,
        "image_std": colours.1,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(fields: Value) -> Result<Preprocess, String> {
        let Value::Object(fields) = fields else { panic!("{fields} is no object") };
        Preprocess::of_layers([&fields, &Map::new()])
    }

    #[test]
    fn the_files_of_known_models_are_understood() {
        let norm = json!({ "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5] });
        // google/vit-base-patch16-224, the same in its older form, openai/clip-vit-base-patch32, facebook/convnext-tiny-224,
        // convnext-base-384, google/mobilenet_v2_1.0_224, google/efficientnet-b0
        let cases = [
            (
                json!({ "size": { "height": 224, "width": 224 }, "resample": 2 }),
                ((500, 400), (224, 224), None),
            ),
            (json!({ "size": 224, "resample": 2 }), ((500, 400), (224, 224), None)),
            (
                json!({ "size": 224, "do_center_crop": true, "crop_size": 224, "resample": 3 }),
                ((500, 400), (280, 224), Some((224, 224))),
            ),
            (
                json!({ "size": { "shortest_edge": 224 }, "crop_pct": 0.875 }),
                ((400, 500), (256, 320), Some((224, 224))),
            ),
            (json!({ "size": { "shortest_edge": 384 }, "crop_pct": 1.0 }), ((400, 500), (384, 384), None)),
            (
                json!({ "size": { "shortest_edge": 256 }, "do_center_crop": true, "crop_size": { "height": 224, "width": 224 } }),
                ((100, 100), (256, 256), Some((224, 224))),
            ),
            (
                json!({ "size": { "height": 224, "width": 224 }, "do_center_crop": false, "crop_size": { "height": 289, "width": 289 } }),
                ((100, 100), (224, 224), None),
            ),
        ];
        for (mut fields, ((width, height), scaled, crop)) in cases {
            fields.as_object_mut().unwrap().extend(norm.as_object().unwrap().clone());
            let plan = plan(fields.clone()).unwrap();
            let pixels = vec![0; width as usize * height as usize * 3];
            let picture = Picture::new(width, height, &pixels).unwrap();
            let size = match plan.scale.unwrap() {
                Scale::To(size) => size,
                Scale::ShorterSide(side) => shorter_side(&picture, side),
            };
            assert_eq!((size.width, size.height), scaled, "{fields}");
            assert_eq!(plan.crop.map(|crop| (crop.width, crop.height)), crop, "{fields}");
            let canvas = plan.apply(&picture).unwrap();
            assert_eq!((canvas.width, canvas.height), crop.unwrap_or(scaled), "{fields}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let cases = [
            (json!({}), "`size` is missing"),
            (json!({ "size": 224 }), "`image_mean` is missing"),
            (json!({ "size": { "longest_edge": 3 } }), "`size`: expected a number of pixels"),
            (json!({ "size": 0 }), "a size is 0"),
            (json!({ "size": 224, "do_center_crop": true }), "`crop_size` is missing"),
            (json!({ "size": 224, "do_normalize": false, "resample": 9 }), "`resample` is 9"),
            (json!({ "size": 224, "image_mean": [0, 0, 0], "image_std": [1, 0, 1] }), "`image_std` has a 0"),
        ];
        for (fields, expected) in cases {
            let message = plan(fields.clone()).unwrap_err();
            assert!(message.contains(expected), "{fields}: {message}");
        }
    }

    #[test]
    fn a_long_and_narrow_picture_is_refused() {
        let pixels = vec![0; 100_000 * 3];
        let picture = Picture::new(1, 100_000, &pixels).unwrap();
        let message =
            plan(Value::Object(imagenet_fields(224))).unwrap().apply(&picture).unwrap_err().to_string();
        assert!(message.contains("256 by 25600000"), "{message}");
    }
}
