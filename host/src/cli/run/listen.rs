//! Sound that a model writes down.

use std::path::Path;

use pajamas_plugin_api::{Params, Part, Request, Segment, Task, TranscribeParams};
use serde_json::json;

use super::answer::{malformed, without_end};
use super::{Error, files};
use crate::cli::print::Printer;
use crate::engine::{Caller, EngineError, JobEvent, LoadedModel};
use crate::media::{MediaLimits, Sound, decode_audio};

/// Sound to write down, read and decoded.
pub(super) struct Listen(Sound);

impl Listen {
    /// Reads the sound.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn new(path: &Path, limits: &MediaLimits) -> Result<Self, Error> {
        let sound = decode_audio(&files::read(path)?, limits);
        sound.map(Self).map_err(|source| Error::Media { path: path.to_owned(), source })
    }

    /// Prints each segment on a line of its own as soon as it is heard, or all of them as one document.
    pub(super) async fn run(self, model: &LoadedModel, json: bool) -> Result<(), Error> {
        model.require(&Task::Transcribe)?;
        let seconds = self.0.seconds();
        let params = TranscribeParams { word_times: json, ..TranscribeParams::default() };
        let request = Request {
            task: Task::Transcribe,
            params: Params::new(&params).map_err(EngineError::Plugin)?,
            parts: vec![Part::Pcm(self.0.samples)],
            deadline_ms: None,
        };
        let mut job = model.submit(request, Caller::default())?;
        let (mut printer, mut segments) = (Printer::stdout(), Vec::new());
        while let Some(event) = job.next().await {
            match event {
                JobEvent::Segment(text) => {
                    let segment: Segment = serde_json::from_str(&text).map_err(malformed)?;
                    if !json {
                        printer.line(segment.text.trim())?;
                    }
                    segments.push(segment);
                }
                JobEvent::Failed(error) => return Err(error.into()),
                JobEvent::Done { .. } if json => {
                    let texts: Vec<&str> = segments.iter().map(|segment| segment.text.trim()).collect();
                    return printer.json(&json!({
                        "model": model.id(),
                        "plugin": model.plugin(),
                        "seconds": seconds,
                        "text": texts.join(" "),
                        "segments": segments,
                    }));
                }
                JobEvent::Done { .. } => return Ok(()),
                _ => {}
            }
        }
        Err(without_end())
    }
}
