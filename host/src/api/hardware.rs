//! `/admin/hardware` and `/admin/models/{id}/why`: what the machine is, and how it decides which plugin serves a model.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use serde::Serialize;

use super::ApiState;
use super::error::{ApiError, Category};
use crate::engine::Why;
use crate::hardware::{GpuReading, Hardware, Memory};

/// The machine, and what its devices are doing.
#[derive(Debug, Serialize)]
pub(super) struct AdminHardware {
    #[serde(flatten)]
    hardware: Arc<Hardware>,
    /// As of now; the fields above are as of the start.
    now: Now,
}

#[derive(Debug, Serialize)]
struct Now {
    memory: Memory,
    gpus: Vec<GpuReading>,
}

/// `GET /admin/hardware`.
pub(super) async fn show(State(state): State<ApiState>) -> Json<AdminHardware> {
    let hardware = state.engine.hardware().await;
    let now = Now { memory: Memory::now(), gpus: state.engine.gpu_readings().await };
    Json(AdminHardware { hardware, now })
}

/// `GET /admin/models/{id}/why`; names may contain slashes, so the question is what follows the last.
///
/// # Errors
/// There is no such model, or no such question.
pub(super) async fn why(
    State(state): State<ApiState>,
    Path(question): Path<String>,
    uri: Uri,
) -> Result<Json<Why>, ApiError> {
    match question.rsplit_once('/') {
        Some((id, "why")) if !id.is_empty() => Ok(Json(state.engine.why(id).await?)),
        _ => {
            let message = format!("there is no route GET {}: the path ends with /why", uri.path());
            Err(ApiError::new(StatusCode::NOT_FOUND, Category::NotFound, "route_not_found", message))
        }
    }
}
