//! `GET /live`, `GET /ready` and `GET /health`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use super::ApiState;

/// Whether the process answers at all: always 200. For supervisors that restart it otherwise.
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "ok", version: None, uptime_s: None })
}

/// Whether requests are welcome: 503 before plugins and models are known, and while shutting down. For load balancers.
pub(super) async fn ready(State(state): State<ApiState>) -> (StatusCode, Json<Health>) {
    let (status, word) = readiness(&state);
    (status, Json(Health { status: word, version: None, uptime_s: None }))
}

/// As `/ready`, with version and age, for people and for clients of other servers.
pub(super) async fn health(State(state): State<ApiState>) -> (StatusCode, Json<Health>) {
    let (status, word) = readiness(&state);
    let uptime_s = Some(state.started.elapsed().as_secs());
    (status, Json(Health { status: word, version: Some(env!("CARGO_PKG_VERSION")), uptime_s }))
}

fn readiness(state: &ApiState) -> (StatusCode, &'static str) {
    if state.engine.is_ready() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    }
}

/// The state of the server.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_s: Option<u64>,
}
