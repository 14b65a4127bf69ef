//! The tasks `embed_image` and `embed`, with a CLIP: vectors of pictures and texts that can be compared.
//!
//! The networks are those that `optimum` and `transformers.js` export: `vision_model.onnx` and `text_model.onnx`, or both
//! in one `model.onnx`, which then gets an empty picture beside each text and an empty text beside each picture.

use std::sync::Arc;

use pajamas_plugin_api::{Error, ErrorKind, Event, Finish, Flow, Job, ModelInfo, Request, Task, Usage};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::input::ImageInput;
use super::picture::{Picture, pictures};
use super::preprocess::{self, Preprocess};
use crate::files::Folder;
use crate::numbers;
use crate::open::Kind;
use crate::options;
use crate::pipeline::{Networks, Pipeline};
use crate::runner::{TensorRunner, TensorSpec, Value};
use crate::tensors;
use crate::text::{Encoder, TextVectors, Tokens, normalize};

/// Tokens of a text where config.json does not say it: OpenAI's CLIPs have 77 positions.
const CONTEXT_DEFAULT: usize = 77;

/// Side of the input where nothing says it, in pixels.
const IMAGE_SIZE_DEFAULT: u32 = 224;

/// Options of the pipeline.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Fields as in preprocessor_config.json, which they replace.
    preprocess: Map<String, Json>,
}

/// The parts of config.json that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    text_config: TextConfig,
    projection_dim: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TextConfig {
    max_position_embeddings: Option<usize>,
}

/// Parameters of `embed_image`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct EmbedImageParams {
    normalize: bool,
}

impl Default for EmbedImageParams {
    fn default() -> Self {
        Self { normalize: true }
    }
}

/// A CLIP.
pub(crate) struct Clip<R: TensorRunner> {
    images: ImageVectors<R>,
    texts: TextVectors<R>,
    embedding_length: Option<u32>,
}

/// Vectors of pictures.
struct ImageVectors<R: TensorRunner> {
    network: Arc<R>,
    input: ImageInput,
    constants: Vec<(String, R::Value)>,
    output: String,
    preprocess: Preprocess,
}

impl<R: TensorRunner> Clip<R> {
    /// The model in `folder`.
    ///
    /// # Errors
    /// A file is missing or not what it should be, a network has not the inputs and outputs of a CLIP, or an option is
    /// wrong.
    pub(crate) fn open<N: Networks<Runner = R>>(
        folder: &Folder,
        options: &Map<String, Json>,
        networks: &N,
    ) -> Result<Self, Error> {
        let options: Options = options::parse(Kind::Clip, options)?;
        let config: Config = folder.json("config.json")?.unwrap_or_default();
        let tokens = Tokens::open(folder)?;
        let [vision, text] = open_networks(folder, networks)?;
        let input = ImageInput::find(vision.inputs(), Kind::Clip)?;
        let side = input.width.unwrap_or(IMAGE_SIZE_DEFAULT);
        let usual = preprocess::clip_fields(side);
        let preprocess = Preprocess::of_model(Some(folder), &usual, &options.preprocess, &input)?;
        let is_one = Arc::ptr_eq(&vision, &text);
        let beside_pictures = if is_one { empty_text(&*vision, &tokens)? } else { Vec::new() };
        let beside_texts = if is_one {
            let size = preprocess.size().unwrap_or((side, side));
            vec![(input.name().to_owned(), input.empty(&*vision, size)?)]
        } else {
            Vec::new()
        };
        let width = output(vision.outputs(), "image_embeds")?.shape.last().copied().flatten();
        output(text.outputs(), "text_embeds")?;
        let encoder = Encoder::new(text, "text_embeds", tokens.pad, beside_texts, Kind::Clip)?;
        let context = config.text_config.max_position_embeddings.unwrap_or(CONTEXT_DEFAULT);
        let context = encoder.fixed_len().map_or(context, |fixed| context.min(fixed));
        Ok(Self {
            images: ImageVectors {
                network: vision,
                input,
                constants: beside_pictures,
                output: "image_embeds".to_owned(),
                preprocess,
            },
            texts: TextVectors { tokens, encoder, pooling: None, context },
            embedding_length: width.and_then(|width| u32::try_from(width).ok()).or(config.projection_dim),
        })
    }
}

/// The networks for pictures and for texts, which may be one.
fn open_networks<R: TensorRunner, N: Networks<Runner = R>>(
    folder: &Folder,
    networks: &N,
) -> Result<[Arc<R>; 2], Error> {
    match folder.network("vision_model") {
        Ok(vision) => {
            let text = folder.network("text_model")?;
            let both = [Arc::new(networks.open(&vision)?), Arc::new(networks.open(&text)?)];
            both.iter().for_each(|network| network.rows_are_independent());
            Ok(both)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let both = Arc::new(networks.open(&folder.network("model").map_err(|_| error)?)?);
            Ok([Arc::clone(&both), both])
        }
        Err(error) => Err(error),
    }
}

fn output<'a>(outputs: &'a [TensorSpec], name: &str) -> Result<&'a TensorSpec, Error> {
    outputs.iter().find(|output| output.name == name).ok_or_else(|| {
        Error::bad_model(format!(
            "the clip pipeline needs a network with the output {name}, and this one has {}",
            tensors::list(outputs)
        ))
    })
}

/// The inputs of a text without words, for a network that wants a text beside each picture.
fn empty_text<R: TensorRunner>(network: &R, tokens: &Tokens) -> Result<Vec<(String, R::Value)>, Error> {
    let ids: Vec<i64> = tokens.empty().iter().map(|id| i64::from(*id)).collect();
    let shape = [1, ids.len() as i64];
    let mut inputs = Vec::new();
    for spec in network.inputs() {
        let numbers = match spec.name.as_str() {
            "input_ids" => ids.clone(),
            "attention_mask" => vec![1; ids.len()],
            _ => continue,
        };
        inputs.push((spec.name.clone(), numbers::from_i64s(network, spec, &shape, &numbers)?));
    }
    Ok(inputs)
}

impl<R: TensorRunner> ImageVectors<R> {
    fn embed(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        let params: EmbedImageParams = request.params()?;
        let pictures = pictures(request)?;
        let batch_len = self.input.batch_len();
        for (batch, pictures) in pictures.chunks(batch_len).enumerate() {
            if job.is_cancelled() {
                return Ok((Finish::Cancelled, Usage::default()));
            }
            for (index, mut values) in self.vectors(pictures)?.into_iter().enumerate() {
                if params.normalize {
                    normalize(&mut values);
                }
                let index = (batch * batch_len + index) as u32;
                if job.push(&Event::Vector { index, values: &values }) == Flow::Cancelled {
                    return Ok((Finish::Cancelled, Usage::default()));
                }
            }
        }
        Ok((Finish::Stop, Usage::default()))
    }

    /// The vectors of the pictures of one batch.
    fn vectors(&self, pictures: &[Picture<'_>]) -> Result<Vec<Vec<f32>>, Error> {
        let canvases: Vec<_> =
            pictures.iter().map(|picture| self.preprocess.apply(picture)).collect::<Result<_, _>>()?;
        let tensor = self.input.tensor(&*self.network, &canvases, &self.preprocess.normalization)?;
        let mut inputs = vec![(self.input.name(), &tensor)];
        inputs.extend(self.constants.iter().map(|(name, value)| (name.as_str(), value)));
        let values = self.network.run(&inputs, &[&self.output])?;
        let Some(value) = values.first() else {
            return Err(Error::internal("the engine returned no output"));
        };
        let numbers = numbers::to_f32s(value)?;
        match *value.shape() {
            [count, width] if width > 0 && count as usize >= pictures.len() => {
                Ok(numbers.chunks(width as usize).take(pictures.len()).map(<[f32]>::to_vec).collect())
            }
            ref shape => Err(Error::bad_model(format!(
                "the network returned `{}` of shape {shape:?} for {} pictures",
                self.output,
                pictures.len()
            ))),
        }
    }
}

impl<R: TensorRunner> Pipeline for Clip<R> {
    fn describe(&self, info: &mut ModelInfo) {
        info.embedding_length = self.embedding_length;
        info.context_length = u32::try_from(self.texts.context).ok();
        info.vocab_size = Some(self.texts.tokens.vocab_size());
    }

    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        match request.task {
            Task::EmbedImage => self.images.embed(request, job),
            Task::Embed => self.texts.embed(request, job),
            Task::Tokenize => self.texts.tokens.tokenize(request, job),
            ref other => Err(tensors::unsupported(other, Kind::Clip)),
        }
    }
}
