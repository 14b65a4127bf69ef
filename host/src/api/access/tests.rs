//! What the log says of a request, and whose request id it carries.

use std::io;
use std::sync::Mutex;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::FutureExt as _;
use serde_json::Value;
use tower::ServiceExt as _;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[test]
fn only_sane_identifiers_are_taken_from_clients() {
    let table =
        [("abc-1/~", true), ("a b", false), ("", false), (&"x".repeat(128), true), (&"x".repeat(129), false)];
    for (id, taken) in table {
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).unwrap())]);
        let chosen = request_id(&headers);
        assert_eq!(chosen == id, taken, "{id:?} became {chosen:?}");
        assert!(!chosen.is_empty());
    }
    assert_eq!(request_id(&HeaderMap::new()).len(), 36);
}

/// Collects the lines of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// What `act` logs at level `info`.
fn logged(act: impl FnOnce()) -> Vec<Value> {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(log.clone()).finish();
    tracing::subscriber::with_default(subscriber, act);
    let lines = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn app() -> Router {
    async fn answer(Extension(record): Extension<Arc<AccessRecord>>) {
        record.set_model("m");
        record.add_prompt_tokens(3);
        record.add_completion_tokens(2);
    }
    async fn stream(Extension(record): Extension<Arc<AccessRecord>>) -> Body {
        record.set_streaming(true);
        Body::from_stream(futures_util::stream::poll_fn(move |_| {
            record.set_streaming(false);
            std::task::Poll::Ready(None::<Result<String, std::convert::Infallible>>)
        }))
    }
    let routes = Router::new().route("/answer", get(answer)).route("/stream", get(stream));
    let routes = routes.route("/wait", get(std::future::pending::<()>)).route("/live", get(answer));
    routes.layer(axum::middleware::from_fn(record))
}

fn request(path: &str) -> Request {
    Request::builder().uri(path).header(REQUEST_ID, "r1").body(Body::empty()).unwrap()
}

#[test]
fn a_request_is_one_line_with_its_id() {
    let lines = logged(|| {
        app().oneshot(request("/answer")).now_or_never().unwrap().unwrap();
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    let (fields, span) = (&lines[0]["fields"], &lines[0]["span"]);
    assert_eq!(
        (&span["id"], &span["method"], &span["path"]),
        (&"r1".into(), &"GET".into(), &"/answer".into())
    );
    let expected = [
        ("status", 200.into()),
        ("model", "m".into()),
        ("prompt_tokens", 3.into()),
        ("completion_tokens", 2.into()),
        ("aborted", false.into()),
    ];
    for (name, value) in expected {
        assert_eq!(fields[name], Value::clone(&value), "{name}");
    }
    assert!(fields["ms"].is_number(), "{fields}");
}

#[test]
fn a_client_that_leaves_before_the_answer_is_logged_as_499() {
    let lines = logged(|| assert!(app().oneshot(request("/wait")).now_or_never().is_none()));
    assert_eq!((&lines[0]["fields"]["status"], &lines[0]["fields"]["aborted"]), (&499.into(), &true.into()));
}

#[test]
fn a_stream_is_logged_when_it_ends() {
    for (read, aborted) in [(true, false), (false, true)] {
        let lines = logged(|| {
            let response = app().oneshot(request("/stream")).now_or_never().unwrap().unwrap();
            tracing::info!("answered");
            if read {
                axum::body::to_bytes(response.into_body(), 10).now_or_never().unwrap().unwrap();
            }
        });
        assert_eq!(lines[0]["fields"]["message"], "answered");
        assert_eq!(lines[1]["fields"]["aborted"], aborted);
    }
}

#[test]
fn probes_are_not_logged_for_everyone() {
    let lines = logged(|| {
        app().oneshot(request("/live")).now_or_never().unwrap().unwrap();
    });
    assert!(lines.is_empty(), "{lines:?}");
}
