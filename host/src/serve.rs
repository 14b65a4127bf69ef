//! The server: an engine behind a listener, until a shutdown signal and the end of running requests.

use std::future::Future;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::api::{ApiState, Limits, router};
use crate::config::Config;
use crate::engine::{Engine, StartError};

/// Why the server ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The engine did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The listener failed.
    #[error("cannot accept connections any more")]
    Accept(#[source] std::io::Error),
}

/// Serves on `listener` until `shutdown` resolves, then refuses new requests, lets running ones finish for at most
/// the configured drain time, and ends all workers.
///
/// # Errors
/// See [`ServeError`].
///
/// # Cancellation
/// Dropping the future cuts running requests off; workers end all the same.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let engine = Engine::start(&config)?;
    serve_engine(engine, &config, listener, shutdown).await
}

/// As [`serve`], with an engine that has been started before.
///
/// # Errors
/// The listener failed.
pub async fn serve_engine(
    engine: Engine,
    config: &Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let limits = Limits { body_bytes: config.limits.body_bytes, ..Limits::default() };
    let state = ApiState { engine: engine.clone(), limits, started: Instant::now() };
    let (stopping, stop_seen) = oneshot::channel();
    let closing = engine.clone();
    let listener = listener.tap_io(|stream| {
        // A token is a small write: waiting for more of them would delay each by up to 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("cannot set TCP_NODELAY: {error}");
        }
    });
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(async move {
        shutdown.await;
        tracing::info!("shutting down: running requests may finish");
        closing.close();
        // Nobody listens when the server has failed already.
        let _ = stopping.send(());
    });
    let deadline = async {
        match stop_seen.await {
            Ok(()) => tokio::time::sleep(config.drain_timeout).await,
            // The server has ended without a shutdown; the other branch reports why.
            Err(_) => std::future::pending().await,
        }
    };
    let served = tokio::select! {
        served = server => served.map_err(ServeError::Accept),
        () = deadline => Ok(()),
    };
    let cut_off = engine.shutdown(Duration::ZERO).await;
    if cut_off > 0 {
        tracing::warn!(cut_off, "the drain time is over: running requests were cut off");
    }
    served
}
