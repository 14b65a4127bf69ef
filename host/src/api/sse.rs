//! Server-sent events: what they look like, and the body that writes them as updates come.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, Sleep};

use super::access::AccessRecord;
use super::error::ApiError;
use super::limits::{KEEP_ALIVE, WRITE_BYTES};

/// Turns updates into events of one kind of answer.
pub(super) trait WriteEvents<U> {
    /// Writes what one update means.
    fn update(&mut self, update: U, events: &mut Events);
    /// Writes what comes after the last update.
    fn end(&mut self, events: &mut Events);
}

/// Events that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<u8>);

/// The answer that streams `updates` until they end. After a failure it ends with the error as an event and without
/// `[DONE]`, because a status can no longer be sent; OpenAI's clients raise that error.
///
/// # Cancellation
/// Dropping the body, which happens when the client goes away, drops `updates`.
pub(super) fn response<U, G, W>(updates: G, writer: W, record: Arc<AccessRecord>) -> Response
where
    U: 'static,
    G: Stream<Item = Result<U, ApiError>> + Unpin + Send + 'static,
    W: WriteEvents<U> + Unpin + Send + 'static,
{
    record.set_streaming(true);
    let body = EventBody::new(updates, writer, record, KEEP_ALIVE);
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Reverse proxies such as nginx would otherwise collect the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The body of a stream. Each poll takes all updates that are ready, so that many events cost one write. While nothing
/// comes, a comment now and then keeps proxies from taking the connection for dead: a long prompt, or an engine that is
/// being recovered, may take minutes.
struct EventBody<G, W> {
    /// `None` once the last event is written.
    updates: Option<G>,
    writer: W,
    events: Events,
    record: Arc<AccessRecord>,
    /// How long the client may hear nothing.
    silence_max: Duration,
    /// Ends when a comment is due; `None` before the first wait.
    silence: Option<Pin<Box<Sleep>>>,
}

impl<G, W> EventBody<G, W> {
    fn new(updates: G, writer: W, record: Arc<AccessRecord>, silence_max: Duration) -> Self {
        let events = Events::default();
        Self { updates: Some(updates), writer, events, record, silence_max, silence: None }
    }

    /// Waits until the client has heard nothing for too long, and then says something that means nothing.
    fn keep_alive(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.silence_max)));
        ready!(silence.poll_unpin(cx));
        self.expect_silence();
        Poll::Ready(Bytes::from_static(b": still at work\n\n"))
    }

    fn expect_silence(&mut self) {
        if let Some(silence) = &mut self.silence {
            silence.as_mut().reset(Instant::now() + self.silence_max);
        }
    }
}

impl Events {
    /// Adds an event. JSON has no raw line breaks, so one `data` line holds it.
    pub(super) fn push<T: Serialize>(&mut self, value: &T) {
        let start = self.0.len();
        self.0.extend_from_slice(b"data: ");
        if let Err(error) = serde_json::to_writer(&mut self.0, value) {
            // Only a map with keys that are no strings fails, and nothing here has one.
            tracing::error!(%error, "an event could not be written");
            self.0.truncate(start);
            return;
        }
        self.0.extend_from_slice(b"\n\n");
    }

    fn push_done(&mut self) {
        self.0.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0).into()
    }
}

#[cfg(test)]
impl Events {
    /// The data of each event.
    pub(super) fn values(&self) -> Vec<serde_json::Value> {
        let text = std::str::from_utf8(&self.0).unwrap();
        super::testing::events(text).into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

impl<U, G, W> Stream for EventBody<G, W>
where
    G: Stream<Item = Result<U, ApiError>> + Unpin,
    W: WriteEvents<U> + Unpin,
{
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let _span = this.record.span().clone().entered();
        while let Some(updates) = &mut this.updates
            && this.events.0.len() < WRITE_BYTES
        {
            match updates.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(update))) => this.writer.update(update, &mut this.events),
                Poll::Ready(Some(Err(error))) => {
                    error.log();
                    this.events.push(&error.body());
                    this.updates = None;
                }
                Poll::Ready(None) => {
                    this.writer.end(&mut this.events);
                    this.events.push_done();
                    this.updates = None;
                }
                Poll::Pending if this.events.0.is_empty() => {
                    return this.keep_alive(cx).map(|comment| Some(Ok(comment)));
                }
                Poll::Pending => break,
            }
        }
        if this.events.0.is_empty() {
            this.record.set_streaming(false);
            return Poll::Ready(None);
        }
        this.expect_silence();
        Poll::Ready(Some(Ok(this.events.take())))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};
    use proptest::prelude::*;

    use super::*;

    /// What a client understands, by the rules of the HTML standard for event streams.
    fn parse(stream: &str) -> Vec<String> {
        let mut events = Vec::new();
        let mut data: Option<String> = None;
        for line in stream.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
            if line.is_empty() {
                events.extend(data.take());
            } else if !line.starts_with(':')
                && let (field, value) = line.split_once(':').unwrap_or((line, ""))
                && field == "data"
            {
                let value = value.strip_prefix(' ').unwrap_or(value);
                data = Some(data.map_or_else(|| value.to_owned(), |data| format!("{data}\n{value}")));
            }
        }
        events
    }

    struct Strings;

    impl WriteEvents<String> for Strings {
        fn update(&mut self, update: String, events: &mut Events) {
            events.push(&update);
        }

        fn end(&mut self, events: &mut Events) {
            events.push(&"end");
        }
    }

    fn body<G>(updates: G) -> EventBody<G, Strings> {
        body_with(updates, KEEP_ALIVE)
    }

    fn body_with<G>(updates: G, silence_max: Duration) -> EventBody<G, Strings> {
        let record = Arc::new(AccessRecord::new(tracing::Span::none(), false));
        EventBody::new(updates, Strings, record, silence_max)
    }

    fn written(updates: Vec<Result<String, ApiError>>) -> Vec<String> {
        let chunks =
            body(stream::iter(updates)).map(Result::unwrap).collect::<Vec<_>>().now_or_never().unwrap();
        chunks.iter().map(|chunk| String::from_utf8(chunk.to_vec()).unwrap()).collect()
    }

    #[test]
    fn ready_updates_are_written_at_once_and_end_with_done() {
        let chunks = written(vec![Ok("a".into()), Ok("b".into())]);
        assert_eq!(chunks, ["data: \"a\"\n\ndata: \"b\"\n\ndata: \"end\"\n\ndata: [DONE]\n\n"]);
    }

    #[tokio::test]
    async fn updates_that_have_come_do_not_wait_for_others() {
        let updates = stream::iter([Ok("a".to_owned())]).chain(stream::pending());
        let mut body = body(updates);
        assert_eq!(body.next().now_or_never().unwrap().unwrap().unwrap(), "data: \"a\"\n\n");
        assert!(body.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn comments_break_a_long_silence() {
        let updates = stream::iter([Ok("a".to_owned())]).chain(stream::pending());
        let mut body = body_with(updates, Duration::from_millis(1));
        let mut written = String::new();
        for _ in 0..3 {
            written.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
        }
        assert_eq!(written, "data: \"a\"\n\n: still at work\n\n: still at work\n\n");
        assert_eq!(parse(&written), ["\"a\""]);
    }

    #[test]
    fn a_write_is_bounded() {
        let chunks = written(vec![Ok("x".repeat(10_000)); 5]);
        assert!(chunks.len() > 1);
        assert!(chunks.iter().all(|chunk| chunk.len() < WRITE_BYTES + 11_000));
    }

    #[test]
    fn a_failure_ends_the_stream_with_the_error_and_without_done() {
        let error = ApiError::server("plugin_failed", "it broke");
        let chunks = written(vec![Ok("a".into()), Err(error), Ok("never".into())]);
        let expected =
            r#"{"error":{"message":"it broke","type":"server_error","code":"plugin_failed","param":null}}"#;
        assert_eq!(parse(&chunks.concat()), ["\"a\"", expected]);
    }

    proptest! {
        #[test]
        fn any_text_arrives_as_it_was_sent(texts in proptest::collection::vec(any::<String>(), 0..8)) {
            let stream = written(texts.iter().cloned().map(Ok).collect()).concat();
            let mut events = parse(&stream);
            prop_assert_eq!(events.pop(), Some("[DONE]".to_owned()));
            let received: Vec<String> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
            prop_assert_eq!(&received[..received.len() - 1], texts);
        }

        #[test]
        fn line_breaks_and_controls_arrive_too(text in "[\\r\\n\\x00-\\x1f\u{2028}\u{85}: a]{0,40}") {
            let events = parse(&written(vec![Ok(text.clone())]).concat());
            prop_assert_eq!(serde_json::from_str::<String>(&events[0]).unwrap(), text);
        }
    }
}
