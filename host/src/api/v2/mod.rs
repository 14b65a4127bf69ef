//! `/v2`: the Open Inference Protocol, version 2, with its binary tensor data extension, for models that do `infer`.
//!
//! The protocol: <https://github.com/kserve/open-inference-protocol>; the extension:
//! <https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md>.
//! Each model has the one version [`VERSION`]: versions of files are not what this host keeps.

mod datatype;
mod request;
mod response;
mod shape;

use std::sync::Arc;

use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{Stream, StreamExt as _};
use pajamas_plugin_api::{Part, Request, Task, TensorInfo};
use serde::Serialize;
use serde_json::json;

use self::request::InferSpec;
use super::ApiState;
use super::access::AccessRecord;
use super::aside;
use super::error::{ApiError, Category};
use super::hooks;
use super::json::{self, read_body};
use super::meta;
use crate::engine::{EngineError, JobEvent, ModelState, OutputTensor};

pub(super) use self::shape::reshape_errors;

/// The one version that each model has.
const VERSION: &str = "1";

/// `GET /v2`: what this server is.
pub(super) async fn server() -> Json<serde_json::Value> {
    Json(json!({
        "name": "pajamas-host",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data"],
    }))
}

/// `GET /v2/health/live`: whether the process answers at all.
pub(super) async fn live() -> Json<serde_json::Value> {
    Json(json!({ "live": true }))
}

/// `GET /v2/health/ready`: whether requests are welcome. The protocol says no with a 4xx.
pub(super) async fn ready(State(state): State<ApiState>) -> Response {
    let ready = state.engine.is_ready();
    (status_of(ready), Json(json!({ "ready": ready }))).into_response()
}

/// `GET /v2/models/{id}` and `…/ready`, also below `/versions/{version}`.
///
/// A model is ready when a request would be served, if need be after loading it.
///
/// # Errors
/// No such model or version, or no plugin can tell about it.
pub(super) async fn model(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    Path(target): Path<String>,
) -> Result<Response, ApiError> {
    let (name, is_ready_asked) = match target.strip_suffix("/ready") {
        Some(name) => (name, true),
        None => (target.as_str(), false),
    };
    let name = without_version(name)?;
    let unknown = || EngineError::UnknownModel { name: name.to_owned() };
    let status = state.engine.model(name).ok_or_else(unknown)?;
    record.set_model(name);
    if is_ready_asked {
        let ready = state.engine.is_ready() && !matches!(status.state, ModelState::Failed(_));
        return Ok((status_of(ready), Json(json!({ "name": name, "ready": ready }))).into_response());
    }
    let info = state.engine.describe(name).await?;
    Ok(Json(Metadata {
        name,
        versions: [VERSION],
        platform: &info.format,
        inputs: tensors(&info.inputs),
        outputs: tensors(&info.outputs),
    })
    .into_response())
}

/// `POST /v2/models/{id}/infer`, also below `/versions/{version}`.
///
/// # Errors
/// When the request is not valid, the model cannot be used, or the run fails.
///
/// # Cancellation
/// The job is cancelled when the client goes away.
pub(super) async fn infer(
    State(state): State<ApiState>,
    Extension(record): Extension<Arc<AccessRecord>>,
    Path(target): Path<String>,
    http: HttpRequest,
) -> Result<Response, ApiError> {
    let Some(name) = target.strip_suffix("/infer") else {
        let message = format!("there is no route POST {}: the path ends with /infer", http.uri().path());
        return Err(ApiError::new(StatusCode::NOT_FOUND, Category::NotFound, "route_not_found", message));
    };
    let name = without_version(name)?.to_owned();
    let headers = http.headers().clone();
    let body = read_body(http, &state).await?;
    let spec = aside::by_size(body.len(), move || InferSpec::read(&headers, &body)).await?;
    let model = meta::acquire(&state, &record, &name, &Task::Infer).await?;
    let mut hooks = hooks::begin(&state, &record, &model, &name, &Task::Infer).await?;
    let mut inputs = spec.inputs;
    for (name, file) in spec.files {
        inputs.extend(hooks::tensors(&state, &mut hooks, &name, file).await?);
    }
    let outputs: Vec<&str> = spec.wanted.iter().map(|output| output.name.as_str()).collect();
    let request = Request {
        task: Task::Infer,
        params: json::params(&json!({ "outputs": outputs }))?,
        parts: inputs.into_iter().map(Part::Tensor).collect(),
        deadline_ms: Some(record.deadline_ms(state.limits)),
    };
    let tensors = collect(model.submit(request, record.caller())?).await?;
    let (id, wanted, all_binary) = (spec.id, spec.wanted, spec.is_binary);
    let is_binary = move |name: &str| {
        let wanted = wanted.iter().find(|output| output.name == name);
        wanted.and_then(|output| output.is_binary).unwrap_or(all_binary)
    };
    let bytes = tensors.iter().map(|tensor| tensor.data.len()).sum();
    let write =
        move || response::write(&response::Head { model: &name, id: id.as_deref() }, &tensors, is_binary);
    aside::by_size(bytes, write).await
}

/// The tensors of a job, when it is done.
async fn collect<S>(mut job: S) -> Result<Vec<OutputTensor>, ApiError>
where
    S: Stream<Item = JobEvent> + Unpin,
{
    let mut outputs = None;
    while let Some(event) = job.next().await {
        match event {
            JobEvent::Tensors(tensors) => outputs = Some(tensors),
            JobEvent::Failed(error) => return Err(error.into()),
            JobEvent::Done { .. } => break,
            _ => {}
        }
    }
    outputs.ok_or_else(|| ApiError::server("plugin_failed", "the plugin answered without tensors"))
}

/// The model's name in front of `/versions/{version}`, which must be the one that there is.
fn without_version(target: &str) -> Result<&str, ApiError> {
    match target.rsplit_once("/versions/") {
        None => Ok(target),
        Some((name, VERSION)) => Ok(name),
        Some((name, version)) => {
            let message = format!(
                "the model \"{name}\" has no version \"{version}\": each model has the version {VERSION}"
            );
            Err(ApiError::new(StatusCode::NOT_FOUND, Category::NotFound, "version_not_found", message))
        }
    }
}

fn status_of(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

/// What the protocol tells of a model.
#[derive(Debug, Serialize)]
struct Metadata<'a> {
    name: &'a str,
    versions: [&'static str; 1],
    platform: &'a str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Debug, Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
}

fn tensors(list: &[TensorInfo]) -> Vec<TensorMetadata<'_>> {
    let described = list.iter().map(|info| TensorMetadata {
        name: &info.name,
        datatype: datatype::name(info.dtype),
        shape: &info.shape,
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_one_or_none() {
        let table = [
            ("m", Some("m")),
            ("org/m", Some("org/m")),
            ("m/versions/1", Some("m")),
            ("org/m/versions/1", Some("org/m")),
            ("m/versions/2", None),
            ("m/versions/", None),
        ];
        for (target, name) in table {
            assert_eq!(without_version(target).ok(), name, "{target}");
        }
    }
}
