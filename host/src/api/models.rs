//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use pajamas_plugin_api::Task;
use serde::Serialize;

use super::ApiState;
use super::error::ApiError;
use crate::engine::{EngineError, ModelState, ModelStatus};

/// Lists the models, loaded or not.
pub(super) async fn list(State(state): State<ApiState>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: state.engine.models().into_iter().map(Model::new).collect() })
}

/// One model, by name or alias; names may contain slashes.
///
/// # Errors
/// When there is none of that name.
pub(super) async fn retrieve(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let model = state.engine.model(&id).ok_or(EngineError::UnknownModel { name: id })?;
    Ok(Json(Model::new(model)))
}

/// The answer to a list request.
#[derive(Debug, Serialize)]
pub(super) struct ModelList {
    object: &'static str,
    data: Vec<Model>,
}

/// OpenAI's fields of a model, and what this server knows beyond them.
#[derive(Debug, Serialize)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    aliases: Vec<String>,
    format: String,
    tasks: Vec<Task>,
    state: &'static str,
    plugin: Option<String>,
    size_bytes: u64,
    context_length: Option<u32>,
}

impl Model {
    fn new(status: ModelStatus) -> Self {
        Self {
            id: status.id,
            object: "model",
            created: status.created_unix_s,
            owned_by: "pajamas-host",
            aliases: status.aliases,
            format: status.format,
            tasks: status.tasks,
            state: state_name(&status.state),
            plugin: status.plugin,
            size_bytes: status.size_bytes,
            context_length: status.info.and_then(|info| info.context_length),
        }
    }
}

/// The word for a state.
pub(super) fn state_name(state: &ModelState) -> &'static str {
    match state {
        ModelState::Unloaded => "unloaded",
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Failed(_) => "failed",
    }
}
