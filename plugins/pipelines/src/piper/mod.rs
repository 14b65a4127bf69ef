//! Piper: text to speech with a VITS network and phonemes from espeak-ng.
//!
//! A voice is two files, `X.onnx` and `X.onnx.json`. Source of everything that is not the network's:
//! `piper/voice.py` of piper-tts 1.8.0. Left out of it: Arabic texts get no vowel marks before they are spoken, and
//! phonemes in double brackets inside a text are not interpreted.

mod config;
mod options;
mod phonemes;

use std::path::Path;
use std::time::Instant;

use pajamas_plugin_api::{
    Dtype, Error, Event, Finish, Flow, Job, ModelInfo, Request, Task, TensorView, Usage,
};
use serde_json::{Map, Value as Json};

use crate::espeak::Espeak;
use crate::pipeline::{Networks, Pipeline};
use crate::runner::{TensorRunner, TensorSpec, Value};
use crate::speech::SpeakRequest;
use config::{Config, PhonemeType};
use options::Options;
use phonemes::Sentence;

/// The network's inputs; `sid` is there if the voice has several speakers.
const INPUTS: [(&str, Dtype); 3] =
    [("input", Dtype::I64), ("input_lengths", Dtype::I64), ("scales", Dtype::F32)];
const SPEAKER_INPUT: &str = "sid";
/// A sentence whose loudest sample is below this is silence (Piper's bound).
const PEAK_MIN: f32 = 1e-8;
/// Most speed and least; beyond them no voice can be understood.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.25..=4.0;

/// A Piper voice.
#[derive(Debug)]
pub struct PiperPipeline<R> {
    network: R,
    output: String,
    config: Config,
    options: Options,
    /// `None` for a voice whose phonemes are the text's own characters.
    espeak: Option<Espeak>,
    /// Names and ids, the default one first.
    speakers: Vec<(String, u32)>,
}

/// Opens the voice whose network is `file`. `options` are `noise_scale`, `noise_w` and `length_scale` (the voice's own
/// unless given), `sentence_silence_ms` (200) and `espeak_library` (see [`Espeak::open`]).
///
/// # Errors
/// `X.onnx.json` is missing or not a voice's, the network is another one, the phonemes are of a kind that needs more than
/// espeak-ng, espeak-ng or its voice is missing, or an option is wrong.
pub fn open<N: Networks>(
    file: &Path,
    options: &Map<String, Json>,
    networks: &N,
) -> Result<PiperPipeline<N::Runner>, Error> {
    let options = Options::parse(options)?;
    let config = Config::read(file)?;
    let espeak = match config.phoneme_type {
        PhonemeType::Text => None,
        PhonemeType::Espeak => {
            let espeak = Espeak::open(options.espeak_library.as_deref())?;
            espeak.voices().check(config.espeak_voice())?;
            Some(espeak)
        }
        PhonemeType::Other => {
            return Err(Error::unsupported(format!(
                "{}: field `phoneme_type` has a kind of phonemes that is not supported, only \"espeak\" and \"text\" are",
                config::file_of(file).display()
            )));
        }
    };
    let network = networks.open(file)?;
    let output = check_network(file, &network, &config)?;
    let speakers = config.speakers(file);
    Ok(PiperPipeline { network, output, config, options, espeak, speakers })
}

/// Makes sure that the network takes what this pipeline gives. Returns the name of the output with the sound.
fn check_network<R: TensorRunner>(file: &Path, network: &R, config: &Config) -> Result<String, Error> {
    let has =
        |name: &str, dtype| network.inputs().iter().any(|input| input.name == name && input.dtype == dtype);
    let speaker = (config.num_speakers > 1).then_some((SPEAKER_INPUT, Dtype::I64));
    let missing = INPUTS.into_iter().chain(speaker).find(|(name, dtype)| !has(name, *dtype));
    match (missing, network.outputs().first()) {
        (Some((name, dtype)), _) => Err(Error::bad_model(format!(
            "{} is not a Piper voice: it has no input `{name}` of type {dtype:?}",
            file.display()
        ))),
        (None, Some(TensorSpec { name, dtype: Dtype::F32, .. })) => Ok(name.clone()),
        (None, _) => Err(Error::bad_model(format!("{} has no output of type F32", file.display()))),
    }
}

impl<R: TensorRunner> Pipeline for PiperPipeline<R> {
    fn describe(&self, info: &mut ModelInfo) {
        "piper".clone_into(&mut info.architecture);
        info.tasks = vec![Task::Speak];
        info.voices = self.speakers.iter().map(|(name, _)| name.clone()).collect();
    }

    /// Pushes one chunk of sound for each sentence, when it is made; all but the first begin with the silence between
    /// sentences. The deadline counts from here.
    fn run(&self, request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
        let speech = SpeakRequest::new(request, Instant::now())?;
        let speaker = self.speaker(speech.voice.as_deref())?;
        if !SPEEDS.contains(&speech.speed) {
            let (min, max) = (SPEEDS.start(), SPEEDS.end());
            return Err(Error::invalid(format!(
                "parameter \"speed\" is {}, expected {min} to {max}",
                speech.speed
            )));
        }
        let sentences = self.sentences(&speech.text)?;
        if sentences.is_empty() {
            return Err(Error::invalid("the text has nothing in it that can be spoken"));
        }
        let sample_rate_hz = self.config.sample_rate_hz();
        let silence =
            (u64::from(sample_rate_hz) * u64::from(self.options.sentence_silence_ms) / 1000) as usize;
        let mut samples = Vec::new();
        for sentence in &sentences {
            if job.is_cancelled() {
                return Ok((Finish::Cancelled, Usage::default()));
            }
            speech.check_deadline()?;
            self.synthesize(sentence, speaker, speech.speed, &mut samples)?;
            if job.push(&Event::Audio { samples: &samples, sample_rate_hz, channels: 1 }) == Flow::Cancelled {
                return Ok((Finish::Cancelled, Usage::default()));
            }
            samples.clear();
            samples.resize(silence, 0.0);
        }
        Ok((Finish::Stop, Usage::default()))
    }
}

impl<R: TensorRunner> PiperPipeline<R> {
    fn speaker(&self, name: Option<&str>) -> Result<u32, Error> {
        let found = match name {
            None => self.speakers.first(),
            Some(name) => self.speakers.iter().find(|(known, _)| known == name),
        };
        found.map(|(_, id)| *id).ok_or_else(|| {
            let examples: Vec<&str> = self.speakers.iter().take(20).map(|(name, _)| name.as_str()).collect();
            Error::invalid(format!(
                "parameter \"voice\" is \"{}\"; this model has {} ({} in all)",
                name.unwrap_or_default().escape_debug(),
                examples.join(", "),
                self.speakers.len()
            ))
        })
    }

    fn sentences(&self, text: &str) -> Result<Vec<Sentence>, Error> {
        let Some(espeak) = self.espeak else { return Ok(phonemes::characters(text)) };
        let clauses = espeak.clauses(self.config.espeak_voice(), text)?;
        Ok(phonemes::sentences(&clauses, &self.config.vowel_clusters))
    }

    /// Runs the network on one sentence and appends its sound to `samples`, as loud as can be.
    fn synthesize(
        &self,
        sentence: &[String],
        speaker: u32,
        speed: f32,
        samples: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let ids = phonemes::ids(sentence, &self.config.phoneme_id_map);
        let own = self.config.inference;
        let scales = [
            self.options.noise_scale.unwrap_or(own.noise_scale),
            self.options.length_scale.unwrap_or(own.length_scale) / speed,
            self.options.noise_w.unwrap_or(own.noise_w),
        ];
        let len = ids.len() as i64;
        let input = self.tensor(INPUTS[0], &[1, len], &bytes(&ids, |id| id.to_ne_bytes()))?;
        let lengths = self.tensor(INPUTS[1], &[1], &len.to_ne_bytes())?;
        let scales = self.tensor(INPUTS[2], &[3], &bytes(&scales, |scale| scale.to_ne_bytes()))?;
        let mut inputs = vec![(INPUTS[0].0, &input), (INPUTS[1].0, &lengths), (INPUTS[2].0, &scales)];
        let id;
        if self.config.num_speakers > 1 {
            id = self.tensor((SPEAKER_INPUT, Dtype::I64), &[1], &i64::from(speaker).to_ne_bytes())?;
            inputs.push((SPEAKER_INPUT, &id));
        }
        let outputs = self.network.run(&inputs, &[&self.output])?;
        let [sound] = outputs.as_slice() else {
            return Err(Error::internal("the engine did not return the one output that was asked for"));
        };
        append_normalized(&sound.bytes()?, samples)
    }

    fn tensor(&self, (name, dtype): (&str, Dtype), shape: &[i64], data: &[u8]) -> Result<R::Value, Error> {
        self.network.value(&TensorView { name, dtype, shape, data })
    }
}

/// The numbers' bytes, one after the other.
fn bytes<T: Copy, const N: usize>(numbers: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| bytes(*number)).collect()
}

/// Appends a sentence's sound, scaled so that its loudest sample is 1 or -1: Piper's default.
fn append_normalized(sound: &[u8], samples: &mut Vec<f32>) -> Result<(), Error> {
    let (sound, _rest) = sound.as_chunks::<4>();
    let sound = sound.iter().map(|sample| f32::from_ne_bytes(*sample));
    let peak =
        sound.clone().try_fold(0.0_f32, |peak, sample| sample.is_finite().then(|| peak.max(sample.abs())));
    let Some(peak) = peak else {
        return Err(Error::internal("the network returned sound with samples that are no numbers"));
    };
    let factor = if peak < PEAK_MIN { 0.0 } else { peak.recip() };
    samples.extend(sound.map(|sample| (sample * factor).clamp(-1.0, 1.0)));
    Ok(())
}

#[cfg(test)]
mod tests;
