//! `/v1/images/…`: boxes, classes and vectors of pictures.
//!
//! `input` reads a body of either type into pictures that are still files, [`run`] loads the model, decodes them within
//! the operator's bounds and starts the job, and the file of each route makes its answer of the events.

pub(super) mod classify;
pub(super) mod detect;
pub(super) mod embeddings;
mod input;

use std::time::{Duration, Instant};

use pajamas_plugin_api::{Params, Part, Request, Task, Usage};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ApiState;
use super::access::AccessRecord;
use super::error::ApiError;
use super::hooks;
use super::meta;
use crate::engine::{JobEvent, JobStream, LoadedModel};
use crate::hooks::Placement;
use input::Input;

/// A job with the pictures of one request.
struct Running {
    model: LoadedModel,
    job: JobStream,
    /// Width and height of each picture.
    sizes: Vec<[u32; 2]>,
    /// How places in each picture are moved, where a hook changed it.
    placements: Vec<Option<Placement>>,
    /// What decoding the pictures took.
    decoding: Duration,
    started: Instant,
}

/// Loads the model, decodes the pictures and starts the job.
///
/// The files wait for the model, not the pixels: those are twenty times as many bytes.
async fn run(
    state: &ApiState,
    record: &AccessRecord,
    task: Task,
    params: Params,
    input: Input,
) -> Result<Running, ApiError> {
    let model = meta::acquire(state, record, &input.model, &task).await?;
    let begun = Instant::now();
    let mut pixels_left = state.media.limits().image_pixels;
    let mut hooks = hooks::begin(state, record, &model, &input.model, &task).await?;
    let (mut parts, mut sizes, mut placements) = (Vec::new(), Vec::new(), Vec::new());
    for (place, bytes) in input.images {
        let picture = state.media.image(bytes, pixels_left).await;
        let picture = picture.map_err(|error| ApiError::invalid(place, error))?;
        pixels_left -= u64::from(picture.width) * u64::from(picture.height);
        let (picture, size, placement) = hooks::picture(&mut hooks, picture).await?;
        sizes.push(size);
        placements.push(placement);
        parts.push(Part::Rgb8 { width: picture.width, height: picture.height, data: picture.data });
    }
    let deadline_ms = Some(record.deadline_ms(state.limits));
    let decoding = begun.elapsed();
    let job = model.submit(Request { task, params, parts, deadline_ms }, record.caller())?;
    Ok(Running { model, job, sizes, placements, decoding, started: Instant::now() })
}

/// The answer about several pictures.
#[derive(Debug, Serialize)]
pub(super) struct Document<T> {
    object: &'static str,
    model: String,
    data: Vec<Item<T>>,
    usage: ImageUsage,
    timing: Timing,
}

/// What was found in one picture.
#[derive(Debug, Serialize)]
struct Item<T> {
    index: usize,
    /// Of the picture as it is shown, in pixels.
    width: u32,
    height: u32,
    #[serde(flatten)]
    found: T,
}

#[derive(Debug, Serialize)]
struct ImageUsage {
    images: usize,
    prompt_tokens: u32,
    total_tokens: u32,
}

/// Where the time went.
#[derive(Debug, Serialize)]
struct Timing {
    decode_ms: f64,
    /// From the submission to the last event: the wait for a slot, too.
    inference_ms: f64,
}

impl<T: DeserializeOwned> Document<T> {
    /// Reads the job's answers, one JSON document for each picture.
    async fn collect(mut running: Running, record: &AccessRecord, model: String) -> Result<Self, ApiError> {
        let mut found: Vec<Option<T>> = running.sizes.iter().map(|_| None).collect();
        let usage = loop {
            match running.job.next().await {
                Some(JobEvent::Detections(json)) => take(&mut found, index_in(&json)?, &json)?,
                Some(JobEvent::Result { index, json }) => take(&mut found, index, &json)?,
                Some(JobEvent::Failed(error)) => return Err(error.into()),
                Some(JobEvent::Done { usage, .. }) => break usage,
                Some(_) => {}
                None => return Err(incomplete()),
            }
        };
        record.add_prompt_tokens(usage.prompt_tokens);
        let timing = Timing {
            decode_ms: running.decoding.as_secs_f64() * 1000.0,
            inference_ms: running.started.elapsed().as_secs_f64() * 1000.0,
        };
        Self::new(model, &running.sizes, found, usage, timing)
    }

    fn new(
        model: String,
        sizes: &[[u32; 2]],
        found: Vec<Option<T>>,
        usage: Usage,
        timing: Timing,
    ) -> Result<Self, ApiError> {
        let items = sizes.iter().zip(found).enumerate().map(|(index, ([width, height], found))| {
            Ok(Item { index, width: *width, height: *height, found: found.ok_or_else(incomplete)? })
        });
        let data = items.collect::<Result<Vec<_>, ApiError>>()?;
        let prompt_tokens = usage.prompt_tokens;
        let usage = ImageUsage { images: data.len(), prompt_tokens, total_tokens: prompt_tokens };
        Ok(Self { object: "list", model, data, usage, timing })
    }
}

/// Puts an answer of the plugin to the picture that it is about.
fn take<T: DeserializeOwned>(found: &mut [Option<T>], index: u32, json: &str) -> Result<(), ApiError> {
    if let Some(place) = found.get_mut(index as usize) {
        *place = Some(read(json)?);
    }
    Ok(())
}

/// The number of the picture in a document of `detect` (`SPEC.md`).
fn index_in(json: &str) -> Result<u32, ApiError> {
    #[derive(serde::Deserialize)]
    struct Index {
        #[serde(default)]
        index: u32,
    }
    Ok(read::<Index>(json)?.index)
}

fn read<T: DeserializeOwned>(json: &str) -> Result<T, ApiError> {
    serde_json::from_str(json).map_err(|error| {
        tracing::warn!(%error, "the plugin's answer has another schema than its task");
        ApiError::server("plugin_failed", "the plugin's answer could not be read")
    })
}

fn incomplete() -> ApiError {
    ApiError::server("plugin_failed", "the plugin did not answer for every picture")
}

/// The name of a class: the operator's, where `model.toml` has labels, else the plugin's.
fn rename(model: &LoadedModel, class_id: u32, class_name: &mut String) {
    if let Some(label) = model.info().labels.get(class_id as usize) {
        class_name.clone_from(label);
    }
}

#[cfg(test)]
mod tests;
