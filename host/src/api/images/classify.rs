//! `POST /v1/images/classify`: what pictures show.

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

/// Tells the most probable classes of one or more pictures.
///
/// # Errors
/// When the request is not valid, a picture cannot be decoded, the model cannot be used, or classification fails.
///
/// # Cancellation
/// The job is cancelled when the client goes away.
pub(in crate::api) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    body: Body,
) -> Result<Json<Document<Found>>, ApiError> {
    let (fields, input) = input::read(body).await?;
    let params = json::params(&ClassifyParams { classes_max: fields.classes_max })?;
    let name = input.model.clone();
    let running = run(&state, &record, Task::Classify, params, input).await?;
    let model = running.model.clone();
    let mut document = Document::<Found>::collect(running, &record, name).await?;
    for class in document.data.iter_mut().flat_map(|item| &mut item.found.classes) {
        rename(&model, class.class_id, &mut class.class_name);
    }
    Ok(Json(document))
}

/// Parameters of `classify`; the plugin's default holds for what is left out.
#[derive(Serialize)]
struct ClassifyParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    classes_max: Option<u32>,
}

/// The classes of a picture, best first.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::api) struct Found {
    classes: Vec<Class>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Class {
    class_id: u32,
    class_name: String,
    score: f32,
}
