//! The server: an engine behind a listener, until a shutdown signal and the end of running requests.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::api::{ApiState, Limits, router};
use crate::config::Config;
use crate::connections;
use crate::engine::{Engine, StartError};

/// Serves on `listener` until `shutdown` resolves, then refuses new requests, lets running ones finish for at most
/// the configured drain time, and ends all workers.
///
/// # Errors
/// The engine did not start: see [`StartError`].
///
/// # Cancellation
/// Dropping the future cuts running requests off; workers end all the same.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let engine = Engine::start(&config)?;
    serve_engine(engine, &config, listener, shutdown).await;
    Ok(())
}

/// As [`serve`], with an engine that has been started before.
pub async fn serve_engine(
    engine: Engine,
    config: &Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let request_timeout = config.limits.request_timeout;
    let limits = Limits {
        body_bytes: config.limits.body_bytes,
        deadline_ms: u64::try_from(request_timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let state = ApiState { engine: engine.clone(), limits, started: Instant::now() };
    let (stopping, stop_seen) = oneshot::channel();
    let closing = engine.clone();
    let shutdown = async move {
        shutdown.await;
        tracing::info!("shutting down: running requests may finish");
        closing.close();
        // Fails only when the other branch has ended, which waits for this.
        let _ = stopping.send(());
    };
    let deadline = async {
        // Fails only when the server has ended.
        let _ = stop_seen.await;
        tokio::time::sleep(config.drain_timeout).await;
    };
    tokio::select! {
        () = connections::serve(listener, router(state), config.limits.connections, shutdown) => {}
        () = deadline => {}
    }
    let cut_off = engine.shutdown(Duration::ZERO).await;
    if cut_off > 0 {
        tracing::warn!(cut_off, "the drain time is over: running requests were cut off");
    }
}
