//! `/admin/hooks`: which hooks run, and changing them while the host serves.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use super::ApiState;
use super::admin::{List, refuse_other_origins};
use super::error::{ApiError, Category};
use crate::config::HookConfig;
use crate::hooks::{HookStatus, HooksError};

/// What became of a hook.
#[derive(Debug, Serialize)]
pub(super) struct Removed {
    name: String,
    removed: bool,
}

/// `GET /admin/hooks`: in the order in which they run.
pub(super) async fn list(State(state): State<ApiState>) -> Json<List<HookStatus>> {
    Json(List::new(state.hooks.list()))
}

/// `PUT /admin/hooks/{name}`: adds a hook or replaces it, for the requests that come from now on. It lasts until the host
/// ends.
///
/// # Errors
/// When the body is not a hook, the hook cannot be loaded, there are too many, or a web page of another origin asks.
pub(super) async fn set(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<HookStatus>, ApiError> {
    refuse_other_origins(&headers)?;
    let wrong = |error| ApiError::invalid("body", error);
    let mut fields: Map<String, Value> = serde_json::from_slice(&body).map_err(wrong)?;
    fields.insert("name".to_owned(), Value::String(name));
    let config: HookConfig = serde_json::from_value(Value::Object(fields)).map_err(wrong)?;
    state.hooks.set(config).await.map(Json).map_err(|error| hooks_error(&error, "nothing has changed"))
}

/// `DELETE /admin/hooks/{name}`.
///
/// # Errors
/// When there is no such hook, or a web page of another origin asks.
pub(super) async fn remove(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Removed>, ApiError> {
    refuse_other_origins(&headers)?;
    state.hooks.remove(&name).map_err(|error| hooks_error(&error, ""))?;
    Ok(Json(Removed { name, removed: true }))
}

/// `POST /admin/hooks/{name}/reload`: reads its file again.
///
/// # Errors
/// When there is no such hook, its file cannot be used, or a web page of another origin asks.
pub(super) async fn reload(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<HookStatus>, ApiError> {
    refuse_other_origins(&headers)?;
    let still = "the hook that was loaded before still runs";
    state.hooks.reload(&name).await.map(Json).map_err(|error| hooks_error(&error, still))
}

/// An error, and what holds in spite of it.
fn hooks_error(error: &HooksError, still: &str) -> ApiError {
    match error {
        HooksError::Unknown(_) => {
            let message = format!("{error}: GET /admin/hooks lists what is there");
            ApiError::new(StatusCode::NOT_FOUND, Category::NotFound, "hook_not_found", message)
        }
        HooksError::Load { .. } => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Category::InvalidRequest,
            "hook_not_loaded",
            format!("{}; {still}", crate::error_chain(error)),
        ),
        HooksError::TooMany | HooksError::Twice(_) => ApiError::invalid("name", error),
    }
}
