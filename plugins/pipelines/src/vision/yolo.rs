//! The task `detect`, with a YOLO of any family.

use pajamas_plugin_api::{Error, Event, Finish, Flow, Job, ModelInfo, Request, Task, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::input::{ImageInput, Normalization};
use super::labels::Labels;
use super::letterbox::Letterbox;
use super::nms::{self, Candidate};
use super::picture::{Picture, pictures};
use super::yolo_head::{Family, Head, Known};
use crate::numbers;
use crate::open::{Header, Kind};
use crate::options;
use crate::pipeline::Pipeline;
use crate::runner::{TensorRunner, Value};
use crate::tensors;

/// Side of the input where neither the network nor an option says it, in pixels.
const IMAGE_SIZE_DEFAULT: u32 = 640;

/// Longest side of the input, in pixels; an option beyond it is refused.
const IMAGE_SIZE_MAX: u32 = 4096;

/// Options of the pipeline.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Names of the classes, by class id; default: those in the network's metadata, else `class_0`, `class_1` and so on.
    labels: Option<Vec<String>>,
    /// Side of the input in pixels, or height and width, for a network that takes any; default: what the network's
    /// metadata say, else 640.
    image_size: Option<ImageSize>,
    /// The layout of the output, where its shape does not tell.
    head: Option<Family>,
}

/// A size as ultralytics writes it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, or [height, width]")]
enum ImageSize {
    Side(u32),
    HeightWidth([u32; 2]),
}

impl ImageSize {
    fn width_height(self) -> (u32, u32) {
        match self {
            Self::Side(side) => (side, side),
            Self::HeightWidth([height, width]) => (width, height),
        }
    }
}

/// A YOLO.
pub(crate) struct Yolo<R> {
    network: R,
    input: ImageInput,
    size: (u32, u32),
    output: String,
    head: Head,
    labels: Labels,
}

impl<R: TensorRunner> Yolo<R> {
    /// The pipeline of `network`.
    ///
    /// # Errors
    /// The network is no YOLO that detects, or an option is wrong or does not fit it.
    pub(crate) fn open(network: R, options: &Map<String, Json>) -> Result<Self, Error> {
        let options: Options = options::parse(Kind::Yolo, options)?;
        let header = Header::of(&network);
        if let Some(task) = header.metadata.get("task").filter(|task| *task != "detect") {
            return Err(Error::bad_model(format!(
                "the network was exported for the task `{task}`, and the yolo pipeline does `detect`; \
                 `pipeline = \"tensors\"` runs any network"
            )));
        }
        let input = ImageInput::find(&header.inputs, Kind::Yolo)?;
        let size = image_size(&input, &options, &header)?;
        let labels = match &options.labels {
            Some(names) => Labels::new(names.clone()),
            None => {
                header.metadata.get("names").and_then(|text| Labels::from_python(text)).unwrap_or_default()
            }
        };
        let classes = (!labels.is_empty()).then(|| labels.len());
        let known = Known { family: options.head, classes, size };
        // A YOLOv5 may export its three grids too, in five dimensions.
        let output = header.outputs.iter().find(|output| output.shape.len() == 3).ok_or_else(|| {
            Error::bad_model(format!(
                "the yolo pipeline needs a network with an output of three dimensions, and this one has {}",
                tensors::list(&header.outputs)
            ))
        })?;
        let head = Head::of(output, known)?;
        Ok(Self { network, input, size, output: output.name.clone(), head, labels })
    }

    fn detect(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        let params: DetectParams = request.params()?;
        params.check()?;
        let pictures = pictures(request)?;
        let batch_len = self.input.batch_len();
        for (batch, pictures) in pictures.chunks(batch_len).enumerate() {
            if job.is_cancelled() {
                return Ok((Finish::Cancelled, Usage::default()));
            }
            let found = self.boxes(pictures, &params)?;
            for (index, detections) in found.into_iter().enumerate() {
                let found = Found { index: batch * batch_len + index, detections };
                let json = serde_json::to_string(&found)
                    .map_err(|error| Error::internal(format!("detections cannot be written: {error}")))?;
                if job.push(&Event::Detections { json: &json }) == Flow::Cancelled {
                    return Ok((Finish::Cancelled, Usage::default()));
                }
            }
        }
        Ok((Finish::Stop, Usage::default()))
    }

    /// What is in each of the pictures of one batch.
    fn boxes(&self, pictures: &[Picture<'_>], params: &DetectParams) -> Result<Vec<Vec<Detection>>, Error> {
        let letterboxes: Vec<_> = pictures
            .iter()
            .map(|picture| Letterbox::new((picture.width, picture.height), self.size))
            .collect();
        let canvases: Vec<_> = letterboxes
            .iter()
            .zip(pictures)
            .map(|(letterbox, picture)| letterbox.draw(picture))
            .collect::<Result<_, _>>()?;
        let tensor = self.input.tensor(&self.network, &canvases, &Normalization::unit())?;
        let values = self.network.run(&[(self.input.name(), &tensor)], &[&self.output])?;
        let Some(value) = values.first() else {
            return Err(Error::internal("the engine returned no output"));
        };
        let numbers = numbers::to_f32s(value)?;
        let shape: Vec<_> = value.shape().iter().filter_map(|dim| usize::try_from(*dim).ok()).collect();
        let &[count, rows, columns] = shape.as_slice() else {
            return Err(Error::bad_model(format!(
                "the network returned an output of {} dimensions, not 3",
                shape.len()
            )));
        };
        if count < pictures.len() {
            return Err(Error::bad_model(format!(
                "the network returned {count} results for {} pictures",
                pictures.len()
            )));
        }
        let len = rows.saturating_mul(columns);
        letterboxes
            .iter()
            .enumerate()
            .map(|(index, letterbox)| {
                let numbers = numbers.get(index * len..(index + 1) * len).unwrap_or_default();
                let candidates = self.head.candidates(numbers, (rows, columns), params.confidence_min)?;
                let kept = match self.head.family {
                    Family::V10 => nms::best(candidates, params.detections_max),
                    Family::V5 | Family::V8 => {
                        nms::suppress(candidates, params.overlap_max, params.detections_max)
                    }
                };
                Ok(kept.iter().map(|candidate| self.detection(candidate, letterbox)).collect())
            })
            .collect()
    }

    fn detection(&self, candidate: &Candidate, letterbox: &Letterbox) -> Detection {
        let [left, top, right, bottom] = letterbox.picture_box(candidate.corners);
        Detection {
            x: left,
            y: top,
            width: (right - left).max(0.0),
            height: (bottom - top).max(0.0),
            confidence: candidate.confidence.clamp(0.0, 1.0),
            class_id: candidate.class,
            class_name: self.labels.name(candidate.class),
        }
    }
}

/// Width and height of the network's input.
fn image_size(input: &ImageInput, options: &Options, header: &Header) -> Result<(u32, u32), Error> {
    let stride = header.metadata.get("stride").and_then(|text| text.parse::<f64>().ok());
    let stride = stride.map_or(32, |stride| stride as u32).clamp(1, 256);
    let asked = options.image_size.map(ImageSize::width_height);
    let said = || {
        let size: Option<ImageSize> = serde_json::from_str(header.metadata.get("imgsz")?).ok();
        size.map(ImageSize::width_height)
    };
    let (width, height) = asked.or_else(said).unwrap_or((IMAGE_SIZE_DEFAULT, IMAGE_SIZE_DEFAULT));
    let size = (input.width.unwrap_or(width), input.height.unwrap_or(height));
    if let Some((width, height)) = asked.filter(|asked| *asked != size) {
        return Err(Error::invalid(format!(
            "option `image_size`: the network takes {} by {} pixels only, not {width} by {height}",
            size.0, size.1
        )));
    }
    let is_possible = |side: u32| side > 0 && side <= IMAGE_SIZE_MAX && side.is_multiple_of(stride);
    if !is_possible(size.0) || !is_possible(size.1) {
        return Err(Error::invalid(format!(
            "option `image_size`: {} by {} pixels are not possible; both sides must be multiples of {stride}, at most \
             {IMAGE_SIZE_MAX}",
            size.0, size.1
        )));
    }
    Ok(size)
}

impl<R: TensorRunner> Pipeline for Yolo<R> {
    fn describe(&self, info: &mut ModelInfo) {
        tensors::describe(&self.network, info);
        info.labels = self.labels.names(self.head.classes.unwrap_or(self.labels.len()));
    }

    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        match request.task {
            Task::Detect => self.detect(request, job),
            Task::Infer => tensors::infer(&self.network, request, job),
            ref other => Err(tensors::unsupported(other, Kind::Yolo)),
        }
    }
}

/// Parameters of `detect`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct DetectParams {
    confidence_min: f32,
    overlap_max: f32,
    detections_max: usize,
}

impl Default for DetectParams {
    fn default() -> Self {
        Self { confidence_min: 0.25, overlap_max: 0.45, detections_max: 300 }
    }
}

impl DetectParams {
    fn check(&self) -> Result<(), Error> {
        for (name, value) in [("confidence_min", self.confidence_min), ("overlap_max", self.overlap_max)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid(format!("{name} is {value}, and 0 to 1 is possible")));
            }
        }
        Ok(())
    }
}

/// The schema `detect_result`.
#[derive(Debug, Serialize)]
struct Found {
    index: usize,
    detections: Vec<Detection>,
}

#[derive(Debug, Serialize)]
struct Detection {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    confidence: f32,
    class_id: usize,
    class_name: String,
}
