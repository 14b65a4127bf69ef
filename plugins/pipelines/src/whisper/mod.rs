//! Speech to text with Whisper: times of segments and words, languages, translation to English.
//!
//! The model is a folder as Hugging Face's Optimum exports it: `config.json`, `generation_config.json`,
//! `tokenizer.json`, and beside them or in `onnx/` the networks `encoder_model.onnx`, `decoder_model.onnx` and
//! `decoder_with_past_model.onnx`; `silero_vad.onnx` beside them is a voice activity detector.
//!
//! The algorithm is that of openai/whisper (Radford et al., "Robust Speech Recognition via Large-Scale Weak
//! Supervision", 2022, section 4.5, and its code) with one sequence: greedy, and one sample where that fails. There is no
//! beam search.

mod align;
mod config;
mod decode;
mod mel;
mod network;
mod numeric;
mod params;
mod rules;
mod transcribe;
mod vocabulary;
mod windows;
mod words;

use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Error, ErrorKind, Event, Finish, Job, ModelInfo, Request, Task, Usage};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use self::config::ModelConfig;
use self::mel::{MelExtractor, SAMPLE_RATE_HZ};
use self::network::Network;
use self::rules::Rules;
use self::vocabulary::Vocabulary;
use crate::files::Folder;
use crate::open::Kind;
use crate::options;
use crate::pipeline::{NetworkFiles, Networks, Pipeline};
use crate::runner::TensorRunner;
use crate::tensors::unsupported;
use crate::vad::{Speech, Vad, speech_spans};

const VAD_STEM: &str = "silero_vad";
/// Shorter sound is one window anyway.
const VAD_SOUND_SAMPLES_MIN: usize = 30 * SAMPLE_RATE_HZ;
/// A job that works for long says so, or it would count as hanging: after so many chunks of the detector.
const CHUNKS_PER_SIGN: usize = 4096;

/// A loaded Whisper model.
pub struct WhisperPipeline<R> {
    model: Model<R>,
}

/// Everything that requests share.
struct Model<R> {
    config: ModelConfig,
    vocabulary: Vocabulary,
    rules: Rules,
    mel: MelExtractor,
    network: Network<R>,
    vad: Option<Vad<R>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// End of the networks' names, such as `quantized`.
    variant: Option<String>,
    /// Leave silence out of sound of more than 30 s. Default: if the detector is in the model's folder.
    vad: Option<VadOption>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected true, false or the path of silero_vad.onnx")]
enum VadOption {
    Switch(bool),
    File(PathBuf),
}

/// Opens the model in `folder`. Options: `vad` (true, false, or the path of another `silero_vad.onnx`; default: true if
/// the file is in the folder) and `variant` (the end of the networks' file names).
///
/// # Errors
/// A file is missing or does not belong to a Whisper model, an option is wrong, or the engine failed.
pub fn open<N: Networks>(
    folder: &Path,
    options: &Map<String, Json>,
    networks: &N,
) -> Result<WhisperPipeline<N::Runner>, Error> {
    let options: Options = options::parse(Kind::Whisper, options)?;
    let folder = Folder::new(folder, options.variant, networks.files());
    let config = ModelConfig::read(&folder)?;
    let vocabulary = Vocabulary::read(&folder, &config)?;
    let vad = vad_file(&folder, options.vad, networks.files())?
        .map(|file| Vad::open(networks.open(&file)?))
        .transpose()?;
    let suppressed = (&config.suppressed, &vocabulary.suppressed_first);
    let model = Model {
        rules: Rules::new(vocabulary.specials, suppressed.0, suppressed.1, config.vocabulary),
        mel: MelExtractor::new(config.mels),
        network: Network::open(&folder, &config, networks)?,
        vad,
        vocabulary,
        config,
    };
    Ok(WhisperPipeline { model })
}

fn vad_file(
    folder: &Folder,
    option: Option<VadOption>,
    files: NetworkFiles,
) -> Result<Option<PathBuf>, Error> {
    let extension = files.extensions.first().unwrap_or(&"onnx");
    let own = || folder.path().join(format!("{VAD_STEM}.{extension}"));
    let file = match option {
        Some(VadOption::Switch(false)) => return Ok(None),
        None => return Ok(Some(own()).filter(|file| file.exists())),
        Some(VadOption::Switch(true)) => own(),
        Some(VadOption::File(file)) => file,
    };
    if file.exists() {
        return Ok(Some(file));
    }
    let message = format!(
        "option `vad`: there is no file {}; {VAD_STEM}.{extension} is expected there",
        file.display()
    );
    Err(Error::new(ErrorKind::NotFound, message))
}

impl<R: TensorRunner> Pipeline for WhisperPipeline<R> {
    fn describe(&self, info: &mut ModelInfo) {
        "whisper".clone_into(&mut info.architecture);
        info.tasks = Kind::Whisper.tasks();
        info.context_length = u32::try_from(self.model.config.context).ok();
        info.vocab_size = u32::try_from(self.model.config.vocabulary).ok();
    }

    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        match request.task {
            Task::Transcribe => transcribe::transcribe(&self.model, request, job),
            ref other => Err(unsupported(other, Kind::Whisper)),
        }
    }
}

impl<R: TensorRunner> Model<R> {
    /// What of a sound is to be transcribed: all of it where it is short or there is no detector. `None` if cancelled.
    fn find_speech<'a>(&self, samples: &'a [f32], job: &Job) -> Result<Option<Speech<'a>>, Error> {
        let Some(vad) = self.vad.as_ref().filter(|_| samples.len() > VAD_SOUND_SAMPLES_MIN) else {
            return Ok(Some(Speech::all(samples)));
        };
        let probabilities = vad.probabilities(samples, |chunk| {
            if chunk.is_multiple_of(CHUNKS_PER_SIGN) {
                job.push(&Event::Progress { fraction: 0.0, text: "" });
            }
            job.is_cancelled()
        })?;
        Ok(probabilities.map(|p| Speech::of(samples, &speech_spans(&p, samples.len()))))
    }
}
