//! `/admin`: what is loaded, and loading and unloading it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::future::join_all;
use pajamas_plugin_api::{Device, ModelInfo, ModelStats, Task};
use serde::{Deserialize, Serialize};

use super::ApiState;
use super::access::AccessRecord;
use super::error::{ApiError, Category};
use super::models::state_name;
use crate::engine::{
    ModelState, ModelStatus, ModelSwapError, PluginState, PluginStatus, SwapError, SwapMode, SwapReport,
    SwapRequest,
};
use crate::hardware::Memory;
use crate::metrics::{METRICS, Moment};

/// `GET /admin/models`: the models with everything that is known of them, measured where they are loaded.
pub(super) async fn models(State(state): State<ApiState>) -> Json<List<AdminModel>> {
    let models = state.engine.models().into_iter().map(async |status| {
        let stats = match state.engine.loaded(&status.id) {
            Some(loaded) => loaded.stats().await,
            None => Ok(None),
        };
        let stats = stats.unwrap_or_else(|error| {
            tracing::warn!(model = status.id, "cannot measure the model: {error}");
            None
        });
        AdminModel::new(status, stats)
    });
    Json(List::new(join_all(models).await))
}

/// `GET /metrics`.
pub(super) async fn metrics(State(state): State<ApiState>) -> Result<Response, ApiError> {
    let mut devices: BTreeMap<String, u64> = BTreeMap::new();
    for model in state.engine.models() {
        let Some(loaded) = state.engine.loaded(&model.id) else { continue };
        // A model that cannot be measured is left out; `/admin/models` says why.
        let stats = loaded.stats().await.ok().flatten().unwrap_or_default();
        for (device, bytes) in stats.bytes {
            *devices.entry(device).or_default() += bytes;
        }
    }
    let moment = Moment {
        models: devices.into_iter().collect(),
        available_bytes: Memory::now().available_bytes,
        gpus: state.engine.gpu_readings().await,
    };
    let text = METRICS.text(&moment).map_err(|error| {
        tracing::error!("cannot write the metrics: {error}");
        ApiError::server("internal_error", "the server failed on this request")
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// `GET /admin/plugins`: the plugins, also those that were refused, with the reason.
pub(super) async fn plugins(State(state): State<ApiState>) -> Json<List<AdminPlugin>> {
    Json(List::new(state.engine.plugins().into_iter().map(AdminPlugin::new).collect()))
}

/// `POST /admin/models/{id}/load`, `…/unload` and `…/swap`; names may contain slashes, so the action is what follows the last.
///
/// # Errors
/// When the model does not exist, cannot be loaded, or a web page of another origin asks.
///
/// # Cancellation
/// A load goes on when the client goes away.
pub(super) async fn change_model(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    Path(action): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    refuse_other_origins(&headers)?;
    let (id, action) = action.rsplit_once('/').unwrap_or(("", &action));
    if !matches!(action, "load" | "unload" | "swap") || id.is_empty() {
        let message =
            format!("there is no route POST {}: the path ends with /load, /unload or /swap", uri.path());
        return Err(ApiError::new(StatusCode::NOT_FOUND, Category::NotFound, "route_not_found", message));
    }
    record.set_model(id);
    if action == "swap" {
        let drain_timeout = Duration::from_millis(DRAIN_MS_DEFAULT.into());
        return match state.engine.swap_model(id, drain_timeout).await {
            Ok(report) => Ok(Json(report).into_response()),
            Err(ModelSwapError::Engine(error)) => Err(error.into()),
            Err(ModelSwapError::Swap(error)) => Err(swap_error(&state, &error)),
        };
    }
    let (changed, returned_bytes) = if action == "load" {
        let was_ready = state.engine.model(id).is_some_and(|model| matches!(model.state, ModelState::Ready));
        state.engine.load(id).await?;
        (!was_ready, None)
    } else {
        let unloaded = state.engine.unload(id).await?;
        (unloaded.is_some(), unloaded.and_then(|unloaded| unloaded.returned_bytes))
    };
    Ok(Json(Changed { id: id.to_owned(), action: action.to_owned(), changed, returned_bytes })
        .into_response())
}

/// `POST /admin/plugins/{name}/reset`: lifts a quarantine and forgets the plugin's crashes.
///
/// # Errors
/// When there is no such plugin, or a web page of another origin asks.
pub(super) async fn reset_plugin(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    refuse_other_origins(&headers)?;
    let Some(changed) = state.engine.reset_plugin(&name) else { return Err(no_such_plugin(&state, &name)) };
    let returned_bytes = None;
    Ok(Json(Changed { id: name, action: "reset".to_owned(), changed, returned_bytes }).into_response())
}

/// What a swap's request says. An empty body says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SwapBody {
    version: Option<String>,
    mode: Option<SwapMode>,
    drain_timeout_ms: Option<u32>,
}

/// `POST /admin/plugins/{name}/swap`: replaces the version of a plugin under live traffic.
///
/// # Errors
/// When the body is not valid, there is no such plugin or version, the new version fails before it gets the routes, or a
/// web page of another origin asks.
///
/// # Cancellation
/// The swap goes on when the client goes away.
pub(super) async fn swap_plugin(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<SwapReport>, ApiError> {
    refuse_other_origins(&headers)?;
    let body: SwapBody = if body.is_empty() {
        SwapBody::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| ApiError::invalid("body", error))?
    };
    let drain_ms = body.drain_timeout_ms.unwrap_or(DRAIN_MS_DEFAULT);
    let drain_timeout = Duration::from_millis(drain_ms.into());
    let request = SwapRequest { version: body.version, mode: body.mode, drain_timeout };
    state.engine.swap_plugin(&name, request).await.map(Json).map_err(|error| swap_error(&state, &error))
}

/// How long streams may finish in the old version of a plugin.
const DRAIN_MS_DEFAULT: u32 = 30_000;

fn swap_error(state: &ApiState, error: &SwapError) -> ApiError {
    let (status, category, code) = match error {
        SwapError::UnknownPlugin(name) => return no_such_plugin(state, name),
        SwapError::Version(_) => (StatusCode::NOT_FOUND, Category::NotFound, "version_not_found"),
        SwapError::Busy(_) => (StatusCode::CONFLICT, Category::InvalidRequest, "swap_in_progress"),
        SwapError::Unfit { .. }
        | SwapError::Load { .. }
        | SwapError::SelfTest { .. }
        | SwapError::NoRoom { .. } => (StatusCode::UNPROCESSABLE_ENTITY, Category::Server, "swap_failed"),
    };
    let message = format!("{}; the old version still serves", crate::error_chain(error));
    ApiError::new(status, category, code, message)
}

fn no_such_plugin(state: &ApiState, name: &str) -> ApiError {
    let known: Vec<String> = state.engine.plugins().into_iter().map(|plugin| plugin.name).collect();
    let message = format!("there is no plugin \"{name}\"; installed are: {}", known.join(", "));
    ApiError::new(StatusCode::NOT_FOUND, Category::NotFound, "plugin_not_found", message)
}

/// A POST without a body needs no leave of the browser, so any web page could send one to a server on the same machine.
pub(super) fn refuse_other_origins(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let authority =
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if authority.is_some() && authority == host {
        return Ok(());
    }
    let message = "web pages of other origins must not administer this server";
    Err(ApiError::new(StatusCode::FORBIDDEN, Category::Permission, "cross_origin", message))
}

/// A list of something.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    data: Vec<T>,
}

impl<T> List<T> {
    pub(super) fn new(data: Vec<T>) -> Self {
        Self { data }
    }
}

#[derive(Debug, Serialize)]
struct Changed {
    id: String,
    action: String,
    /// False when the model already was in the state that was asked for.
    changed: bool,
    /// Bytes of memory that an unload gave back to the system, where that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    returned_bytes: Option<u64>,
}

/// A model as operators see it.
#[derive(Debug, Serialize)]
pub(super) struct AdminModel {
    id: String,
    aliases: Vec<String>,
    format: String,
    path: PathBuf,
    tasks: Vec<Task>,
    state: &'static str,
    /// Why loading failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Requests that run, and requests that wait for their turn.
    running: usize,
    waiting: usize,
    plugin: Option<String>,
    size_bytes: u64,
    info: Option<Arc<ModelInfo>>,
    /// Measured memory and occupancy of a loaded model.
    stats: Option<ModelStats>,
}

impl AdminModel {
    fn new(status: ModelStatus, stats: Option<ModelStats>) -> Self {
        Self {
            state: state_name(&status.state),
            error: match status.state {
                ModelState::Failed(reason) => Some(reason),
                _ => None,
            },
            id: status.id,
            aliases: status.aliases,
            format: status.format,
            path: status.path,
            tasks: status.tasks,
            running: status.running,
            waiting: status.waiting,
            plugin: status.plugin,
            size_bytes: status.size_bytes,
            info: status.info,
            stats,
        }
    }
}

/// A plugin as operators see it.
#[derive(Debug, Serialize)]
pub(super) struct AdminPlugin {
    name: String,
    version: String,
    description: String,
    path: PathBuf,
    formats: Vec<String>,
    tasks: Vec<Task>,
    state: &'static str,
    /// Why the plugin cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    engine: Option<String>,
    devices: Vec<Device>,
}

impl AdminPlugin {
    fn new(status: PluginStatus) -> Self {
        let (state, reason) = match status.state {
            PluginState::Probing => ("probing", None),
            PluginState::Ready => ("ready", None),
            PluginState::Running => ("running", None),
            PluginState::Rejected(reason) => ("rejected", Some(reason)),
            PluginState::Quarantined(reason) => ("quarantined", Some(reason)),
        };
        Self {
            name: status.name,
            version: status.version,
            description: status.description,
            path: status.path,
            formats: status.formats,
            tasks: status.tasks,
            state,
            reason,
            engine: status.engine,
            devices: status.devices,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_pages_of_the_server_itself_may_administer_it() {
        let table = [
            (None, true),
            (Some("http://127.0.0.1:8080"), true),
            (Some("https://127.0.0.1:8080"), true),
            (Some("http://127.0.0.1:3000"), false),
            (Some("https://example.com"), false),
            (Some("null"), false),
        ];
        for (origin, allowed) in table {
            let mut headers =
                HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("127.0.0.1:8080"))]);
            headers.extend(origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin))));
            assert_eq!(refuse_other_origins(&headers).is_ok(), allowed, "{origin:?}");
        }
    }
}
