//! An answer as it arrives.

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use pajamas_plugin_api::{Error as PluginError, Finish, Usage};

use super::Error;
use crate::engine::{EngineError, JobEvent};
use crate::text::Utf8Assembler;

/// A complete answer, with what it took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) finish: Finish,
    pub(super) usage: Usage,
    /// From the question to the first token.
    pub(super) first_token: Duration,
    /// From the first token to the end.
    pub(super) rest: Duration,
}

/// Receives an answer and shows each piece of its text as soon as it is complete.
///
/// # Cancellation
/// What has been received is lost, and the job is cancelled.
pub(super) async fn receive(
    mut events: impl Stream<Item = JobEvent> + Unpin,
    started: Instant,
    mut show: impl FnMut(&str) -> Result<(), Error>,
) -> Result<Answer, Error> {
    let (mut text, mut assembler, mut first_at) = (String::new(), Utf8Assembler::new(), None);
    while let Some(event) = events.next().await {
        let piece = match &event {
            JobEvent::Token { token, .. } => {
                first_at.get_or_insert_with(Instant::now);
                assembler.push(&token.text)
            }
            JobEvent::Done { .. } => assembler.finish(),
            _ => String::new(),
        };
        if !piece.is_empty() {
            show(&piece)?;
            text.push_str(&piece);
        }
        match event {
            JobEvent::Done { finish, usage } => {
                let first_at = first_at.unwrap_or_else(Instant::now);
                let first_token = first_at.saturating_duration_since(started);
                return Ok(Answer { text, finish, usage, first_token, rest: first_at.elapsed() });
            }
            JobEvent::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    Err(without_end())
}

/// All events of an answer that is of use only when it is complete.
pub(super) async fn collect(
    mut events: impl Stream<Item = JobEvent> + Unpin,
) -> Result<Vec<JobEvent>, Error> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            JobEvent::Done { .. } => return Ok(all),
            JobEvent::Failed(error) => return Err(error.into()),
            event => all.push(event),
        }
    }
    Err(without_end())
}

/// The events ended without a terminal one.
pub(super) fn without_end() -> Error {
    let broken = PluginError::internal("the answer has no end: the connection to the plugin was lost");
    EngineError::Plugin(broken).into()
}

/// An event's JSON is of another schema.
#[expect(clippy::needless_pass_by_value, reason = "it is what map_err passes")]
pub(super) fn malformed(error: serde_json::Error) -> Error {
    let broken = PluginError::internal(format!("the plugin answered with JSON of another schema: {error}"));
    EngineError::Plugin(broken).into()
}

impl Answer {
    /// How fast tokens followed the first one; 0 when none did.
    pub(super) fn tokens_per_second(&self) -> f64 {
        let following = self.usage.completion_tokens.saturating_sub(1);
        if following == 0 { 0.0 } else { f64::from(following) / self.rest.as_secs_f64().max(f64::EPSILON) }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tokens, rate) = (self.usage.completion_tokens, self.tokens_per_second());
        write!(
            f,
            "{tokens} tokens, {rate:.1} tokens/s, first token after {} ms",
            self.first_token.as_millis()
        )?;
        if self.finish == Finish::Length {
            f.write_str("; cut off at the limit")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;
    use crate::engine::TokenLogprob;

    fn token(text: &'static [u8]) -> JobEvent {
        let token = TokenLogprob { token: 1, logprob: 0.0, text: Bytes::from_static(text) };
        JobEvent::Token { token, top: vec![] }
    }

    fn done() -> JobEvent {
        let usage = Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens: 3 };
        JobEvent::Done { finish: Finish::Stop, usage }
    }

    async fn receive_all(events: Vec<JobEvent>) -> (Vec<String>, Result<Answer, Error>) {
        let mut shown = Vec::new();
        let show = |piece: &str| {
            shown.push(piece.to_owned());
            Ok(())
        };
        let answer = receive(stream::iter(events), Instant::now(), show).await;
        (shown, answer)
    }

    #[tokio::test]
    async fn pieces_are_shown_as_soon_as_their_characters_are_complete() {
        let (shown, answer) =
            receive_all(vec![token(b"a\xe2\x82"), token(b"\xac"), token(b"\xf0"), done()]).await;
        assert_eq!(shown, ["a", "\u{20ac}", "\u{fffd}"]);
        let answer = answer.unwrap();
        assert_eq!(answer.text, "a\u{20ac}\u{fffd}");
        assert_eq!(answer.usage.completion_tokens, 3);
    }

    #[tokio::test]
    async fn a_failure_is_passed_on_and_a_missing_end_is_one() {
        let (shown, answer) =
            receive_all(vec![token(b"a"), JobEvent::Failed(EngineError::ShuttingDown)]).await;
        assert_eq!(shown, ["a"]);
        assert!(matches!(answer, Err(Error::Engine(EngineError::ShuttingDown))));
        assert!(receive_all(vec![token(b"a")]).await.1.is_err());
    }

    #[test]
    fn the_summary_tells_speed_and_whether_it_was_cut_off() {
        let answer = Answer {
            text: String::new(),
            finish: Finish::Length,
            usage: Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens: 101 },
            first_token: Duration::from_millis(89),
            rest: Duration::from_secs(2),
        };
        assert_eq!(
            answer.to_string(),
            "101 tokens, 50.0 tokens/s, first token after 89 ms; cut off at the limit"
        );
        let empty = Answer { usage: Usage::default(), finish: Finish::Stop, ..answer };
        assert_eq!(empty.to_string(), "0 tokens, 0.0 tokens/s, first token after 89 ms");
    }
}
