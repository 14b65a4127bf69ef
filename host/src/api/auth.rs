//! Who asks: the key that comes with a request, and what it may be used for.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use super::access::{AccessRecord, is_probe};
use super::error::ApiError;
use crate::keys::{Keyring, Scope};

/// Middleware: refuses a request without a key that may make it, where keys are asked for. Liveness and readiness are
/// nobody's secret.
pub(super) async fn check(
    State(keys): State<Arc<Keyring>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    if !is_probe(path) {
        let scope =
            if path.starts_with("/admin") || path == "/metrics" { Scope::Admin } else { Scope::Infer };
        let account = keys.admit(secret(request.headers()), scope)?;
        if let (Some(account), Some(record)) = (account, request.extensions().get::<Arc<AccessRecord>>()) {
            record.set_account(account);
        }
    }
    Ok(next.run(request).await)
}

/// The key in `Authorization: Bearer KEY`.
fn secret(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_key_is_what_follows_bearer() {
        let table = [
            (None, None),
            (Some("Bearer abc"), Some("abc")),
            (Some("bearer  abc "), Some("abc")),
            (Some("Basic abc"), None),
            (Some("abc"), None),
        ];
        for (value, expected) in table {
            let headers = value.map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value)));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(secret(&headers), expected, "{value:?}");
        }
    }
}
