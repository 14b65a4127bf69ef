//! The server: an engine behind a listener, until a shutdown signal and the end of running requests.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::api::{ApiState, Limits, router};
use crate::config::Config;
use crate::connections;
use crate::engine::{Engine, StartError};
use crate::hooks::{Hooks, HooksError};
use crate::keys::{KeyError, Keyring};
use crate::media::MediaDecoder;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The engine did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The hooks cannot be used.
    #[error(transparent)]
    Hooks(#[from] HooksError),
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
    let keys = Keyring::open(config.keys_file.clone())?;
    let hooks = Hooks::load(&config)?;
    serve_engine(Parts { engine, keys, hooks }, &config, listener, shutdown).await;
    Ok(())
}

/// What a server is made of, beside its configuration.
pub struct Parts {
    /// An engine that has been started.
    pub engine: Engine,
    /// Who may ask.
    pub keys: Keyring,
    /// WebAssembly components that see what goes in and what comes out.
    pub hooks: Hooks,
}

/// As [`serve`], with parts that have been made before.
pub async fn serve_engine(
    parts: Parts,
    config: &Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let Parts { engine, keys, hooks } = parts;
    let request_timeout = config.limits.request_timeout;
    let limits = Limits {
        body_bytes: config.limits.body_bytes,
        deadline_ms: u64::try_from(request_timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let state = ApiState {
        engine: engine.clone(),
        limits,
        media: MediaDecoder::new(config.limits.media),
        hooks,
        keys: Arc::new(keys),
        started: Instant::now(),
    };
    if config.watch {
        tokio::spawn(state.hooks.watch());
    }
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
