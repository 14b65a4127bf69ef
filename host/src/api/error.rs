//! Errors as clients see them: OpenAI's shape, one table from the engine's errors to HTTP.

use std::any::Any;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use pajamas_plugin_api::ErrorKind;
use serde::Serialize;

use crate::engine::EngineError;
use crate::hooks::HookError;
use crate::keys::Refusal;

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct ApiError {
    status: StatusCode,
    category: Category,
    code: &'static str,
    param: Option<String>,
    message: String,
    retryable: bool,
    /// Seconds until it is of use to ask again, where that is known.
    retry_after_s: Option<u64>,
}

/// OpenAI's `type` of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Category {
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    #[serde(rename = "not_found_error")]
    NotFound,
    #[serde(rename = "permission_error")]
    Permission,
    #[serde(rename = "authentication_error")]
    Authentication,
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    #[serde(rename = "overloaded_error")]
    Overloaded,
    #[serde(rename = "server_error")]
    Server,
}

/// The body of an error, `{"error": {…}}`.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    category: Category,
    code: &'static str,
    param: Option<&'a str>,
    /// Present when the same request may succeed if it is sent again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retryable: bool,
}

/// Seconds after which a client that was turned away may try again.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

impl ApiError {
    /// The field `param` has a value that is not allowed; `problem` says what was expected.
    pub(super) fn invalid(param: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let param = param.into();
        let message = format!("{param}: {problem}");
        Self { param: Some(param), ..Self::bad_request("invalid_value", message) }
    }

    /// The field `param` is needed; `expected` says what it is.
    pub(super) fn missing(param: &str, expected: &str) -> Self {
        let message = format!("{param}: missing, expected {expected}");
        Self { param: Some(param.to_owned()), ..Self::bad_request("missing_required_parameter", message) }
    }

    /// The option `param` exists in OpenAI's API but not here; `hint` says what to do.
    pub(super) fn unsupported(param: impl Into<String>, hint: impl std::fmt::Display) -> Self {
        let param = param.into();
        let message = format!("{param}: not supported by this server, {hint}");
        Self { param: Some(param), ..Self::bad_request("unsupported_option", message) }
    }

    /// The request as a whole is not valid.
    pub(super) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Category::InvalidRequest, code, message)
    }

    /// The server failed; `message` must not tell internals.
    pub(super) fn server(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Category::Server, code, message)
    }

    /// The body is of another type than the route takes.
    pub(super) fn media_type(expected: &str, header: &str) -> Self {
        let message = format!("the body must be {expected}, with the header \"content-type: {header}\"");
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, Category::InvalidRequest, "unsupported_media_type", message)
    }

    /// The body exceeds the operator's bound.
    pub(super) fn body_too_large() -> Self {
        let message = "the body is larger than this server accepts";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Category::InvalidRequest, "body_too_large", message)
    }

    /// The connection broke before the body's end.
    pub(super) fn incomplete_body() -> Self {
        Self::bad_request("incomplete_body", "the body could not be read to its end")
    }

    pub(super) fn new(
        status: StatusCode,
        category: Category,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            category,
            code,
            param: None,
            message: message.into(),
            retryable: false,
            retry_after_s: None,
        }
    }

    /// The body, as an answer or as the last event of a stream.
    pub(super) fn body(&self) -> ErrorBody<'_> {
        ErrorBody {
            error: ErrorFields {
                message: &self.message,
                category: self.category,
                code: self.code,
                param: self.param.as_deref(),
                retryable: self.retryable,
            },
        }
    }

    /// Notes a failure of the server in the log; the client's own mistakes are not the operator's business.
    pub(super) fn log(&self) {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), code = self.code, "{}", self.message);
        }
    }
}

#[cfg(test)]
impl ApiError {
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        self.log();
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the body is not read, so hyper closes the connection: the client must not send on it again.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        } else if self.status == StatusCode::SERVICE_UNAVAILABLE && self.retryable {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
        }
        if self.status.is_server_error() {
            // OpenAI's clients repeat requests by themselves; this tells them when that is of no use.
            let retry = if self.retryable { "true" } else { "false" };
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static(retry));
        }
        // For whoever writes it in the shape of another protocol.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<EngineError> for ApiError {
    /// The one table from the engine's errors to HTTP; `docs/http-api.md` shows it to users.
    ///
    /// A model without a plugin is 503 and not 404: the model is there, and can be used once the operator installs a
    /// plugin. What a plugin says about a request is that request's fault (400); while it loads a model it is the
    /// server's (500). A worker that died is 502, as of a proxy whose server failed.
    fn from(error: EngineError) -> Self {
        use Category::{InvalidRequest, NotFound, Overloaded, Server};
        let (status, category, code) = match &error {
            EngineError::UnknownModel { .. } => (StatusCode::NOT_FOUND, NotFound, "model_not_found"),
            EngineError::UnsupportedTask { .. } => {
                (StatusCode::BAD_REQUEST, InvalidRequest, "unsupported_task")
            }
            EngineError::NoPlugin { .. } => (StatusCode::SERVICE_UNAVAILABLE, Server, "no_plugin"),
            EngineError::Worker(_) => (StatusCode::BAD_GATEWAY, Server, "worker_failed"),
            EngineError::Poison(_) => (StatusCode::BAD_REQUEST, InvalidRequest, "poison_request"),
            EngineError::Quarantined { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, Server, "plugin_quarantined")
            }
            EngineError::CoolingDown { .. } => (StatusCode::SERVICE_UNAVAILABLE, Server, "cooling_down"),
            EngineError::QueueFull { .. } => (StatusCode::SERVICE_UNAVAILABLE, Overloaded, "overloaded"),
            EngineError::OutOfMemory { .. } => (StatusCode::SERVICE_UNAVAILABLE, Overloaded, "out_of_memory"),
            EngineError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, Overloaded, "shutting_down"),
            EngineError::Plugin(error) => by_kind(error.kind()),
            EngineError::Load { error, .. } => match by_kind(error.kind()) {
                (StatusCode::BAD_REQUEST, ..) => (StatusCode::INTERNAL_SERVER_ERROR, Server, "load_failed"),
                answer => answer,
            },
        };
        let names_model =
            matches!(error, EngineError::UnknownModel { .. } | EngineError::UnsupportedTask { .. });
        let retry_after_s = match &error {
            EngineError::CoolingDown { retry_after_s, .. } => Some(*retry_after_s),
            _ => None,
        };
        Self {
            retry_after_s,
            param: names_model.then(|| "model".to_owned()),
            retryable: error.is_retryable(),
            ..Self::new(status, category, code, error.to_string())
        }
    }
}

impl From<HookError> for ApiError {
    fn from(error: HookError) -> Self {
        let message = error.to_string();
        match error {
            HookError::Rejected { .. } => Self::bad_request("hook_rejected", message),
            HookError::Failed { .. } => Self::server("hook_failed", message),
            HookError::Busy => Self {
                retryable: true,
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Category::Overloaded, "hooks_busy", message)
            },
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        use Category::{Authentication, Permission, RateLimit};
        let (status, category, code, retry_after_s) = match &refusal {
            Refusal::Missing | Refusal::Unknown => {
                (StatusCode::UNAUTHORIZED, Authentication, "invalid_api_key", None)
            }
            Refusal::Scope { .. } => (StatusCode::FORBIDDEN, Permission, "insufficient_scope", None),
            Refusal::TooMuch { retry_after_s, .. } => {
                (StatusCode::TOO_MANY_REQUESTS, RateLimit, "rate_limit_exceeded", Some(*retry_after_s))
            }
        };
        let retryable = retry_after_s.is_some();
        Self { retryable, retry_after_s, ..Self::new(status, category, code, refusal.to_string()) }
    }
}

fn by_kind(kind: ErrorKind) -> (StatusCode, Category, &'static str) {
    use Category::{InvalidRequest, Overloaded, Server};
    match kind {
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, InvalidRequest, "invalid_value"),
        ErrorKind::Unsupported => (StatusCode::BAD_REQUEST, InvalidRequest, "unsupported_option"),
        ErrorKind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, Overloaded, "overloaded"),
        ErrorKind::OutOfMemory => (StatusCode::SERVICE_UNAVAILABLE, Overloaded, "out_of_memory"),
        ErrorKind::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, Server, "cancelled"),
        ErrorKind::Deadline => (StatusCode::GATEWAY_TIMEOUT, Server, "deadline_exceeded"),
        ErrorKind::BadModel => (StatusCode::INTERNAL_SERVER_ERROR, Server, "bad_model"),
        ErrorKind::NotFound | ErrorKind::Device | ErrorKind::Internal | ErrorKind::Panic => {
            (StatusCode::INTERNAL_SERVER_ERROR, Server, "plugin_failed")
        }
    }
}

/// Answers a request to a path that does not exist.
pub(super) async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is no route {method} {}", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, Category::NotFound, "route_not_found", message)
}

/// Answers a request with a method that the path does not have; axum adds the `Allow` header.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not answer to {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Category::InvalidRequest, "method_not_allowed", message)
}

/// Answers a request whose handler panicked. The panic's message is for the log, not for the client.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response<Body> {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("no message"), "a request handler panicked; this is a bug");
    ApiError::server("internal_error", "the server failed on this request").into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pajamas_plugin_api::{Error as PluginError, Task};

    use super::*;
    use crate::engine::{FailureCause, WorkerFailure};

    fn plugin(kind: ErrorKind) -> EngineError {
        EngineError::Plugin(PluginError::new(kind, "why"))
    }

    fn load(kind: ErrorKind) -> EngineError {
        EngineError::Load { model: "m".into(), plugin: "p".into(), error: PluginError::new(kind, "why") }
    }

    fn failure() -> Arc<WorkerFailure> {
        let (plugin, what, cause) = ("p".into(), "died".into(), FailureCause::Plugin);
        Arc::new(WorkerFailure { plugin, what, last_lines: vec![], cause })
    }

    #[test]
    fn every_engine_error_has_a_status_and_a_code() {
        let table = [
            (EngineError::UnknownModel { name: "m".into() }, 404, "model_not_found", false),
            (
                EngineError::UnsupportedTask {
                    model: "m".into(),
                    task: Task::Embed,
                    supported: "generate".into(),
                },
                400,
                "unsupported_task",
                false,
            ),
            (EngineError::NoPlugin { model: "m".into(), reasons: "none".into() }, 503, "no_plugin", false),
            (EngineError::ShuttingDown, 503, "shutting_down", true),
            (
                EngineError::OutOfMemory {
                    model: "m".into(),
                    device: "cpu".into(),
                    needed_bytes: 2,
                    limit_bytes: 1,
                },
                503,
                "out_of_memory",
                true,
            ),
            (
                EngineError::CoolingDown { model: "m".into(), reason: "why".into(), retry_after_s: 3 },
                503,
                "cooling_down",
                true,
            ),
            (EngineError::QueueFull { model: "m".into(), waiting: 9 }, 503, "overloaded", true),
            (EngineError::Worker(failure()), 502, "worker_failed", true),
            (EngineError::Poison(failure()), 400, "poison_request", false),
            (
                EngineError::Quarantined { plugin: "p".into(), reason: "why".into() },
                503,
                "plugin_quarantined",
                false,
            ),
            (plugin(ErrorKind::Invalid), 400, "invalid_value", false),
            (plugin(ErrorKind::Unsupported), 400, "unsupported_option", false),
            (plugin(ErrorKind::NotFound), 500, "plugin_failed", false),
            (plugin(ErrorKind::OutOfMemory), 503, "out_of_memory", true),
            (plugin(ErrorKind::BadModel), 500, "bad_model", false),
            (plugin(ErrorKind::Overloaded), 503, "overloaded", true),
            (plugin(ErrorKind::Deadline), 504, "deadline_exceeded", true),
            (plugin(ErrorKind::Device), 500, "plugin_failed", false),
            (plugin(ErrorKind::Internal), 500, "plugin_failed", false),
            (plugin(ErrorKind::Panic), 500, "plugin_failed", false),
            (plugin(ErrorKind::Cancelled), 503, "cancelled", false),
            (load(ErrorKind::Invalid), 500, "load_failed", false),
            (load(ErrorKind::BadModel), 500, "bad_model", false),
            (load(ErrorKind::OutOfMemory), 503, "out_of_memory", true),
        ];
        let documentation = include_str!("../../../docs/http-api.md");
        for (error, status, code, retryable) in table {
            let answer = ApiError::from(error.clone());
            assert_eq!(
                (answer.status.as_u16(), answer.code, answer.retryable),
                (status, code, retryable),
                "{error:?}"
            );
            let row = format!("| {status} | `{code}` |");
            assert!(documentation.contains(&row), "docs/http-api.md lacks the row {row}");
        }
    }

    #[test]
    fn an_error_has_the_shape_that_openai_clients_expect() {
        let error = ApiError::invalid("messages[0].role", "expected a string");
        let expected = r#"{"error":{"message":"messages[0].role: expected a string","type":"invalid_request_error","code":"invalid_value","param":"messages[0].role"}}"#;
        assert_eq!(serde_json::to_string(&error.body()).unwrap(), expected);
    }

    #[test]
    fn clients_are_told_when_to_come_back() {
        let response = ApiError::from(plugin(ErrorKind::Overloaded)).into_response();
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["x-should-retry"], "true");
        let response =
            ApiError::from(EngineError::NoPlugin { model: "m".into(), reasons: "x".into() }).into_response();
        assert!(!response.headers().contains_key("retry-after"));
        assert_eq!(response.headers()["x-should-retry"], "false");
    }
}
