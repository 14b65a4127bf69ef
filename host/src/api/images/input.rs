//! The body of a request with pictures: a form with files, or JSON with base64.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};

use crate::api::aside;
use crate::api::error::ApiError;
use crate::api::limits::{FINDINGS_MAX, IMAGES_MAX};
use crate::api::meta;
use crate::api::multipart::{Body, Form};

/// The names of a form's field with a picture.
const FILE_FIELDS: &[&str] = &["image", "image[]", "images", "images[]", "file"];

/// A model and pictures for it, as files.
#[derive(Debug)]
pub(super) struct Input {
    /// The model's name.
    pub(super) model: String,
    /// Each picture with its place in the request, for errors.
    pub(super) images: Vec<(String, Bytes)>,
}

/// Everything that the routes for pictures know, as it was sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fields {
    model: Option<String>,
    image: Option<Images>,
    images: Option<Images>,
    /// The least confidence of a box.
    #[serde(alias = "confidence")]
    pub(super) confidence_min: Option<f32>,
    /// How much two boxes may overlap: intersection over union.
    #[serde(alias = "iou")]
    pub(super) overlap_max: Option<f32>,
    /// The most boxes.
    #[serde(alias = "max_detections")]
    pub(super) detections_max: Option<u32>,
    /// The most classes.
    #[serde(alias = "top_k")]
    pub(super) classes_max: Option<u32>,
    /// How vectors are written.
    pub(super) encoding_format: Option<String>,
    /// The length of vectors.
    pub(super) dimensions: Option<usize>,
    /// The pictures of a form.
    #[serde(skip)]
    files: Vec<(String, Bytes)>,
}

/// One picture or several, as text.
#[derive(Debug)]
struct Images(Vec<String>);

/// Reads a body of either type, a large one outside the threads that serve requests: its base64 takes time.
///
/// # Errors
/// A field has a wrong type or a value that is not allowed, or there are no pictures, or too many.
pub(super) async fn read(body: Body) -> Result<(Fields, Input), ApiError> {
    aside::by_size(body.len(), move || read_here(&body)).await
}

/// As [`read`], on this thread.
pub(super) fn read_here(body: &Body) -> Result<(Fields, Input), ApiError> {
    let mut fields = match body {
        Body::Json(body) => body.read()?,
        Body::Form(form) => Fields::of_form(form)?,
    };
    fields.check()?;
    let input = fields.input()?;
    Ok((fields, input))
}

impl Fields {
    fn input(&mut self) -> Result<Input, ApiError> {
        let model = meta::model_name(self.model.take())?;
        let mut images = std::mem::take(&mut self.files);
        for (name, texts) in [("image", self.image.take()), ("images", self.images.take())] {
            let texts = texts.map_or_else(Vec::new, |texts| texts.0);
            check_count(name, images.len() + texts.len())?;
            let is_one = texts.len() == 1 && name == "image";
            for (index, text) in texts.iter().enumerate() {
                let place = if is_one { name.to_owned() } else { format!("{name}[{index}]") };
                let bytes = decode(&place, text)?;
                images.push((place, bytes));
            }
        }
        check_count("image", images.len())?;
        if images.is_empty() {
            let expected = "a picture as a file, or in JSON as base64 or a data URL";
            return Err(ApiError::missing("image", expected));
        }
        Ok(Input { model, images })
    }

    fn of_form(form: &Form) -> Result<Self, ApiError> {
        let either = |name: &'static str, alias: &'static str| {
            if form.text(name).is_ok_and(|text| text.is_some()) { name } else { alias }
        };
        Ok(Self {
            model: form.text("model")?,
            confidence_min: form.parse(either("confidence_min", "confidence"), "a number from 0 to 1")?,
            overlap_max: form.parse(either("overlap_max", "iou"), "a number from 0 to 1")?,
            detections_max: form.parse(either("detections_max", "max_detections"), "a whole number")?,
            classes_max: form.parse(either("classes_max", "top_k"), "a whole number")?,
            encoding_format: form.text("encoding_format")?,
            dimensions: form.parse("dimensions", "a whole number")?,
            files: form
                .files(FILE_FIELDS)
                .enumerate()
                .map(|(index, (name, bytes))| {
                    let name = name.trim_end_matches("[]");
                    (if index == 0 { name.to_owned() } else { format!("{name}[{index}]") }, bytes.clone())
                })
                .collect(),
            ..Self::default()
        })
    }

    fn check(&self) -> Result<(), ApiError> {
        for (name, value) in [("confidence_min", self.confidence_min), ("overlap_max", self.overlap_max)] {
            if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                return Err(ApiError::invalid(
                    name,
                    format_args!("expected a number from 0 to 1, got {value}"),
                ));
            }
        }
        for (name, value) in [("detections_max", self.detections_max), ("classes_max", self.classes_max)] {
            if let Some(value) = value.filter(|value| !(1..=FINDINGS_MAX).contains(value)) {
                let problem = format_args!("expected a whole number from 1 to {FINDINGS_MAX}, got {value}");
                return Err(ApiError::invalid(name, problem));
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Images {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected base64, a data URL, or an array of them")]
        enum OneOrMany {
            One(String),
            Many(Vec<String>),
        }
        Ok(Self(match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }))
    }
}

fn check_count(name: &str, count: usize) -> Result<(), ApiError> {
    if count > IMAGES_MAX {
        let problem = format_args!("expected at most {IMAGES_MAX} pictures, got {count}");
        return Err(ApiError::invalid(name, problem));
    }
    Ok(())
}

/// The bytes of base64, or of a data URL (RFC 2397) with base64. What a data URL says about the type is not believed.
fn decode(place: &str, text: &str) -> Result<Bytes, ApiError> {
    // Clients leave the padding out, or break lines.
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    let payload = match (scheme.as_deref(), text.split_once(',')) {
        (None, _) => text,
        (Some("data"), Some((head, payload))) if head.to_ascii_lowercase().ends_with(";base64") => payload,
        (Some("data"), _) => {
            return Err(ApiError::invalid(place, "expected a data URL with base64, data:image/png;base64,…"));
        }
        (Some("http" | "https" | "file" | "ftp"), _) => {
            let problem = "this server fetches no URLs, expected the picture as base64 or a data URL";
            return Err(ApiError::invalid(place, problem));
        }
        (Some(_), _) => return Err(ApiError::invalid(place, "expected base64 or a data URL")),
    };
    let decoded = if payload.contains(char::is_whitespace) {
        ENGINE.decode(payload.split_ascii_whitespace().collect::<String>())
    } else {
        ENGINE.decode(payload)
    };
    let wrong = |error| ApiError::invalid(place, format_args!("is not valid base64: {error}"));
    decoded.map(Bytes::from).map_err(wrong)
}
