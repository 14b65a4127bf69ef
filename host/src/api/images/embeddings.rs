//! `POST /v1/images/embeddings`: vectors of pictures, in the shape of `/v1/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use pajamas_plugin_api::{Params, Task};

use super::{input, run};
use crate::api::ApiState;
use crate::api::access::AccessRecord;
use crate::api::embeddings::{self, Document, Shape};
use crate::api::error::ApiError;
use crate::api::multipart::Body;

/// Embeds one or more pictures.
///
/// # Errors
/// When the request is not valid, a picture cannot be decoded, the model cannot be used, or embedding fails.
///
/// # Cancellation
/// The job is cancelled when the client goes away.
pub(in crate::api) async fn create(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    body: Body,
) -> Result<Json<Document>, ApiError> {
    let (fields, input) = input::read(body).await?;
    let shape = Shape::new(fields.encoding_format.as_deref(), fields.dimensions)?;
    let name = input.model.clone();
    let running = run(&state, &record, Task::EmbedImage, Params::default(), input).await?;
    let count = running.sizes.len();
    let (vectors, usage) = embeddings::collect(running.job, count).await?;
    record.add_prompt_tokens(usage.prompt_tokens);
    Document::new(vectors, usage, name, shape).map(Json)
}
