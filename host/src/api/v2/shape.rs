//! Errors below `/v2` in the shape of that protocol: `{"error": "…"}`.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;

use crate::api::error::ApiError;

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

/// Middleware: writes every error of a request below `/v2` anew, also those that come before a handler.
pub(in crate::api) async fn reshape_errors(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_ours = path == "/v2" || path.starts_with("/v2/");
    let mut response = next.run(request).await;
    if is_ours && let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let message = error.to_string();
        if let Ok(body) = serde_json::to_vec(&ErrorBody { error: &message }) {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            *response.body_mut() = Body::from(body);
        }
    }
    response
}
