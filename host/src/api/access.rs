//! One identifier and one log line per request.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::error::ApiError;
use super::limits::{Limits, REQUEST_ID_BYTES_MAX};
use crate::engine::{Caller, Priority};
use crate::keys::Account;
use crate::metrics::METRICS;

/// The status of a request whose client went away before there was an answer; nginx's invention.
const CLIENT_CLOSED_REQUEST: u16 = 499;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MODEL_ID: HeaderName = HeaderName::from_static("x-model-id");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
const PRIORITY: HeaderName = HeaderName::from_static("x-priority");
/// Asked every few seconds by whatever supervises the server: of interest only to those who look for it.
const PROBES: [&str; 5] = ["/health", "/live", "/ready", "/v2/health/live", "/v2/health/ready"];

/// What the log line of a request says.
///
/// The handler has it as a request extension; the body of a stream holds it too. The line is written when the last of
/// them lets go, so that a stream is logged when it ends, and a client that went away when that is noticed.
#[derive(Debug)]
pub(super) struct AccessRecord {
    span: Span,
    id: String,
    started: Instant,
    is_probe: bool,
    /// The pattern of the path, when it is one of ours.
    route: Option<MatchedPath>,
    /// 0 until there is an answer.
    status: AtomicU16,
    /// Whether a stream has begun and not come to its end.
    streaming: AtomicBool,
    model: OnceLock<String>,
    /// Id of the model that answers, which a route or an alias does not tell.
    served_by: OnceLock<String>,
    /// Whose request it is; pays for its tokens.
    account: OnceLock<Arc<Account>>,
    wishes: Wishes,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

/// Middleware: gives the request an identifier and a span, and its answer the identifier as `x-request-id` and the
/// model's as `x-model-id`.
pub(super) async fn record(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let path = request.uri().path();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), method = %request.method(), path);
    let mut record = AccessRecord::new(span.clone(), is_probe(path));
    record.id = id.to_str().unwrap_or_default().to_owned();
    record.wishes = match Wishes::read(request.headers()) {
        Ok(wishes) => wishes,
        Err(error) => return with_id(error.into_response(), id),
    };
    record.route = request.extensions().get::<MatchedPath>().cloned();
    let record = Arc::new(record);
    request.extensions_mut().insert(record.clone());
    let mut response = next.run(request).instrument(span).await;
    // An id with other characters than a header can hold is left out.
    if let Some(id) = record.served_by.get().and_then(|id| HeaderValue::from_str(id).ok()) {
        response.headers_mut().insert(MODEL_ID, id);
    }
    record.status.store(response.status().as_u16(), Ordering::Relaxed);
    with_id(response, id)
}

fn with_id(mut response: Response, id: HeaderValue) -> Response {
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// What a client wishes in headers.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    /// How long the answer is of use: `X-Request-Timeout`, in seconds as for Envoy and others, fractions allowed.
    timeout_ms: Option<u64>,
    /// How urgent it is: `X-Priority`.
    priority: Option<Priority>,
}

impl Wishes {
    fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text =
            |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
        let seconds = |text: &str| {
            let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && seconds.is_finite());
            let problem = || ApiError::invalid("x-request-timeout", "expected a number of seconds above 0");
            seconds.map(|seconds| (seconds * 1000.0).ceil() as u64).ok_or_else(problem)
        };
        let priority = |text: &str| {
            let known = <Priority as clap::ValueEnum>::from_str(text, true);
            known.map_err(|_| ApiError::invalid("x-priority", "expected low, normal or high"))
        };
        Ok(Self {
            timeout_ms: text(&REQUEST_TIMEOUT).map(seconds).transpose()?,
            priority: text(&PRIORITY).map(priority).transpose()?,
        })
    }
}

/// Whether the path only tells that the server is there.
pub(super) fn is_probe(path: &str) -> bool {
    PROBES.contains(&path)
}

impl AccessRecord {
    pub(super) fn new(span: Span, is_probe: bool) -> Self {
        Self {
            span,
            id: String::new(),
            started: Instant::now(),
            is_probe,
            route: None,
            status: AtomicU16::new(0),
            streaming: AtomicBool::new(false),
            model: OnceLock::new(),
            served_by: OnceLock::new(),
            account: OnceLock::new(),
            wishes: Wishes::default(),
            prompt_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
        }
    }

    /// The request's identifier.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The span in which everything about the request is logged.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    pub(super) fn set_model(&self, name: &str) {
        self.model.get_or_init(|| name.to_owned());
    }

    pub(super) fn set_served_by(&self, id: &str) {
        self.served_by.get_or_init(|| id.to_owned());
    }

    pub(super) fn set_account(&self, account: Arc<Account>) {
        self.account.get_or_init(|| account);
    }

    /// How long the request may take: what the client says, up to what the operator does.
    pub(super) fn deadline_ms(&self, limits: Limits) -> u64 {
        self.wishes.timeout_ms.unwrap_or(u64::MAX).min(limits.deadline_ms)
    }

    /// Whose turn it is when requests wait: the key's, with its priority or a lower one that the client wishes.
    pub(super) fn caller(&self) -> Caller<'_> {
        let account = self.account.get();
        let highest = account.map_or(Priority::High, |account| account.priority());
        let usual = account.map_or(Priority::Normal, |account| account.priority());
        Caller {
            name: account.map_or("", |account| account.id()),
            priority: self.wishes.priority.map_or(usual, |wish| wish.min(highest)),
            weight: account.map_or(1, |account| account.weight()),
        }
    }

    pub(super) fn add_prompt_tokens(&self, count: u32) {
        self.prompt_tokens.fetch_add(count.into(), Ordering::Relaxed);
    }

    pub(super) fn add_completion_tokens(&self, count: u32) {
        self.completion_tokens.fetch_add(count.into(), Ordering::Relaxed);
    }

    /// Tells that a stream has begun (`true`) or come to its end.
    pub(super) fn set_streaming(&self, streaming: bool) {
        self.streaming.store(streaming, Ordering::Relaxed);
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        let status = match *self.status.get_mut() {
            0 => CLIENT_CLOSED_REQUEST,
            status => status,
        };
        let aborted = status == CLIENT_CLOSED_REQUEST || *self.streaming.get_mut();
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.is_probe {
            tracing::debug!(parent: &self.span, status, ms, "request");
            return;
        }
        let model = self.model.get();
        let prompt_tokens = *self.prompt_tokens.get_mut();
        let completion_tokens = *self.completion_tokens.get_mut();
        let route = self.route.as_ref().map_or("other", MatchedPath::as_str);
        METRICS.request(route, status, prompt_tokens, completion_tokens);
        let account = self.account.get();
        if let Some(account) = account {
            account.spend_tokens(prompt_tokens + completion_tokens);
        }
        let key = account.map(|account| account.id());
        tracing::info!(
            parent: &self.span, status, ms, model, key, prompt_tokens, completion_tokens, aborted, "request"
        );
    }
}

/// The client's own identifier if it is 1 to [`REQUEST_ID_BYTES_MAX`] visible ASCII characters, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(is_sane).cloned().unwrap_or_else(|| {
        let id = Uuid::now_v7().to_string();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

#[cfg(test)]
mod tests;
