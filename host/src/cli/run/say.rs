//! Text that a model speaks into a file.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Params, Part, Request, SpeakParams, Task};
use serde_json::json;

use super::answer::without_end;
use super::{Error, files, prompt};
use crate::cli::print::Printer;
use crate::engine::{Caller, EngineError, JobEvent, LoadedModel};
use crate::media::{AudioEncoder, AudioFormat};

/// A text to speak.
pub(super) struct Say {
    text: String,
    voice: Option<String>,
    path: PathBuf,
    format: AudioFormat,
}

impl Say {
    /// Speaks `text` into the file at `path`, whose extension tells the format.
    ///
    /// # Errors
    /// There is no such format.
    pub(super) fn new(text: String, voice: Option<String>, path: PathBuf) -> Result<Self, Error> {
        let format = match files::extension(&path).as_str() {
            "ogg" => Some(AudioFormat::Opus),
            extension => AudioFormat::from_name(extension).ok(),
        };
        let format = format.ok_or(Error::Usage(
            "speech is written as WAV, FLAC, Opus or PCM: give -o a name that ends in .wav, .flac, .opus, .ogg or .pcm",
        ))?;
        Ok(Self { text, voice, path, format })
    }

    /// Lets the model speak, and writes the file when it has ended.
    pub(super) async fn run(self, model: &LoadedModel, json: bool) -> Result<(), Error> {
        model.require(&Task::Speak)?;
        let params = SpeakParams { voice: self.voice, ..SpeakParams::default() };
        let request = Request {
            task: Task::Speak,
            params: Params::new(&params).map_err(EngineError::Plugin)?,
            parts: vec![Part::text(self.text)],
            deadline_ms: None,
        };
        let started = Instant::now();
        let mut job = model.submit(request, Caller::default())?;
        let media = |source| Error::Media { path: self.path.clone(), source };
        let (mut encoder, mut file, mut spoken, mut first) = (None, Vec::new(), 0.0, None);
        while let Some(event) = job.next().await {
            match event {
                JobEvent::Audio { samples, sample_rate_hz, channels } => {
                    first.get_or_insert_with(|| started.elapsed());
                    let encoder = match &mut encoder {
                        Some(encoder) => encoder,
                        empty => empty
                            .insert(AudioEncoder::new(self.format, sample_rate_hz, channels).map_err(media)?),
                    };
                    spoken += samples.len() as f64 / f64::from(sample_rate_hz) / f64::from(channels);
                    file.extend(encoder.push(&samples).map_err(media)?);
                }
                JobEvent::Failed(error) => return Err(error.into()),
                JobEvent::Done { .. } => {
                    let encoder =
                        encoder.ok_or(Error::Usage("there is nothing in the text that can be spoken"))?;
                    file.extend(encoder.finish().map_err(media)?);
                    self.format.set_length(&mut file);
                    files::write(&self.path, &file)?;
                    return report(model, &self.path, spoken, first.unwrap_or_default(), json);
                }
                _ => {}
            }
        }
        Err(without_end())
    }
}

fn report(
    model: &LoadedModel,
    path: &std::path::Path,
    seconds: f64,
    first: Duration,
    json: bool,
) -> Result<(), Error> {
    let first_sound_ms = first.as_millis() as u64;
    if json {
        return Printer::stdout().json(&json!({
            "model": model.id(),
            "plugin": model.plugin(),
            "file": path,
            "seconds": seconds,
            "first_sound_ms": first_sound_ms,
        }));
    }
    let path = path.display();
    prompt::note(&format!("{seconds:.1} s of speech in {path}, first sound after {first_sound_ms} ms"));
    Ok(())
}
