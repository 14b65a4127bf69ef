//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use pajamas_plugin_api::Task;
use serde::Serialize;

use super::ApiState;
use super::error::ApiError;
use crate::config::{RouteConfig, RouteTarget};
use crate::engine::{EngineError, ModelState, ModelStatus};

/// Lists the routes, and the models whose names are not taken by one, loaded or not.
pub(super) async fn list(State(state): State<ApiState>) -> Json<ModelList> {
    let routes = state.engine.routes();
    let models = state.engine.models().into_iter();
    let own = models.filter(|model| routes.iter().all(|(name, _)| *name != model.id)).map(Model::new);
    let mut data: Vec<Model> = own.collect();
    data.extend(routes.iter().filter_map(|(name, route)| Model::of_route(&state, name, route)));
    data.sort_by(|a, b| a.id.cmp(&b.id));
    Json(ModelList { object: "list", data })
}

/// One route or model, by name or alias; names may contain slashes.
///
/// # Errors
/// When there is none of that name.
pub(super) async fn retrieve(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let route = state.engine.routes().into_iter().find(|(name, _)| *name == id);
    if let Some(model) = route.and_then(|(name, route)| Model::of_route(&state, &name, &route)) {
        return Ok(Json(model));
    }
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
    /// For a route: who answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<RouteTarget>,
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
            targets: Vec::new(),
        }
    }

    /// A route, as the first of its targets that exists; `None` when none does.
    fn of_route(state: &ApiState, name: &str, route: &RouteConfig) -> Option<Self> {
        let status = route.targets.iter().find_map(|target| state.engine.model(&target.model))?;
        let first = Self::new(status);
        Some(Self { id: name.to_owned(), aliases: Vec::new(), targets: route.targets.clone(), ..first })
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
