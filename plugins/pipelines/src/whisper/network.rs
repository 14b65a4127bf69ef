//! The three networks of a model, as Hugging Face's Optimum exports them: encoder, decoder without a past, decoder with
//! one. The KV cache stays where the engine keeps it.

use half::f16;
use pajamas_plugin_api::{Dtype, Error};

use super::config::ModelConfig;
use super::mel::WINDOW_FRAMES;
use crate::files::Folder;
use crate::numbers::{from_f32s, from_i64s};
use crate::pipeline::Networks;
use crate::runner::{TensorRunner, TensorSpec, Value};

const FEATURES: &str = "input_features";
const HIDDEN: &str = "last_hidden_state";
const TOKENS: &str = "input_ids";
const AUDIO: &str = "encoder_hidden_states";
const POSITION: &str = "cache_position";
const LOGITS: &str = "logits";

/// The networks of one model.
pub(super) struct Network<R> {
    encoder: R,
    /// Reads a whole prompt.
    first: R,
    /// Reads one token more.
    next: R,
    mels: usize,
    vocabulary: usize,
    /// `present.*`: what `first` makes of the cache, decoder and encoder.
    cache_outputs: Vec<String>,
    /// `past_key_values.*`, in the order of `cache_outputs`.
    cache_inputs: Vec<String>,
    /// Whether `next` wants to be told the position, as exports of newer versions of Transformers do.
    next_has_position: bool,
}

/// Keys and values of the tokens read so far, and of the sound. Clones share them.
#[derive(Clone)]
pub(super) struct Cache<V> {
    /// In the order of [`Network::cache_outputs`].
    values: Vec<V>,
    /// Tokens that were read.
    len: usize,
}

/// What reading a prompt leaves behind.
pub(super) struct Prefilled<V> {
    /// A row for each token of the prompt.
    pub(super) logits: Logits<V>,
    /// The prompt's cache.
    pub(super) cache: Cache<V>,
}

/// What the decoder looked at.
pub(super) struct Attended<V> {
    /// A row for each token.
    pub(super) logits: Logits<V>,
    /// The weights of each layer asked for: [1, heads, tokens, 1500].
    pub(super) attentions: Vec<V>,
}

/// A tensor of logits: one row of the vocabulary's size for each token that was read.
pub(super) struct Logits<V> {
    value: V,
    vocabulary: usize,
}

impl<R: TensorRunner> Network<R> {
    /// Opens the files and checks that they have the inputs and outputs that are needed.
    pub(super) fn open<N: Networks<Runner = R>>(
        folder: &Folder,
        config: &ModelConfig,
        networks: &N,
    ) -> Result<Self, Error> {
        let names = |prefix: &str| -> Vec<String> {
            let layers = (0..config.layers).map(|layer| format!("{prefix}.{layer}"));
            let parts = ["decoder.key", "decoder.value", "encoder.key", "encoder.value"];
            layers.flat_map(|layer| parts.map(|part| format!("{layer}.{part}"))).collect()
        };
        let (cache_outputs, cache_inputs) = (names("present"), names("past_key_values"));
        let grows = |names: &[String]| names.iter().filter(|name| is_of_tokens(name)).cloned().collect();
        let open = |stem: &str, inputs: Vec<String>, outputs: Vec<String>| {
            let file = folder.network(stem)?;
            let runner = networks.open(&file)?;
            for (what, needed, there) in
                [("input", inputs, runner.inputs()), ("output", outputs, runner.outputs())]
            {
                if let Some(missing) = needed.iter().find(|name| !has(there, name)) {
                    return Err(Error::bad_model(format!(
                        "{} has no {what} `{missing}`; it should be exported with `optimum-cli export onnx \
                         --task automatic-speech-recognition-with-past`",
                        file.display()
                    )));
                }
            }
            Ok(runner)
        };
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let with = |name: &str, more: Vec<String>| [own(&[name]), more].concat();
        let next = open(
            "decoder_with_past_model",
            with(TOKENS, cache_inputs.clone()),
            with(LOGITS, grows(&cache_outputs)),
        )?;
        Ok(Self {
            encoder: open("encoder_model", own(&[FEATURES]), own(&[HIDDEN]))?,
            first: open("decoder_model", own(&[TOKENS, AUDIO]), with(LOGITS, cache_outputs.clone()))?,
            next_has_position: has(next.inputs(), POSITION),
            next,
            mels: config.mels,
            vocabulary: config.vocabulary,
            cache_outputs,
            cache_inputs,
        })
    }

    /// Encodes 30 s of sound: `mels` rows of 3000 frames.
    pub(super) fn encode(&self, mel: &[f32]) -> Result<R::Value, Error> {
        let shape = [1, self.mels as i64, WINDOW_FRAMES as i64];
        let features = from_f32s(&self.encoder, spec(&self.encoder, FEATURES)?, &shape, mel)?;
        only(self.encoder.run(&[(FEATURES, &features)], &[HIDDEN])?)
    }

    /// Reads a prompt.
    pub(super) fn prefill(&self, tokens: &[u32], audio: &R::Value) -> Result<Prefilled<R::Value>, Error> {
        let outputs: Vec<&str> =
            [LOGITS].into_iter().chain(self.cache_outputs.iter().map(String::as_str)).collect();
        let mut results = self.read(tokens, audio, &outputs)?.into_iter();
        let logits = self.logits(results.next())?;
        Ok(Prefilled { logits, cache: Cache { values: results.collect(), len: tokens.len() } })
    }

    /// Reads one token more; the logits have one row.
    pub(super) fn step(&self, token: u32, cache: &mut Cache<R::Value>) -> Result<Logits<R::Value>, Error> {
        let integers = |name: &str, shape: &[i64], number: i64| {
            from_i64s(&self.next, spec(&self.next, name)?, shape, &[number])
        };
        let tokens = integers(TOKENS, &[1, 1], i64::from(token))?;
        let position =
            self.next_has_position.then(|| integers(POSITION, &[1], cache.len as i64)).transpose()?;
        let mut inputs = vec![(TOKENS, &tokens)];
        inputs.extend(position.as_ref().map(|position| (POSITION, position)));
        inputs.extend(self.cache_inputs.iter().map(String::as_str).zip(&cache.values));
        let is_of_tokens = |name: &&String| is_of_tokens(name);
        let grown = self.cache_outputs.iter().filter(is_of_tokens).map(String::as_str);
        let outputs: Vec<&str> = [LOGITS].into_iter().chain(grown).collect();
        let mut results = self.next.run(&inputs, &outputs)?.into_iter();
        let logits = self.logits(results.next())?;
        let names = self.cache_outputs.iter();
        let slots = names.zip(&mut cache.values).filter(|(name, _)| is_of_tokens(name)).map(|(_, slot)| slot);
        slots.zip(results).for_each(|(slot, value)| *slot = value);
        cache.len += 1;
        Ok(logits)
    }

    /// Reads tokens at once, and tells what the cross-attentions of `layers` look at.
    ///
    /// # Errors
    /// As unsupported, that the network has no such outputs; or the engine failed.
    pub(super) fn attend(
        &self,
        tokens: &[u32],
        audio: &R::Value,
        layers: &[usize],
    ) -> Result<Attended<R::Value>, Error> {
        let names: Vec<String> = layers.iter().map(|layer| format!("cross_attentions.{layer}")).collect();
        if let Some(missing) = names.iter().find(|name| !has(self.first.outputs(), name)) {
            return Err(Error::unsupported(format!(
                "word_times: decoder_model.onnx of this model has no output `{missing}`; it must be exported with its \
                 cross-attentions (`output_attentions=True`)"
            )));
        }
        let outputs: Vec<&str> = [LOGITS].into_iter().chain(names.iter().map(String::as_str)).collect();
        let mut results = self.read(tokens, audio, &outputs)?.into_iter();
        Ok(Attended { logits: self.logits(results.next())?, attentions: results.collect() })
    }

    fn read(&self, tokens: &[u32], audio: &R::Value, outputs: &[&str]) -> Result<Vec<R::Value>, Error> {
        let numbers: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let shape = [1, tokens.len() as i64];
        let tokens = from_i64s(&self.first, spec(&self.first, TOKENS)?, &shape, &numbers)?;
        self.first.run(&[(TOKENS, &tokens), (AUDIO, audio)], outputs)
    }

    fn logits(&self, value: Option<R::Value>) -> Result<Logits<R::Value>, Error> {
        let value = only(value.into_iter().collect())?;
        match value.shape() {
            [1, _, columns] if usize::try_from(*columns) == Ok(self.vocabulary) => {
                Ok(Logits { value, vocabulary: self.vocabulary })
            }
            shape => Err(Error::bad_model(format!(
                "the decoder returned logits of shape {shape:?}, expected [1, tokens, {}]",
                self.vocabulary
            ))),
        }
    }
}

impl<V: Value> Logits<V> {
    /// Copies the logits after the token `row` into `out`.
    pub(super) fn copy_row(&self, row: usize, out: &mut Vec<f32>) -> Result<(), Error> {
        let bytes = self.value.bytes()?;
        let width = self.vocabulary * self.value.dtype().size_bytes();
        let row = bytes.get(row * width..(row + 1) * width);
        let row =
            row.ok_or_else(|| Error::bad_model("the decoder returned fewer logits than it read tokens"))?;
        out.clear();
        match self.value.dtype() {
            Dtype::F32 => out.extend(row.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes))),
            Dtype::F16 => {
                out.extend(row.as_chunks().0.iter().map(|bytes| f16::from_ne_bytes(*bytes).to_f32()))
            }
            other => {
                return Err(Error::bad_model(format!(
                    "the decoder's logits are {other:?}, expected F32 or F16"
                )));
            }
        }
        Ok(())
    }

    /// Copies the logits after the last token into `out`.
    pub(super) fn copy_last_row(&self, out: &mut Vec<f32>) -> Result<(), Error> {
        let rows = self.value.shape().get(1).and_then(|rows| usize::try_from(*rows).ok()).unwrap_or(0);
        self.copy_row(rows.saturating_sub(1), out)
    }
}

/// Whether a part of the cache grows with each token; the others belong to the sound and stay.
fn is_of_tokens(name: &str) -> bool {
    name.contains(".decoder.")
}

fn has(specs: &[TensorSpec], name: &str) -> bool {
    specs.iter().any(|spec| spec.name == name)
}

fn spec<'a, R: TensorRunner>(runner: &'a R, name: &str) -> Result<&'a TensorSpec, Error> {
    let found = runner.inputs().iter().find(|spec| spec.name == name);
    found.ok_or_else(|| Error::internal(format!("the network lost its input `{name}`")))
}

fn only<V>(values: Vec<V>) -> Result<V, Error> {
    values.into_iter().next().ok_or_else(|| Error::internal("the network returned nothing"))
}
