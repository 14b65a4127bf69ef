//! HTTP connections: accepted up to a number, each with bounded patience, ended in order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long a connection may take to send a request's head. The wait for the next request counts.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after the system refused a connection, most often because too many files are open.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `shutdown` resolves, then takes no more and waits for those that are busy.
///
/// # Cancellation
/// Dropping the future stops accepting; the connections go on.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    connections_max: usize,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let open = GracefulShutdown::new();
    let accept = async {
        loop {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            let Some(stream) = next(&listener).await else { continue };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
            let connection = open.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!("a connection ended early: {}", crate::error_chain(&error));
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        _ = accept => {}
        () = shutdown => {}
    }
    drop(listener);
    open.shutdown().await;
}

/// The next connection; `None` when it was refused.
async fn next(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _)) => {
            // A token is a small write: waiting for more of them would delay each by up to 40 ms.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!("cannot set TCP_NODELAY: {error}");
            }
            Some(stream)
        }
        Err(error) => {
            tracing::warn!("cannot accept a connection: {error}");
            tokio::time::sleep(REFUSED_PAUSE).await;
            None
        }
    }
}
