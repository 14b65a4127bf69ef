//! Every route is documented, and every error has the shape of OpenAI.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use futures_util::FutureExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::json::JsonBody;
use super::testing::text;
use super::*;

/// What surrounds every route, around routes that need no engine.
fn app() -> Router {
    async fn echo(body: JsonBody) -> Result<String, error::ApiError> {
        body.read::<Value>().map(|value| value.to_string())
    }
    async fn fail() {
        panic!("secret");
    }
    let routes = Router::new().route("/echo", post(echo)).route("/fail", get(fail));
    let keys = Keyring::open(None).unwrap();
    surround(routes, Limits { body_bytes: 64, ..Limits::default() }, Arc::new(keys))
}

fn send(request: Request) -> Response {
    app().oneshot(request).now_or_never().unwrap().unwrap()
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let builder = Request::builder().method(method).uri(path);
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    builder.body(Body::from(body.to_owned())).unwrap()
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[test]
fn every_rejection_has_openais_shape_and_a_request_id() {
    let large = format!("\"{}\"", "x".repeat(100));
    let plain = ("content-type", "text/plain");
    let table = [
        (request(Method::GET, "/nothing", &[], ""), 404, "route_not_found"),
        (request(Method::DELETE, "/echo", &[], ""), 405, "method_not_allowed"),
        (request(Method::POST, "/echo", &[], "{}"), 415, "unsupported_media_type"),
        (request(Method::POST, "/echo", &[plain], "{}"), 415, "unsupported_media_type"),
        (request(Method::POST, "/echo", &[JSON], "{"), 400, "invalid_json"),
        (request(Method::POST, "/echo", &[JSON], "[]"), 400, "invalid_value"),
        (request(Method::POST, "/echo", &[JSON], &large), 413, "body_too_large"),
        (request(Method::GET, "/fail", &[], ""), 500, "internal_error"),
    ];
    for (request, status, code) in table {
        let response = send(request);
        assert_eq!(response.status().as_u16(), status, "{code}");
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(response.headers().contains_key("connection"), status == 413, "{code}");
        let text = text(response);
        assert!(!text.contains("secret"));
        let error = serde_json::from_str::<Value>(&text).unwrap()["error"].take();
        assert_eq!(error["code"], code);
        for field in ["message", "type", "param"] {
            assert!(error.get(field).is_some(), "{error}");
        }
    }
}

#[test]
fn a_wrong_method_tells_the_right_ones() {
    let response = send(request(Method::GET, "/echo", &[], ""));
    assert_eq!(response.headers()["allow"], "POST");
}

#[test]
fn json_is_accepted_and_the_clients_id_comes_back() {
    let response = send(request(Method::POST, "/echo", &[JSON, ("x-request-id", "mine")], r#"{"a":1}"#));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-request-id"], "mine");
    assert_eq!(text(response), r#"{"a":1}"#);
    let vendor = ("content-type", "application/vnd.api+json");
    assert_eq!(send(request(Method::POST, "/echo", &[vendor], "{}")).status(), StatusCode::OK);
}

#[test]
fn every_route_is_documented() {
    let documentation = include_str!("../../../docs/http-api.md");
    for route in routes() {
        let path = route
            .path
            .replace("{*id}", "{id}")
            .replace("{*action}", if route.method == "POST" { "{id}/load" } else { "{id}/why" })
            .replace("{*name}", "{name}");
        let path = path.replace("{*target}", if route.method == "POST" { "{id}/infer" } else { "{id}" });
        let name = format!("`{} {path}`", route.method);
        assert!(documentation.contains(&name), "docs/http-api.md lacks {name}");
    }
}

#[test]
fn every_bound_in_the_documentation_is_the_real_one() {
    use super::limits::*;
    let documentation = include_str!("../../../docs/http-api.md");
    let bounds = [
        format!("1 to {MESSAGES_MAX}"),
        format!("up to {PARTS_MAX} parts"),
        format!("up to {TOOLS_MAX} functions"),
        format!("| `n` | 1 to {CHOICES_PER_PROMPT_MAX} |"),
        format!("at most {CHOICES_MAX} answers"),
        format!("0 to {TOP_LOGPROBS_MAX}"),
        format!("at most {LOGIT_BIAS_MAX} tokens"),
        format!("up to {EMBEDDING_INPUTS_MAX} of either"),
        format!("1 to {DOCUMENTS_MAX} strings"),
        format!("up to {TENSORS_MAX} tensors"),
        format!("up to {TENSOR_DIMENSIONS_MAX} lengths"),
        format!("up to {SPEECH_BYTES_MAX} bytes"),
        format!("up to {SOUND_CHUNKS_WAITING_MAX} chunks"),
        format!("1 to {IMAGES_MAX} pictures"),
        format!("1 to {FINDINGS_MAX} | detection"),
        format!("default to {COMPLETION_TOKENS_DEFAULT}"),
        format!("1 to {REQUEST_ID_BYTES_MAX} visible"),
        format!("up to {} strings of at most {} bytes", crate::text::STOPS_MAX, crate::text::STOP_BYTES_MAX),
        format!("{} MiB", Limits::default().body_bytes >> 20),
    ];
    for bound in bounds {
        assert!(documentation.contains(&bound), "docs/http-api.md lacks \"{bound}\"");
    }
}
