//! Work that goes on while its client reads slowly, and ends when the client goes away.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span};

use crate::api::access::AccessRecord;
use crate::api::error::ApiError;
use crate::api::limits::SOUND_CHUNKS_WAITING_MAX;
use crate::media::AudioFormat;

/// What some work has made. A player reads sound as fast as it plays it, while a job whose events nobody takes is
/// cancelled after a while; so the work runs in a task of its own, [`SOUND_CHUNKS_WAITING_MAX`] updates ahead.
///
/// # Cancellation
/// Dropping it ends the work, and with that drops its jobs.
pub(super) struct Updates<U> {
    updates: mpsc::Receiver<U>,
    /// `None` once its result is known.
    work: Option<AbortOnDropHandle<Result<(), ApiError>>>,
}

/// Where the work puts what it has made.
pub(super) struct Outlet<U>(mpsc::Sender<U>);

impl<U: Send> Outlet<U> {
    /// Hands on an update; waits while too many are unread. When nobody reads any more, the task is about to end.
    pub(super) async fn put(&self, update: U) {
        let _ = self.0.send(update).await;
    }
}

impl<U: Send + 'static> Updates<U> {
    /// Starts the work; its error is the last update.
    pub(super) fn of<F>(work: impl FnOnce(Outlet<U>) -> F) -> Self
    where
        F: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let (sender, updates) = mpsc::channel(SOUND_CHUNKS_WAITING_MAX);
        let task = tokio::spawn(work(Outlet(sender)).instrument(Span::current()));
        Self { updates, work: Some(AbortOnDropHandle::new(task)) }
    }
}

impl<U> Stream for Updates<U> {
    type Item = Result<U, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(update) = ready!(self.updates.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(update)));
        }
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        let result = ready!(work.poll_unpin(cx));
        self.work = None;
        Poll::Ready(match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(error) => {
                tracing::error!(%error, "making an answer failed; this is a bug");
                Some(Err(ApiError::server("internal_error", "the server failed on this request")))
            }
        })
    }
}

/// The answer that is a file of sound, sent as it is made. After a failure the connection is cut, because a status can no
/// longer be sent.
pub(super) fn sound_response<G>(chunks: G, format: AudioFormat, record: Arc<AccessRecord>) -> Response
where
    G: Stream<Item = Result<Bytes, ApiError>> + Unpin + Send + 'static,
{
    record.set_streaming(true);
    let mut response = Response::new(Body::from_stream(SoundBody { chunks, record }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Reverse proxies such as nginx would otherwise collect the sound.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct SoundBody<G> {
    chunks: G,
    record: Arc<AccessRecord>,
}

impl<G: Stream<Item = Result<Bytes, ApiError>> + Unpin> Stream for SoundBody<G> {
    type Item = Result<Bytes, ApiError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let _span = this.record.span().clone().entered();
        let chunk = ready!(this.chunks.poll_next_unpin(cx));
        match &chunk {
            None => this.record.set_streaming(false),
            Some(Err(error)) => error.log(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(chunk)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn updates_come_in_order_and_an_error_comes_last() {
        let updates = Updates::of(|outlet| async move {
            outlet.put(1).await;
            outlet.put(2).await;
            Err(ApiError::server("plugin_failed", "it broke"))
        });
        let all: Vec<_> = updates.map(|update| update.map_err(|error| error.code())).collect().await;
        assert_eq!(all, [Ok(1), Ok(2), Err("plugin_failed")]);
    }

    #[tokio::test]
    async fn work_goes_on_without_a_reader_and_ends_with_it() {
        struct Ended(Option<oneshot::Sender<()>>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.take().map(|ended| ended.send(()));
            }
        }
        let ((ahead, is_ahead), (ended, has_ended)) = (oneshot::channel(), oneshot::channel());
        let updates = Updates::of(|outlet| async move {
            let _ended = Ended(Some(ended));
            for number in 0..SOUND_CHUNKS_WAITING_MAX {
                outlet.put(number).await;
            }
            let _ = ahead.send(());
            std::future::pending().await
        });
        is_ahead.await.unwrap();
        drop(updates);
        has_ended.await.unwrap();
    }
}
