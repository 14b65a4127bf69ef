//! Work that would hold up other answers, done on threads where nobody else waits.

use tracing::Span;

use super::error::ApiError;
use super::limits::WORK_HERE_BYTES_MAX;

/// Does the work aside.
///
/// # Errors
/// It panicked, which is a defect.
///
/// # Cancellation
/// The work goes on to its end, and its result is thrown away.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.map_err(|error| {
        tracing::error!(%error, "a part of a request failed; this is a bug");
        ApiError::server("internal_error", "the server failed on this request")
    })
}

/// Does work on this many bytes: aside if they are many.
///
/// # Errors
/// The work's own, and those of [`aside`].
///
/// # Cancellation
/// As for [`aside`].
pub(super) async fn by_size<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= WORK_HERE_BYTES_MAX { work() } else { aside(work).await? }
}
