//! The task `classify`.

use pajamas_plugin_api::{Error, Event, Finish, Flow, Job, ModelInfo, Request, Task, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::input::ImageInput;
use super::labels::Labels;
use super::picture::{Picture, pictures};
use super::preprocess::{self, Preprocess};
use crate::files::Folder;
use crate::numbers;
use crate::open::{Header, Kind};
use crate::options;
use crate::pipeline::Pipeline;
use crate::runner::{TensorRunner, Value};
use crate::tensors;

/// Side of the input where nothing says it, in pixels.
const IMAGE_SIZE_DEFAULT: u32 = 224;

/// How far the sum of probabilities may be from 1.
const SUM_TOLERANCE: f32 = 1e-3;

/// Options of the pipeline.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Names of the classes, by class id; default: `id2label` in config.json, else `names` in the network's metadata,
    /// else `class_0`, `class_1` and so on.
    labels: Option<Vec<String>>,
    /// Fields as in preprocessor_config.json, which they replace.
    preprocess: Map<String, Json>,
    /// What makes scores of the network's output.
    activation: Option<Activation>,
}

/// How the network's output becomes scores.
///
/// Without the option: `sigmoid` if config.json says `multi_label_classification`, `softmax` if there is a config.json,
/// else `none` if the numbers of a picture are probabilities already – none is negative and their sum is 1 – and `softmax`
/// if not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Activation {
    Softmax,
    Sigmoid,
    None,
}

/// The parts of config.json that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    id2label: Map<String, Json>,
    problem_type: Option<String>,
}

/// A classifier of pictures.
pub(crate) struct Classify<R> {
    network: R,
    input: ImageInput,
    output: String,
    preprocess: Preprocess,
    activation: Option<Activation>,
    labels: Labels,
}

impl<R: TensorRunner> Classify<R> {
    /// The pipeline of `network`, with the JSON files of `folder` if it has one.
    ///
    /// # Errors
    /// The network is no classifier of pictures, a file is not what it should be, or an option is wrong or does not fit.
    pub(crate) fn open(
        network: R,
        folder: Option<&Folder>,
        options: &Map<String, Json>,
    ) -> Result<Self, Error> {
        let options: Options = options::parse(Kind::Classify, options)?;
        let header = Header::of(&network);
        let config = match folder {
            Some(folder) => folder.json::<Config>("config.json")?,
            None => None,
        };
        let input = ImageInput::find(&header.inputs, Kind::Classify)?;
        let is_ultralytics = match header.metadata.get("task").map(String::as_str) {
            None => false,
            Some("classify") => true,
            Some(task) => {
                return Err(Error::bad_model(format!(
                    "the network was exported for the task `{task}`, and the classify pipeline does `classify`"
                )));
            }
        };
        let side = input.width.unwrap_or(IMAGE_SIZE_DEFAULT);
        let usual = if is_ultralytics {
            preprocess::ultralytics_fields(side)
        } else {
            preprocess::imagenet_fields(side)
        };
        let preprocess = Preprocess::of_model(folder, &usual, &options.preprocess, &input)?;
        let (output, classes) = output(&header)?;
        let labels = labels(options.labels, config.as_ref(), &header);
        if let Some(classes) = classes.filter(|classes| !labels.is_empty() && *classes != labels.len()) {
            return Err(Error::invalid(format!(
                "the network has {classes} classes, and {} have names (option `labels`, config.json or the network's \
                 metadata)",
                labels.len()
            )));
        }
        let activation = options.activation.or_else(|| {
            let is_multi = config.as_ref()?.problem_type.as_deref() == Some("multi_label_classification");
            Some(if is_multi { Activation::Sigmoid } else { Activation::Softmax })
        });
        Ok(Self { network, input, output, preprocess, activation, labels })
    }

    fn classify(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        let params: ClassifyParams = request.params()?;
        let pictures = pictures(request)?;
        let batch_len = self.input.batch_len();
        for (batch, pictures) in pictures.chunks(batch_len).enumerate() {
            if job.is_cancelled() {
                return Ok((Finish::Cancelled, Usage::default()));
            }
            for (index, scores) in self.scores(pictures)?.into_iter().enumerate() {
                let found = Found { classes: self.best(&scores, params.classes_max) };
                let json = serde_json::to_string(&found)
                    .map_err(|error| Error::internal(format!("classes cannot be written: {error}")))?;
                let index = (batch * batch_len + index) as u32;
                if job.push(&Event::Result { index, json: &json }) == Flow::Cancelled {
                    return Ok((Finish::Cancelled, Usage::default()));
                }
            }
        }
        Ok((Finish::Stop, Usage::default()))
    }

    /// The scores of each of the pictures of one batch, by class.
    fn scores(&self, pictures: &[Picture<'_>]) -> Result<Vec<Vec<f32>>, Error> {
        let canvases: Vec<_> =
            pictures.iter().map(|picture| self.preprocess.apply(picture)).collect::<Result<_, _>>()?;
        let tensor = self.input.tensor(&self.network, &canvases, &self.preprocess.normalization)?;
        let values = self.network.run(&[(self.input.name(), &tensor)], &[&self.output])?;
        let Some(value) = values.first() else {
            return Err(Error::internal("the engine returned no output"));
        };
        let numbers = numbers::to_f32s(value)?;
        let count = value.shape().first().and_then(|count| usize::try_from(*count).ok()).unwrap_or(0);
        if count < pictures.len() || numbers.is_empty() {
            return Err(Error::bad_model(format!(
                "the network returned a tensor of shape {:?} for {} pictures",
                value.shape(),
                pictures.len()
            )));
        }
        let each = numbers.chunks(numbers.len() / count).take(pictures.len());
        Ok(each.map(|numbers| activate(numbers, self.activation)).collect())
    }

    fn best(&self, scores: &[f32], count: usize) -> Vec<Class> {
        let mut classes: Vec<_> = scores.iter().copied().enumerate().collect();
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let best = classes.into_iter().take(count);
        best.map(|(id, score)| Class { class_id: id, class_name: self.labels.name(id), score }).collect()
    }
}

/// The output with the scores – `logits`, or the first one – and its number of classes.
fn output(header: &Header) -> Result<(String, Option<usize>), Error> {
    let named = header.outputs.iter().find(|output| output.name == "logits");
    let output = named.or(header.outputs.first());
    // Some exports keep the two dimensions that pooling leaves: [batch, classes, 1, 1].
    let is_flat = |shape: &[Option<usize>]| shape.len() >= 2 && shape[2..].iter().all(|dim| *dim == Some(1));
    match output.filter(|output| is_flat(&output.shape)) {
        Some(output) => Ok((output.name.clone(), output.shape[1])),
        None => Err(Error::bad_model(format!(
            "the classify pipeline needs a network whose first output is [batch, classes], and this one has {}; \
             `pipeline = \"tensors\"` runs any network",
            tensors::list(&header.outputs)
        ))),
    }
}

fn labels(option: Option<Vec<String>>, config: Option<&Config>, header: &Header) -> Labels {
    let of_config =
        || config.map(|config| Labels::from_id2label(&config.id2label)).filter(|labels| !labels.is_empty());
    let of_network = || header.metadata.get("names").and_then(|names| Labels::from_python(names));
    option.map(Labels::new).or_else(of_config).or_else(of_network).unwrap_or_default()
}

/// Scores from a picture's numbers; `None` is told as [`Activation`] says. A number that is none becomes 0.
fn activate(numbers: &[f32], activation: Option<Activation>) -> Vec<f32> {
    let activation = activation.unwrap_or_else(|| {
        let are_probabilities = numbers.iter().all(|number| *number >= 0.0)
            && (numbers.iter().sum::<f32>() - 1.0).abs() < SUM_TOLERANCE;
        if are_probabilities { Activation::None } else { Activation::Softmax }
    });
    let scores: Vec<f32> = match activation {
        Activation::None => numbers.to_vec(),
        Activation::Sigmoid => numbers.iter().map(|number| 1.0 / (1.0 + (-number).exp())).collect(),
        Activation::Softmax => {
            let greatest = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = numbers.iter().map(|number| (number - greatest).exp()).collect();
            let sum: f32 = powers.iter().sum();
            powers.iter().map(|power| power / sum).collect()
        }
    };
    let score = |score: f32| if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
    scores.into_iter().map(score).collect()
}

impl<R: TensorRunner> Pipeline for Classify<R> {
    fn describe(&self, info: &mut ModelInfo) {
        tensors::describe(&self.network, info);
        info.labels = self.labels.names(self.labels.len());
    }

    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        match request.task {
            Task::Classify => self.classify(request, job),
            Task::Infer => tensors::infer(&self.network, request, job),
            ref other => Err(tensors::unsupported(other, Kind::Classify)),
        }
    }
}

/// Parameters of `classify`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct ClassifyParams {
    classes_max: usize,
}

impl Default for ClassifyParams {
    fn default() -> Self {
        Self { classes_max: 5 }
    }
}

/// The schema `classify_result`.
#[derive(Debug, Serialize)]
struct Found {
    classes: Vec<Class>,
}

#[derive(Debug, Serialize)]
struct Class {
    class_id: usize,
    class_name: String,
    score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_stay_and_logits_become_some() {
        let cases: [(&[f32], Option<Activation>, &[f32]); 6] = [
            (&[0.25, 0.75], None, &[0.25, 0.75]),
            (&[0.0, 0.0], None, &[0.5, 0.5]),
            (&[-0.5, 1.5], None, &[0.119_202_92, 0.880_797_1]),
            (&[0.25, 0.75], Some(Activation::Softmax), &[0.377_540_68, 0.622_459_35]),
            (&[0.0, 100.0], Some(Activation::Sigmoid), &[0.5, 1.0]),
            (&[f32::NAN, 2.0], Some(Activation::None), &[0.0, 1.0]),
        ];
        for (numbers, activation, expected) in cases {
            let scores = activate(numbers, activation);
            let difference = scores.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-6, "{numbers:?} {activation:?}: {scores:?}");
        }
    }
}
