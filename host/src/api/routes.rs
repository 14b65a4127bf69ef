//! `/admin/routes`: which models stand behind a public name.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::ApiState;
use super::admin::{List, refuse_other_origins};
use super::error::{ApiError, Category};
use crate::config::RouteConfig;
use crate::engine::RouteError;
use crate::models::NAME_BYTES_MAX;

/// A route as operators see it.
#[derive(Debug, Serialize)]
pub(super) struct NamedRoute {
    name: String,
    #[serde(flatten)]
    route: RouteConfig,
}

/// What became of a route.
#[derive(Debug, Serialize)]
pub(super) struct Removed {
    name: String,
    removed: bool,
}

/// `GET /admin/routes`.
pub(super) async fn list(State(state): State<ApiState>) -> Json<List<NamedRoute>> {
    let routes = state.engine.routes().into_iter();
    Json(List::new(routes.map(|(name, route)| NamedRoute { name, route }).collect()))
}

/// `PUT /admin/routes/{name}`: makes a route or replaces it, for the requests that come from now on. It lasts until the
/// host ends.
///
/// # Errors
/// When the body is not a route, a model does not exist, there are too many routes, or a web page of another origin asks.
pub(super) async fn set(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<NamedRoute>, ApiError> {
    refuse_other_origins(&headers)?;
    if name.len() > NAME_BYTES_MAX {
        let problem = format_args!("has {} bytes, at most {NAME_BYTES_MAX} are allowed", name.len());
        return Err(ApiError::invalid("name", problem));
    }
    let route: RouteConfig =
        serde_json::from_slice(&body).map_err(|error| ApiError::invalid("body", error))?;
    match state.engine.set_route(&name, route.clone()) {
        Ok(()) => Ok(Json(NamedRoute { name, route })),
        Err(error @ RouteError::UnknownModel(_)) => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            Category::NotFound,
            "model_not_found",
            error.to_string(),
        )),
        Err(error @ RouteError::TooMany) => Err(ApiError::invalid("name", error)),
    }
}

/// `DELETE /admin/routes/{name}`.
///
/// # Errors
/// When there is no such route, or a web page of another origin asks.
pub(super) async fn remove(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Removed>, ApiError> {
    refuse_other_origins(&headers)?;
    if !state.engine.remove_route(&name) {
        let message = format!("there is no route \"{name}\": GET /admin/routes lists what is there");
        return Err(ApiError::new(StatusCode::NOT_FOUND, Category::NotFound, "route_not_found", message));
    }
    Ok(Json(Removed { name, removed: true }))
}
