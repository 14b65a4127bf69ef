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
use crate::hooks::Placement;

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
    let (model, placements) = (running.model.clone(), running.placements.clone());
    let mut document = Document::<Found>::collect(running, &record, name).await?;
    for (item, placement) in document.data.iter_mut().zip(placements) {
        for detection in &mut item.found.detections {
            rename(&model, detection.class_id, &mut detection.class_name);
            if let Some(placement) = placement {
                detection.place(&placement);
            }
        }
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

impl Detection {
    /// Moves the box from the picture that a hook made to the one that the client sent: to what surrounds its corners.
    fn place(&mut self, placement: &Placement) {
        let (left, top) = (f64::from(self.x), f64::from(self.y));
        let (right, bottom) = (left + f64::from(self.width), top + f64::from(self.height));
        let corners = [(left, top), (right, top), (left, bottom), (right, bottom)];
        let corners = corners.map(|(x, y)| placement.map(x, y));
        let least = |of: fn(&(f64, f64)) -> f64| corners.iter().map(of).fold(f64::INFINITY, f64::min);
        let most = |of: fn(&(f64, f64)) -> f64| corners.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
        let (left, top) = (least(|corner| corner.0), least(|corner| corner.1));
        self.width = (most(|corner| corner.0) - left) as f32;
        self.height = (most(|corner| corner.1) - top) as f32;
        (self.x, self.y) = (left as f32, top as f32);
    }
}
