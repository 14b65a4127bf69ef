//! Which pipeline a model is for, and the opening of it.
//!
//! The option `pipeline` decides, or else what lies there: a folder's `config.json` as Hugging Face writes it, the
//! `.onnx.json` beside a Piper voice, what a network says about itself, and the shapes of its outputs where no other
//! network has such. A network that nothing is known about still answers `infer`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Error, ErrorKind, Finish, Job, ModelInfo, Request, Task, Usage, options};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::files::Folder;
use crate::pipeline::{NetworkFiles, Networks, Pipeline};
use crate::piper;
use crate::runner::{TensorRunner, TensorSpec};
use crate::tensors::Tensors;
use crate::text::embed::TextEmbed;
use crate::text::rerank::Rerank;
use crate::vision;
use crate::vision::classify::Classify;
use crate::vision::clip::Clip;
use crate::vision::yolo::Yolo;
use crate::whisper;

/// The pipelines. The names are the values of the option `pipeline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Boxes in pictures, from a YOLO.
    Yolo,
    /// Labels of pictures.
    Classify,
    /// Vectors of pictures and of texts that can be compared, from a CLIP.
    Clip,
    /// Vectors of texts.
    TextEmbed,
    /// Scores of documents for a query, from a cross-encoder.
    Rerank,
    /// Speech to text.
    Whisper,
    /// Text to speech.
    Piper,
    /// Text from a decoder with a key-value cache, which the crate `decoder` generates, not [`open`]: its requests share
    /// runs.
    Generate,
    /// Tensors in, tensors out.
    Tensors,
}

impl Kind {
    /// The name, as in the option `pipeline`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Yolo => "yolo",
            Self::Classify => "classify",
            Self::Clip => "clip",
            Self::TextEmbed => "text-embed",
            Self::Rerank => "rerank",
            Self::Whisper => "whisper",
            Self::Piper => "piper",
            Self::Generate => "generate",
            Self::Tensors => "tensors",
        }
    }

    /// The tasks that a model of this kind offers.
    #[must_use]
    pub fn tasks(self) -> Vec<Task> {
        match self {
            Self::Yolo => vec![Task::Detect, Task::Infer],
            Self::Classify => vec![Task::Classify, Task::Infer],
            Self::Clip => vec![Task::EmbedImage, Task::Embed, Task::Tokenize],
            Self::TextEmbed => vec![Task::Embed, Task::Tokenize, Task::Infer],
            Self::Rerank => vec![Task::Rerank, Task::Tokenize, Task::Infer],
            Self::Whisper => vec![Task::Transcribe],
            Self::Piper => vec![Task::Speak],
            Self::Generate => vec![Task::Generate, Task::Tokenize],
            Self::Tensors => vec![Task::Infer],
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a network says about itself before it runs. Engines that can read this off a file without opening the network
/// give it to [`Detected::of_network`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The network's inputs.
    pub inputs: Vec<TensorSpec>,
    /// The network's outputs.
    pub outputs: Vec<TensorSpec>,
    /// What the file says about itself, such as `names` and `stride` of an exported YOLO.
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// The header of an open network.
    pub fn of<R: TensorRunner>(runner: &R) -> Self {
        Self {
            inputs: runner.inputs().to_vec(),
            outputs: runner.outputs().to_vec(),
            metadata: runner.metadata().clone(),
        }
    }
}

/// What a model is, as far as its files or its network tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The pipeline that [`open`] takes for it.
    pub kind: Kind,
    /// The model family, such as `bert`, for `ModelInfo::architecture`.
    pub architecture: String,
}

impl Detected {
    /// What a bare network is, by what it says about itself. Ultralytics writes `task` into what it exports, and YOLOv5
    /// `stride` and `names`; without either, only a YOLO with the boxes of three grids is unmistakable.
    #[must_use]
    pub fn of_network(header: &Header) -> Self {
        let has = |name: &str| header.metadata.contains_key(name);
        let kind = match header.metadata.get("task").map(String::as_str) {
            Some("detect") => Kind::Yolo,
            Some("classify") => Kind::Classify,
            Some(_) => Kind::Tensors,
            None if has("stride") && has("names") => Kind::Yolo,
            None if vision::is_unmistakably_yolo(header) => Kind::Yolo,
            None => Kind::Tensors,
        };
        Self::of_kind(kind)
    }

    fn of_kind(kind: Kind) -> Self {
        Self { kind, architecture: kind.name().to_owned() }
    }
}

/// What the model at `path` is, by its files alone, of which `files` are networks; `None` for a bare network, which only [`Detected::of_network`]
/// can tell.
///
/// # Errors
/// There is nothing at `path`, or its `config.json` cannot be read.
pub fn detect(path: &Path, files: NetworkFiles) -> Result<Option<Detected>, Error> {
    if files.is_folder(path) {
        let folder = Folder::new(path, None, files);
        return match folder.json::<Config>("config.json")? {
            Some(config) => Ok(Some(config.detected(&folder))),
            None => Ok(detect_file(&folder.only_network()?)),
        };
    }
    if path.exists() { Ok(detect_file(path)) } else { Err(not_found(path)) }
}

fn not_found(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no file or folder {}", path.display()))
}

fn detect_file(file: &Path) -> Option<Detected> {
    piper_config(file).is_file().then(|| Detected::of_kind(Kind::Piper))
}

/// Where Piper puts the configuration of the voice `file`.
fn piper_config(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// The parts of Hugging Face's `config.json` that say what a model is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    id2label: Option<Map<String, Value>>,
}

/// Model types whose classes are image classifiers, for exports that leave out `architectures`.
const IMAGE_CLASSIFIERS: &[&str] = &[
    "beit",
    "bit",
    "convnext",
    "convnextv2",
    "cvt",
    "data2vec-vision",
    "deit",
    "dinov2",
    "efficientnet",
    "levit",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilevit",
    "poolformer",
    "pvt",
    "regnet",
    "resnet",
    "swin",
    "swinv2",
    "vit",
];

/// Model types of text encoders.
const TEXT_ENCODERS: &[&str] = &[
    "albert",
    "bert",
    "big_bird",
    "camembert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "mpnet",
    "modernbert",
    "new",
    "nomic_bert",
    "roberta",
    "roformer",
    "xlm-roberta",
];

impl Config {
    fn detected(&self, folder: &Folder) -> Detected {
        let kind = self.kind(folder);
        let architecture = self.model_type.clone().unwrap_or_else(|| kind.name().to_owned());
        Detected { kind, architecture }
    }

    fn kind(&self, folder: &Folder) -> Kind {
        let model_type = self.model_type.as_deref().unwrap_or_default();
        let is = |suffix: &str| self.architectures.iter().flatten().any(|class| class.ends_with(suffix));
        match model_type {
            "whisper" => return Kind::Whisper,
            "clip" => return Kind::Clip,
            _ => {}
        }
        if is("ForImageClassification") {
            return Kind::Classify;
        }
        // The second is what GPT-2 and its first relatives are called.
        if is("ForCausalLM") || is("LMHeadModel") {
            return Kind::Generate;
        }
        if is("ForSequenceClassification") {
            // Transformers writes no `id2label` for its default of two labels.
            let has_one_label = self.id2label.as_ref().is_some_and(|labels| labels.len() == 1);
            return if has_one_label { Kind::Rerank } else { Kind::Tensors };
        }
        if folder.has("modules.json") || TEXT_ENCODERS.contains(&model_type) {
            return Kind::TextEmbed;
        }
        if IMAGE_CLASSIFIERS.contains(&model_type) { Kind::Classify } else { Kind::Tensors }
    }
}

/// The pipeline for the model at `path`, by the option `pipeline` or by its files, of which `files` are networks; `None` for
/// a bare network.
///
/// # Errors
/// There is nothing at `path`, its `config.json` cannot be read, or the option has another value than a [`Kind`]'s name.
pub fn kind(path: &Path, options: &Map<String, Value>, files: NetworkFiles) -> Result<Option<Kind>, Error> {
    match Common::split(options)?.0.pipeline {
        Some(kind) => Ok(Some(kind)),
        None => Ok(detect(path, files)?.map(|detected| detected.kind)),
    }
}

/// The network of a model that has one: `path` itself, or that of the folder `path`, among whose exports the option `variant`
/// chooses.
///
/// # Errors
/// There is none, or several of other names; the message has those that are there.
pub fn network_file(
    path: &Path,
    options: &Map<String, Value>,
    files: NetworkFiles,
) -> Result<PathBuf, Error> {
    network_of(path, Common::split(options)?.0.variant, files)
}

fn network_of(path: &Path, variant: Option<String>, files: NetworkFiles) -> Result<PathBuf, Error> {
    match files.is_folder(path) {
        true => Folder::new(path, variant, files).only_network(),
        false if path.exists() => Ok(path.to_owned()),
        false => Err(not_found(path)),
    }
}

/// Opens the model at `path`, a folder or a network's file, with the engine's `networks`.
///
/// The options `pipeline` (a [`Kind`]'s name) and `variant` (the end of the networks' file names, such as `quantized`)
/// are for every model; the others are the pipeline's.
///
/// # Errors
/// There is no model at `path`, it is not one of the pipeline's kind, an option is wrong, or the engine failed.
pub fn open<N: Networks>(
    path: &Path,
    options: &Map<String, Value>,
    networks: &N,
) -> Result<Box<dyn Pipeline>, Error> {
    let (common, options) = Common::split(options)?;
    let detected = match (common.pipeline, detect(path, networks.files())) {
        (None, detected) => detected?,
        // A model may be incomplete for one pipeline and good for the one that is asked for.
        (Some(kind), Ok(Some(detected))) => Some(Detected { kind, ..detected }),
        (Some(kind), _) => Some(Detected::of_kind(kind)),
    };
    let place = Place { path, variant: common.variant, options, networks };
    match detected {
        Some(detected) => place.open(detected),
        None => {
            let network = networks.open(&place.network_file()?)?;
            let detected = Detected::of_network(&Header::of(&network));
            place.open_network(network, detected)
        }
    }
}

/// A model that is being opened.
struct Place<'a, N> {
    path: &'a Path,
    variant: Option<String>,
    options: Map<String, Value>,
    networks: &'a N,
}

impl<N: Networks> Place<'_, N> {
    fn open(&self, detected: Detected) -> Result<Box<dyn Pipeline>, Error> {
        let (options, networks) = (&self.options, self.networks);
        let pipeline: Box<dyn Pipeline> = match detected.kind {
            Kind::Clip => Box::new(Clip::open(&self.folder(Kind::Clip)?, options, networks)?),
            Kind::TextEmbed => Box::new(TextEmbed::open(&self.folder(Kind::TextEmbed)?, options, networks)?),
            Kind::Rerank => Box::new(Rerank::open(&self.folder(Kind::Rerank)?, options, networks)?),
            Kind::Yolo | Kind::Classify | Kind::Tensors => {
                return self.open_network(networks.open(&self.network_file()?)?, detected);
            }
            Kind::Whisper => {
                // Its folder chooses among exports by itself.
                let variant =
                    self.variant.iter().map(|variant| ("variant".to_owned(), variant.as_str().into()));
                let options = options.clone().into_iter().chain(variant).collect();
                Box::new(whisper::open(self.folder(Kind::Whisper)?.path(), &options, networks)?)
            }
            Kind::Piper => Box::new(piper::open(&self.network_file()?, options, networks)?),
            Kind::Generate => {
                return Err(Error::unsupported(format!(
                    "{} is a decoder of text, from which this plugin does not generate; the option `pipeline` = \"tensors\" \
                     runs its network on raw tensors",
                    self.path.display()
                )));
            }
        };
        Ok(Box::new(Described { detected, pipeline }))
    }

    /// Opens a pipeline of one network.
    fn open_network(&self, network: N::Runner, detected: Detected) -> Result<Box<dyn Pipeline>, Error> {
        let folder = self.own_folder();
        if detected.kind != Kind::Tensors {
            network.rows_are_independent();
        }
        let pipeline: Box<dyn Pipeline> = match detected.kind {
            Kind::Yolo => Box::new(Yolo::open(network, &self.options)?),
            Kind::Classify => Box::new(Classify::open(network, folder.as_ref(), &self.options)?),
            _ => Box::new(Tensors::open(network, &self.options)?),
        };
        Ok(Box::new(Described { detected, pipeline }))
    }

    fn folder(&self, kind: Kind) -> Result<Folder, Error> {
        if let Some(folder) = self.own_folder() {
            return Ok(folder);
        }
        if !self.path.exists() {
            return Err(not_found(self.path));
        }
        Err(Error::invalid(format!(
            "the {kind} pipeline needs a folder with config.json, tokenizer.json and the networks, and {} is a file",
            self.path.display()
        )))
    }

    /// The folder, where the model is one.
    fn own_folder(&self) -> Option<Folder> {
        let files = self.networks.files();
        files.is_folder(self.path).then(|| Folder::new(self.path, self.variant.clone(), files))
    }

    /// The network of a model of one network: the model itself, or the only one of its folder.
    fn network_file(&self) -> Result<PathBuf, Error> {
        network_of(self.path, self.variant.clone(), self.networks.files())
    }
}

/// A pipeline that says what its model is in the same words as [`detect`], which answers before the model is loaded.
struct Described {
    detected: Detected,
    pipeline: Box<dyn Pipeline>,
}

impl Pipeline for Described {
    fn describe(&self, info: &mut ModelInfo) {
        self.pipeline.describe(info);
        info.architecture.clone_from(&self.detected.architecture);
        info.tasks = self.detected.kind.tasks();
    }

    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        self.pipeline.run(request, job)
    }
}

/// The options that every model has.
#[derive(Debug, Default, Deserialize)]
struct Common {
    pipeline: Option<Kind>,
    variant: Option<String>,
}

impl Common {
    /// The common options, and the others.
    fn split(options: &Map<String, Value>) -> Result<(Self, Map<String, Value>), Error> {
        let (common, others): (Map<_, _>, Map<_, _>) = options
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .partition(|(name, _)| matches!(name.as_str(), "pipeline" | "variant"));
        Ok((options::parse(&common)?, others))
    }
}
