//! The HTTP interface: OpenAI's API, the Open Inference Protocol, health and administration. HTTP and JSON exist in this module only.
//!
//! One file per resource. `docs/http-api.md` lists every route and option. The way of a generating request:
//! `json` reads the body, `params` and the resource check it, `engine` runs it, `decoder` turns the job's events into
//! updates, and `generation` and `sse` write them as one document or as a stream.
//!
//! No job outlives its request: a client that goes away drops the handler or the body, which drops the job's stream,
//! which cancels the job.

mod access;
mod admin;
mod aside;
mod audio;
mod auth;
mod chat;
mod completions;
mod decoder;
mod embeddings;
mod envelope;
mod error;
mod generation;
mod hardware;
mod health;
mod hooks;
mod hooks_admin;
mod images;
mod json;
mod limits;
mod logprobs;
mod meta;
mod models;
mod multipart;
mod params;
mod prompts;
mod rerank;
mod routes;
mod sse;
#[cfg(test)]
mod testing;
mod v2;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, delete, get, post, put};
use tower_http::catch_panic::CatchPanicLayer;

use crate::engine::Engine;
use crate::hooks::Hooks;
use crate::keys::Keyring;
use crate::media::MediaDecoder;

pub use limits::Limits;

/// What the handlers share.
#[derive(Clone)]
pub struct ApiState {
    /// Runs the models.
    pub engine: Engine,
    /// Bounds that the operator sets.
    pub limits: Limits,
    /// Decodes pictures and sound.
    pub media: MediaDecoder,
    /// WebAssembly components that see what goes in and what comes out.
    pub hooks: Hooks,
    /// Who may ask.
    pub keys: Arc<Keyring>,
    /// When the server started.
    pub started: Instant,
}

/// The whole HTTP interface. Every answer, also to an unknown route or after a panic in a handler, carries a request
/// id, and every error has OpenAI's shape, or below `/v2` that of the Open Inference Protocol.
pub fn router(state: ApiState) -> Router {
    let routes =
        routes().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler));
    surround(routes, state.limits, Arc::clone(&state.keys)).with_state(state)
}

/// Adds what all routes have in common.
fn surround<S>(routes: Router<S>, limits: Limits, keys: Arc<Keyring>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(axum::middleware::from_fn_with_state(keys, auth::check))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(axum::middleware::from_fn(access::record))
        .layer(axum::middleware::from_fn(v2::reshape_errors))
}

/// One route; the table is what the documentation is tested against.
struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "only the test of the documentation reads it"))]
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<ApiState>,
}

fn routes() -> Vec<Route> {
    let route = |method, path, handler| Route { method, path, handler };
    vec![
        route("POST", "/v1/chat/completions", post(chat::create)),
        route("POST", "/v1/completions", post(completions::create)),
        route("POST", "/v1/embeddings", post(embeddings::create)),
        route("POST", "/v1/rerank", post(rerank::create)),
        route("POST", "/v1/images/detect", post(images::detect::create)),
        // The name that clients of other servers know.
        route("POST", "/v1/detection", post(images::detect::create)),
        route("POST", "/v1/images/classify", post(images::classify::create)),
        route("POST", "/v1/images/embeddings", post(images::embeddings::create)),
        route("POST", "/v1/audio/transcriptions", post(audio::transcribe)),
        route("POST", "/v1/audio/translations", post(audio::translate)),
        route("POST", "/v1/audio/speech", post(audio::speech)),
        route("POST", "/v1/audio/chat", post(audio::chat)),
        route("GET", "/v1/models", get(models::list)),
        route("GET", "/v1/models/{*id}", get(models::retrieve)),
        route("GET", "/v2", get(v2::server)),
        route("GET", "/v2/health/live", get(v2::live)),
        route("GET", "/v2/health/ready", get(v2::ready)),
        route("GET", "/v2/models/{*target}", get(v2::model)),
        route("POST", "/v2/models/{*target}", post(v2::infer)),
        route("GET", "/health", get(health::health)),
        route("GET", "/live", get(health::live)),
        route("GET", "/ready", get(health::ready)),
        route("GET", "/metrics", get(admin::metrics)),
        route("GET", "/admin/models", get(admin::models)),
        route("POST", "/admin/models/{*action}", post(admin::change_model)),
        route("GET", "/admin/models/{*action}", get(hardware::why)),
        route("GET", "/admin/hardware", get(hardware::show)),
        route("GET", "/admin/routes", get(routes::list)),
        route("PUT", "/admin/routes/{*name}", put(routes::set)),
        route("DELETE", "/admin/routes/{*name}", delete(routes::remove)),
        route("GET", "/admin/hooks", get(hooks_admin::list)),
        route("PUT", "/admin/hooks/{name}", put(hooks_admin::set)),
        route("DELETE", "/admin/hooks/{name}", delete(hooks_admin::remove)),
        route("POST", "/admin/hooks/{name}/reload", post(hooks_admin::reload)),
        route("GET", "/admin/plugins", get(admin::plugins)),
        route("POST", "/admin/plugins/{name}/swap", post(admin::swap_plugin)),
        route("POST", "/admin/plugins/{name}/reset", post(admin::reset_plugin)),
    ]
}

#[cfg(test)]
mod tests;
