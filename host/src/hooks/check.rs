//! A dry run of a hook, for people who write one: what it is, and what it does with samples.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::component::{Facts, Hook};
use super::error::{Fault, LoadError};
use super::instance::Instance;
use super::limits::HookLimits;
use super::runtime::Runtime;
use super::v0_1::{self, Function};
use super::value::{CallContext, Message, Picture, Sound, TensorSource, Verdict};
use crate::config::HookConfig;

/// Calls of each function; the median is told.
const ROUNDS: usize = 20;

/// What a dry run has found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// What the hook is.
    #[serde(flatten)]
    pub facts: Facts,
    /// What it may use.
    pub limits: HookLimits,
    /// Reading and compiling it, or reading what was compiled before.
    pub load_ms: f64,
    /// Starting an instance.
    pub start_us: f64,
    /// What it does with samples.
    pub samples: Vec<Sample>,
}

/// A function and what it does with a sample.
#[derive(Debug, Serialize)]
pub struct Sample {
    /// The function and what it got.
    pub call: &'static str,
    /// What it did.
    pub outcome: String,
    /// Whether it failed.
    pub failed: bool,
    /// Median time of a call.
    pub call_us: f64,
}

/// Loads a hook and calls what it exports. Blocks, and needs tokio's runtime around it.
///
/// # Errors
/// It cannot be loaded. What goes wrong with a sample is in the report.
pub fn check(path: &Path, config: &HookConfig, cache_dir: &Path) -> Result<CheckReport, LoadError> {
    let runtime = Arc::new(Runtime::new(cache_dir)?);
    let begun = Instant::now();
    let hook = Hook::load(&runtime, path, config, &Arc::default())?;
    let load = begun.elapsed();
    let start = median(|| Instance::start(&hook).map(drop)).map_err(LoadError::Describe)?;
    let samples = hook.functions().filter_map(|function| sample(&hook, function)).collect();
    Ok(CheckReport {
        facts: hook.facts.clone(),
        limits: config.limits,
        load_ms: load.as_secs_f64() * 1e3,
        start_us: start.as_secs_f64() * 1e6,
        samples,
    })
}

fn median(mut body: impl FnMut() -> Result<(), Fault>) -> Result<Duration, Fault> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        body()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[ROUNDS / 2])
}

fn sample(hook: &Arc<Hook>, function: Function) -> Option<Sample> {
    let context = CallContext {
        task: "generate".to_owned(),
        model: "sample".to_owned(),
        request_id: "check".to_owned(),
        caller: String::new(),
    };
    let message = |role: &str, content: &str, source| Message {
        source: Some(source),
        role: role.to_owned(),
        content: content.to_owned(),
    };
    let messages = [
        message("system", "You are a helpful assistant.", 0),
        message("user", "Write to jane.doe@example.com or call +49 30 901820.", 1),
    ];
    let picture = Picture { width: 640, height: 480, pixels: vec![127; 640 * 480 * 3] };
    let sound = Sound { sample_rate_hz: 16_000, samples: vec![0.0; 16_000] };
    let call = match function {
        Function::Describe => return None,
        Function::TextInput => "text.input of a system and a user message",
        Function::TextOutput => "text.output of one piece",
        Function::ImageInput => "image.input of a grey picture of 640x480 pixels",
        Function::AudioInput => "audio.input of a second of silence",
        Function::TensorConvert => "tensor.convert of a grey picture of 640x480 pixels",
    };
    let source = TensorSource::Picture(picture.clone());
    let mut outcome = String::new();
    let time = median(|| {
        let mut instance = Instance::start(hook)?;
        outcome = match function {
            Function::Describe => String::new(),
            Function::TextInput => tell(v0_1::text_input(&mut instance, &context, &messages)?, |new| {
                let contents: Vec<&str> = new.iter().map(|message| message.content.as_str()).collect();
                format!("{contents:?}")
            }),
            Function::TextOutput => {
                let piece = "Her address is jane.doe@example.com.";
                tell(v0_1::text_output(&mut instance, &context, 0, piece, true)?, |new| format!("{new:?}"))
            }
            Function::ImageInput => {
                tell(v0_1::image_input(&mut instance, &context, &picture)?, |(new, _)| {
                    format!("a picture of {}x{} pixels", new.width, new.height)
                })
            }
            Function::AudioInput => tell(v0_1::audio_input(&mut instance, &context, &sound)?, |(new, _)| {
                format!("{} samples", new.samples.len())
            }),
            Function::TensorConvert => {
                tell(v0_1::tensor_convert(&mut instance, &context, "images", &source)?, |tensors| {
                    let tensors = tensors.iter().map(|t| format!("{} {:?} {:?}", t.name, t.dtype, t.shape));
                    tensors.collect::<Vec<_>>().join(", ")
                })
            }
        };
        Ok(())
    });
    Some(match time {
        Ok(time) => Sample { call, outcome, failed: false, call_us: time.as_secs_f64() * 1e6 },
        Err(fault) => Sample { call, outcome: fault.to_string(), failed: true, call_us: 0.0 },
    })
}

fn tell<T>(verdict: Verdict<T>, describe: impl FnOnce(T) -> String) -> String {
    match verdict {
        Verdict::Pass => "passed".to_owned(),
        Verdict::Change(new) => format!("changed to {}", describe(new)),
        Verdict::Reject(message) => format!("rejected: {message}"),
    }
}
