//! `POST /v1/images/detect`: boxes around the objects in pictures.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use pajamas_plugin_api::Task;
use serde::{Deserialize, Serialize};

use super::{Document, input, rename, run};
use crate::api::ApiState;
use crate::api::access::AccessRecord;
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::multipart::Body;

/// Finds objects in one or more pictures.
///
/// # Errors
/// When the request is not valid, a picture cannot be decoded, the model cannot be used, or detection fails.
///
/// # Cancellation
/// The job is cancelled when the client goes away.
pub(in crate::api) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    body: Body,
) -> Result<Json<Document<Found>>, ApiError> {
    let (fields, input) = input::read(body).await?;
    let params = json::params(&DetectParams {
        confidence_min: fields.confidence_min,
        overlap_max: fields.overlap_max,
        detections_max: fields.detections_max,
    })?;
    let name = input.model.clone();
    let running = run(&state, &record, Task::Detect, params, input).await?;
    let model = running.model.clone();
    let mut document = Document::<Found>::collect(running, &record, name).await?;
    for detection in document.data.iter_mut().flat_map(|item| &mut item.found.detections) {
        rename(&model, detection.class_id, &mut detection.class_name);
    }
    Ok(Json(document))
}

/// Parameters of `detect`; the plugin's defaults hold for what is left out.
#[derive(Serialize)]
struct DetectParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence_min: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overlap_max: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detections_max: Option<u32>,
}

/// The boxes of a picture, best first.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::api) struct Found {
    detections: Vec<Detection>,
}

/// A box, in pixels of the picture as it is shown.
#[derive(Debug, Serialize, Deserialize)]
struct Detection {
    /// Left side.
    x: f32,
    /// Upper side.
    y: f32,
    width: f32,
    height: f32,
    confidence: f32,
    class_id: u32,
    class_name: String,
}
